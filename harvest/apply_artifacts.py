"""Artifact rows and tombstones of one batch, at a global and at a site: set-based for the plain cases, one by one for collisions.

Everything here works inside the transaction of `operations.apply_batch`, on the temporary table `harvested`, while no other
batch is applied here. Requests do write meanwhile: what a statement decides by, it tests itself, and a broken constraint
repeats the batch. Each function returns how many rows it changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import IntegrityError, connection, transaction

from datamodel import queries, rules as model_rules
from datamodel.alarms.operations import raise_alarm
from datamodel.alarms.rules import AlarmKind, family_of
from datamodel.audit.acting import Actor
from datamodel.audit.recording import record, record_removals
from datamodel.audit.rules import Action, Outcome
from datamodel.ids import new_id
from datamodel.models import RemoteInventory
from datamodel.positions import TXID_SQL
from datamodel.queries import ARTIFACT_COLUMNS, KnownArtifact
from datamodel.rows import (
    claim_retired,
    database_now,
    insert_artifact,
    insert_location,
    insert_tombstone,
    retire_artifacts,
)
from datamodel.rules import ArtifactRow, Located, meta_checksum_of
from harvest.echo import note_page
from harvest.rules import Known, Selection, Verdict, outlives, verdict_at_global, verdict_at_site
from harvest.staging import set_aside
from harvest.streams import ARTIFACTS, DELETED_ARTIFACTS

_CONTRADICTION = """
    EXISTS (SELECT FROM artifact a WHERE a.id = h.id AND (a.uri <> h.uri OR a.content_checksum <> h.content_checksum
        OR a.content_length <> h.content_length OR a.content_last_modified <> h.content_last_modified
        OR a.content_sha256 <> h.content_sha256))
"""
_TWICE = """
    EXISTS (SELECT FROM harvested o WHERE o.uri = h.uri AND (o.content_last_modified, o.id) > (h.content_last_modified, h.id))
"""
_OTHER_URI = "EXISTS (SELECT FROM artifact a WHERE a.id = h.id AND a.uri <> h.uri)"
# Of two updates the later by (time at its origin, checksum) stands, whatever the collation of the database.
_ORDER = '({0}.meta_modified_at, {0}.meta_checksum COLLATE "C")'
# Bytes that this site retains and that are exactly what the row names.
_RETAINED = """
    FROM retired_artifact r WHERE r.uri = {0}.uri AND r.state = 'retained' AND r.content_checksum = {0}.content_checksum
        AND r.content_length = {0}.content_length AND (r.content_sha256 = {0}.content_sha256) IS NOT FALSE
"""
_INSERT_NEW = f"""
    INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, content_type,
        content_encoding, last_modified, meta_checksum, content_sha256, meta_modified_at, txid)
    SELECT h.id, h.uri, h.uri_bucket, h.content_checksum, h.content_last_modified, h.content_length, h.content_type,
        h.content_encoding, {{stamp}}, h.meta_checksum, h.content_sha256, h.meta_modified_at, {TXID_SQL}
    FROM harvested h WHERE NOT EXISTS (SELECT FROM deleted_artifact_event t WHERE t.id = h.id)
"""
_INSERT_LOCATIONS = "INSERT INTO site_location (artifact_id, site_id) SELECT h.id, %s FROM harvested h"
# Where a page is not all new, most of its rows are known: a few tell.
_KNOWN_SAMPLE = "SELECT FROM (SELECT id FROM harvested LIMIT 100) h JOIN artifact a ON a.id = h.id"


@dataclass(frozen=True, slots=True)
class _Role:
    """How the two roles differ: whose clock stamps a row, and who is told of a collision."""

    remote_id: int
    stamp_new: str
    stamp_changed: str
    site_id: uuid.UUID | None
    verdict: Callable[[ArtifactRow, Known], Verdict]


def apply_artifacts_at_global(*, remote_id: int, site_id: uuid.UUID) -> int:
    """Rows of a site's artifact stream: everything that the site stores."""
    later = "greatest(inventory_now(), a.last_modified + interval '1 ms')"
    role = _Role(remote_id, "inventory_now()", later, site_id, verdict_at_global)
    rows, is_some_known = _look()
    if not is_some_known and _insert_page(rows, site_id, role):
        return 2 * rows
    changed = _prepare(remote_id, role) + _merge(role, _renew_ours)
    return changed + _execute(f"{_INSERT_LOCATIONS} ON CONFLICT DO NOTHING", [site_id])


def apply_artifacts_at_site(*, remote_id: int, selection: Selection) -> int:
    """Rows of a global's artifact stream: known here, wanted, or equal to bytes that are retained here."""

    def verdict(incoming: ArtifactRow, known: Known) -> Verdict:
        return verdict_at_site(incoming, known, is_kept=selection.is_wanted(incoming.uri))

    role = _Role(remote_id, "h.last_modified", "h.last_modified", None, verdict)
    changed = _prepare(remote_id, role)
    _leave_unwanted(selection)
    return changed + _merge(role) + _attach_retained()


def _look() -> tuple[int, bool]:
    """How many rows there are, and whether some are known here."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*), EXISTS ({_KNOWN_SAMPLE}) FROM harvested")
        found: tuple[int, bool] = cursor.fetchone()
    return found


def _insert_page(rows: int, site_id: uuid.UUID, role: _Role) -> bool:
    """A page of which nothing is known here goes in as it is, each index looked at once; else nothing is done."""
    try:
        with transaction.atomic():
            if _execute(_INSERT_NEW.format(stamp=role.stamp_new)) < rows:
                raise IntegrityError("some are deleted")
            _execute(_INSERT_LOCATIONS, [site_id])
            note_page(site_id)
    except IntegrityError:
        return False
    return True


def _renew_ours() -> int:
    """Ours is newer, but may have been passed by the sender before we knew that it holds the artifact: offered once more."""
    return _execute(
        f"UPDATE artifact a SET txid = 0 FROM harvested h WHERE a.id = h.id AND a.meta_checksum <> h.meta_checksum "
        f"AND {_ORDER.format('a')} > {_ORDER.format('h')}"
    )


def dead_uris() -> list[str]:
    """Of the artifacts known here that this batch's tombstones name."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT a.uri FROM harvested h JOIN artifact a ON a.id = h.id")
        return [uri for (uri,) in cursor.fetchall()]


def apply_tombstones_at_global(*, remote_id: int) -> int:
    """Deleted for ever: the event gets our own time, so that it is news to the sites."""
    changed = _insert_tombstones(remote_id, "inventory_now()")
    dead = [known.artifact for known, _, _ in _dead()]
    _retire([artifact.id for artifact in dead])
    _record_deaths(remote_id, dead)
    return changed + _execute("DELETE FROM site_location s USING harvested h WHERE s.artifact_id = h.id")


def apply_tombstones_at_site(*, remote_id: int) -> int:
    """Deleted for ever; but content that was put again here after the deletion stays, under a new id."""
    changed = _insert_tombstones(remote_id, "h.last_modified")
    retired: list[ArtifactRow] = []
    for known, reaffirmed_at, deleted_at in _dead():
        if known.location is not None and reaffirmed_at is not None and outlives(reaffirmed_at, deleted_at):
            _renew(known.artifact, known.location, reaffirmed_at)
        else:
            retired.append(known.artifact)
    _retire([artifact.id for artifact in retired])
    _record_deaths(remote_id, retired)
    return changed


def _record_deaths(remote_id: int, dead: Sequence[ArtifactRow]) -> None:
    """One entry of the audit per batch: who deleted them, at the peer, its own audit says."""
    if dead:
        peer = _peer(remote_id)
        record_removals(Action.HARVEST, peer.name, [artifact.uri for artifact in dead], actor=peer)


def _peer(remote_id: int) -> Actor:
    return Actor(RemoteInventory.objects.values_list("name", flat=True).get(id=remote_id), "peer")


def _prepare(remote_id: int, role: _Role) -> int:
    """Leaves in `harvested` what is neither deleted, nor false, nor the loser of a collision."""
    _execute("DELETE FROM harvested h USING deleted_artifact_event t WHERE t.id = h.id")
    if _count("SELECT FROM harvested h JOIN artifact a ON a.id = h.id LIMIT 1"):
        set_aside(ARTIFACTS, remote_id=remote_id, reason="the id is known with other content", where=_CONTRADICTION)
    set_aside(ARTIFACTS, remote_id=remote_id, reason="the uri appears twice in one page", where=_TWICE)
    return _settle_collisions(role)


def _merge(role: _Role, renew_ours: Callable[[], int] = lambda: 0) -> int:
    """New rows; if not all were, newer metadata and a missing SHA-256. A row equal to ours changes nothing."""
    added = _insert_new(role)
    return added if added == _count("SELECT FROM harvested") else added + renew_ours() + _update_known(role)


def _update_known(role: _Role) -> int:
    changed = _execute(
        f"""
        UPDATE artifact a SET content_type = h.content_type, content_encoding = h.content_encoding,
            meta_checksum = h.meta_checksum, meta_modified_at = h.meta_modified_at,
            last_modified = CASE WHEN a.meta_checksum = h.meta_checksum THEN a.last_modified ELSE {role.stamp_changed} END
        FROM harvested h WHERE a.id = h.id AND {_ORDER.format("h")} > {_ORDER.format("a")}
        """
    )
    return changed + _execute(
        "UPDATE artifact a SET content_sha256 = h.content_sha256 FROM harvested h "
        "WHERE a.id = h.id AND a.content_sha256 IS NULL AND h.content_sha256 IS NOT NULL"
    )


def _insert_new(role: _Role) -> int:
    insert = _INSERT_NEW.format(stamp=role.stamp_new)
    return _execute(f"{insert} AND NOT EXISTS (SELECT FROM artifact a WHERE a.id = h.id)")


def _settle_collisions(role: _Role) -> int:
    """Rows whose uri belongs to another id here, one by one: the loser of each is recorded as deleted."""
    columns = ARTIFACT_COLUMNS.replace("a.", "h.")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM harvested h JOIN artifact a ON a.uri = h.uri AND a.id <> h.id ORDER BY h.uri"
        )
        colliding = [queries.artifact_from(row) for row in cursor.fetchall()]
    refused = [incoming.id for incoming in colliding if not _settle(incoming, role)]
    if refused:
        _execute("DELETE FROM harvested WHERE id = ANY(%s)", [refused])
    return len(colliding)


def _settle(incoming: ArtifactRow, role: _Role) -> bool:
    """Whether the incoming row stands."""
    known = queries.artifact_by_uri(incoming.uri, for_update=True)
    if known is None:
        return True
    local = known.artifact
    reaffirmed_at = _reaffirmed_at(local.id) if known.location is not None else None
    verdict = role.verdict(incoming, Known(same_uri=local, reaffirmed_at=reaffirmed_at))
    if verdict is Verdict.RENEW and known.location is not None and reaffirmed_at is not None:
        insert_tombstone(local.id, local.uri, deleted_at=incoming.content_last_modified)
        local = _renew(local, known.location, reaffirmed_at)
    if verdict is Verdict.REPLACE:
        _record_conflict(role, incoming, local, loser_site=_holder(known))
        insert_tombstone(local.id, local.uri, deleted_at=incoming.content_last_modified)
        _execute("DELETE FROM site_location WHERE artifact_id = %s", [local.id])
        _retire([local.id])
        return True
    _record_conflict(role, local, incoming, loser_site=role.site_id)
    insert_tombstone(incoming.id, incoming.uri, deleted_at=local.content_last_modified)
    if role.site_id is not None:
        # Its site holds the uri and shall see the winner, wherever its cursor is.
        _execute("UPDATE artifact SET txid = 0 WHERE id = %s", [local.id])
    return False


def _holder(known: KnownArtifact) -> uuid.UUID | None:
    """A site that holds the loser: this one, or (at a global) one of those that do."""
    with connection.cursor() as cursor:
        if known.location is not None:
            cursor.execute("SELECT s.id FROM storage_site s JOIN inventory_identity i ON i.inventory_id = s.id")
        else:
            cursor.execute(
                "SELECT site_id FROM site_location WHERE artifact_id = %s ORDER BY site_id LIMIT 1", [known.artifact.id]
            )
        row = cursor.fetchone()
    return row[0] if row else None


def _record_conflict(role: _Role, winner: ArtifactRow, loser: ArtifactRow, *, loser_site: uuid.UUID | None) -> None:
    is_same = model_rules.has_same_content(winner, loser)
    is_new = _execute(
        """
        INSERT INTO harvest_conflict (id, uri, winner_id, loser_id, loser_checksum, loser_length, loser_last_modified,
            loser_site_id, same_content, decided_at)
        VALUES (gen_random_uuid(), %s, %s, %s, %s, %s, %s, %s, %s, inventory_now()) ON CONFLICT (loser_id) DO NOTHING
        """,
        [
            loser.uri,
            winner.id,
            loser.id,
            loser.content_checksum,
            loser.content_length,
            loser.content_last_modified,
            loser_site,
            is_same,
        ],
    )
    if is_new:
        facts = {
            "loser": str(loser.id),
            "winner": str(winner.id),
            "checksum": loser.content_checksum,
            "kept": winner.content_checksum,
            "site": str(loser_site) if loser_site is not None else None,
        }
        reason = "the same content has another id" if is_same else "other content was stored later"
        by = _peer(role.remote_id)
        record(Action.COLLISION, loser.uri, details=facts, outcome=Outcome.REFUSED, reason=reason, actor=by)
    if is_new and not is_same:
        text = f"Two sites stored different content as {loser.uri}; the later is kept, the earlier ({loser.id}) counts as deleted."
        raise_alarm(kind=AlarmKind.LOST_COLLISION, subject=family_of(loser.uri), text=text)


def _leave_unwanted(selection: Selection) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT h.id, h.uri FROM harvested h WHERE NOT EXISTS (SELECT FROM artifact a WHERE a.id = h.id)
                AND NOT EXISTS (SELECT {_RETAINED.format("h")})
            """
        )
        unwanted = [artifact_id for artifact_id, uri in cursor.fetchall() if not selection.is_wanted(uri)]
    if unwanted:
        _execute("DELETE FROM harvested WHERE id = ANY(%s)", [unwanted])


def _attach_retained() -> int:
    """Content that is still here is given to the artifacts that name it: it never travels twice."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT a.id, a.uri, r.id, r.storage_id, r.storage_bucket FROM harvested h JOIN artifact a ON a.id = h.id
            CROSS JOIN LATERAL (SELECT r.* {_RETAINED.format("a")} ORDER BY r.died_at DESC LIMIT 1) r
            WHERE NOT EXISTS (SELECT FROM storage_location l WHERE l.artifact_id = a.id)
            """
        )
        found = cursor.fetchall()
    attached = 0
    for artifact_id, uri, retired_id, storage_id, storage_bucket in found:
        if claim_retired(retired_id):
            insert_location(artifact_id, uri, Located(storage_id, storage_bucket))
            attached += 1
    return attached


def _insert_tombstones(remote_id: int, stamp: str) -> int:
    set_aside(DELETED_ARTIFACTS, remote_id=remote_id, reason="the id is known with another uri", where=_OTHER_URI)
    return _execute(
        f"""
        INSERT INTO deleted_artifact_event (id, uri, last_modified, meta_checksum, deleted_at, txid)
        SELECT h.id, h.uri, {stamp}, h.meta_checksum, h.deleted_at, 0 FROM harvested h ON CONFLICT (id) DO NOTHING
        """
    )


def _dead() -> list[tuple[KnownArtifact, datetime | None, datetime]]:
    """Artifacts of this batch's tombstones that are still here, locked, with `reaffirmed_at` and the time of deletion."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT {ARTIFACT_COLUMNS}, l.storage_id, l.storage_bucket, a.reaffirmed_at, h.deleted_at
            FROM harvested h JOIN artifact a ON a.id = h.id LEFT JOIN storage_location l ON l.artifact_id = a.id
            ORDER BY a.id FOR UPDATE OF a
            """
        )
        return [
            (KnownArtifact(queries.artifact_from(row), Located(*row[-4:-2]) if row[-4] else None), row[-2], row[-1])
            for row in cursor.fetchall()
        ]


def _retire(artifact_ids: Sequence[uuid.UUID]) -> None:
    if artifact_ids:
        retire_artifacts(artifact_ids, died_at=database_now())


def _renew(old: ArtifactRow, located: Located, reaffirmed_at: datetime) -> ArtifactRow:
    """The same bytes under a new id, later than the old: the caller has recorded the old one as deleted."""
    when = model_rules.next_content_time(reaffirmed_at, old.content_last_modified)
    new = replace(
        old,
        id=new_id(),
        content_last_modified=when,
        meta_modified_at=when,
        last_modified=max(database_now(), old.last_modified + model_rules.MILLISECOND),
    )
    new = replace(new, meta_checksum=meta_checksum_of(new))
    _retire([old.id])
    claim_retired(old.id)
    insert_artifact(new, located)
    return new


def _reaffirmed_at(artifact_id: uuid.UUID) -> datetime | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reaffirmed_at FROM artifact WHERE id = %s", [artifact_id])
        row = cursor.fetchone()
    return row[0] if row else None


def _count(select: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM ({select}) AS found")
        return int(cursor.fetchone()[0])


def _execute(statement: str, parameters: Sequence[Any] = ()) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)
