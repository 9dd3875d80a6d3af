"""Letting a site drop its copies, and taking that back. The sites are asked before the transaction, which looks at all rows again."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from datamodel.audit.recording import record_permissions, record_refusals
from datamodel.audit.rules import Action
from datamodel.checksums import Checksum
from datamodel.rows import database_now
from datamodel.transactions import serialized
from global_inventory.held import operations as held, rules as held_rules
from global_inventory.held.rules import Asked
from global_inventory.releases import queries, rules
from global_inventory.releases.rules import Outcome, Verdict

_LOCK_SQL = "SELECT id FROM artifact WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
_MARK_SQL = """
    UPDATE site_location s SET releasing_at = inventory_now(), release_id = n.release_id, release_stored_at = n.stored_at
    FROM unnest(%(ids)s::uuid[], %(releases)s::uuid[], %(times)s::timestamptz[]) AS n(id, release_id, stored_at)
    WHERE s.artifact_id = n.id AND s.site_id = %(site)s
"""
_RETURN_SQL = """
    UPDATE site_location s SET releasing_at = NULL, release_id = NULL, release_stored_at = NULL
    FROM unnest(%(ids)s::uuid[], %(releases)s::uuid[]) AS n(id, release_id)
    WHERE s.artifact_id = n.id AND s.site_id = %(site)s AND s.release_id = n.release_id
"""
_COUNT_SQL = """
    INSERT INTO release_outcome AS o (outcome, files) SELECT * FROM unnest(%s::text[], %s::bigint[])
    ON CONFLICT (outcome) DO UPDATE SET files = o.files + excluded.files
"""


@dataclass(frozen=True, slots=True)
class Release:
    """What a site wants to drop, under its own name `release_id` for that; `stored_at`, by its clock: which copy it means."""

    release_id: uuid.UUID
    artifact_id: uuid.UUID
    uri: str
    digest: Checksum
    stored_at: datetime


def grant_releases(*, site_id: uuid.UUID, asked: Sequence[Release]) -> list[Verdict]:
    """Which of these copies the site may drop, in the order asked; no artifact may be named twice.

    The other holders confirm their copies first. Then one transaction locks the artifacts, so that of two sites which ask at once one
    comes second, counts the copies that remain, and marks those of this site that may go: from its commit on they are neither
    counted nor located. A repeat under the same `release_id` grants again. Raises `RaceLostError`.
    """
    since = database_now() - timedelta(seconds=settings.INVENTORY_RELEASE_VERIFIED_SECONDS)
    files = [Asked(one.uri, one.digest) for one in asked]
    found = held.confirmations(asked=files, since=since, without=site_id)
    obstacles: dict[uuid.UUID, Outcome] = {}
    confirmed: dict[uuid.UUID, frozenset[uuid.UUID]] = {}
    for one, file, known, verdict in zip(asked, files, found.known, found.verdicts, strict=True):
        reason = held_rules.mismatch(file, known)
        if reason is not None:
            obstacles[one.artifact_id] = Outcome(reason.value)
        elif known is None or known.artifact_id != one.artifact_id:
            obstacles[one.artifact_id] = Outcome.OTHER_CONTENT
        confirmed[one.artifact_id] = frozenset(copy.site_id for copy in verdict.copies)
    return serialized(lambda: _grant(site_id, asked, obstacles, confirmed))


def return_releases(*, site_id: uuid.UUID, returned: Sequence[tuple[uuid.UUID, uuid.UUID]]) -> int:
    """The site keeps these copies (artifact, release): they count again; returns how many did not.

    A copy that was granted anew under another release stays marked, so a message that comes late does no harm. A repeat
    changes nothing.
    """

    def unmark() -> int:
        ids, releases = [one[0] for one in returned], [one[1] for one in returned]
        with connection.cursor() as cursor:
            cursor.execute(_LOCK_SQL, [ids])
            cursor.execute(_RETURN_SQL, {"ids": ids, "releases": releases, "site": site_id})
            count = int(cursor.rowcount)
        _count(Counter({Outcome.RETURNED: count}))
        return count

    return serialized(unmark)


def _grant(
    site_id: uuid.UUID,
    asked: Sequence[Release],
    obstacles: dict[uuid.UUID, Outcome],
    confirmed: dict[uuid.UUID, frozenset[uuid.UUID]],
) -> list[Verdict]:
    ids = [one.artifact_id for one in asked]
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_SQL, [ids])
        living = {row[0] for row in cursor.fetchall()}
    # Statements of their own: they see what was committed while the locks were waited for.
    holders, demands = queries.holders(ids), queries.demands()
    verdicts = []
    for one in asked:
        if one.artifact_id in obstacles:
            verdicts.append(Verdict(obstacles[one.artifact_id]))
        elif one.artifact_id not in living:
            verdicts.append(Verdict(Outcome.UNKNOWN))
        else:
            verdicts.append(
                rules.judge(
                    site_id=site_id,
                    release_id=one.release_id,
                    holders=holders.get(one.artifact_id, []),
                    confirmed=confirmed[one.artifact_id],
                    demanded=rules.demanded_copies(one.uri, demands, settings.INVENTORY_MINIMUM_COPIES),
                )
            )
    _mark(site_id, [one for one, made in zip(asked, verdicts, strict=True) if made.outcome is Outcome.GRANTED])
    _record(site_id, asked, verdicts)
    _count(Counter(made.outcome for made in verdicts))
    return verdicts


def _record(site_id: uuid.UUID, asked: Sequence[Release], verdicts: Sequence[Verdict]) -> None:
    """For the audit: what may go, and what was refused for which reason; a repeat is nothing new."""
    subject = f"copies at {site_id}"
    for outcome in sorted({made.outcome for made in verdicts} - {Outcome.REPEATED}):
        uris = [one.uri for one, made in zip(asked, verdicts, strict=True) if made.outcome is outcome]
        if outcome is Outcome.GRANTED:
            record_permissions(Action.RETIRE, subject, uris)
        else:
            record_refusals(Action.RETIRE, subject, uris, reason=outcome.value)


def _mark(site_id: uuid.UUID, granted: Sequence[Release]) -> None:
    values: dict[str, Any] = {
        "ids": [one.artifact_id for one in granted],
        "releases": [one.release_id for one in granted],
        "times": [one.stored_at for one in granted],
        "site": site_id,
    }
    with connection.cursor() as cursor:
        cursor.execute(_MARK_SQL, values)


def _count(outcomes: Counter[Outcome]) -> None:
    """Last in its transaction, and in order: these rows are everybody's."""
    ordered = sorted((outcome.value, count) for outcome, count in outcomes.items() if count)
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_SQL, [[outcome for outcome, _ in ordered], [count for _, count in ordered]])
