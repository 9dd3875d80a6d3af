"""Asking the sites about their copies, waiting if that is wanted, and the statement about it. Nothing is written."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from django.conf import settings
from django.db import connection

from datamodel import keys
from datamodel.errors import RemoteError
from datamodel.notify import news
from datamodel.reach import EVERYWHERE, Reach
from datamodel.rows import database_now
from datamodel.statements import signed_statement
from datamodel.wire import time_text
from global_inventory.held import queries, rules
from global_inventory.held.rules import Asked, Copy, Demand, Known, Verdict
from global_inventory.sites import client
from global_inventory.sites.client import SiteDoor, VerifiedCopy

STATEMENT_KIND = "storage-inventory-held+jwt"
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
# Whoever waits holds a thread of the web server; who finds no place is answered at once.
_waiting = threading.BoundedSemaphore(8)


@dataclass(frozen=True, slots=True)
class Holdings:
    """All answers of one call, in the order asked; `unanswered` are sites that hold copies, but did not answer now."""

    known: Sequence[Known | None]
    verdicts: Sequence[Verdict]
    names: Mapping[uuid.UUID, str]
    unanswered: tuple[str, ...]
    as_of: datetime

    @property
    def are_held(self) -> bool:
        return rules.are_held(self.verdicts)


def holdings(*, asked: Sequence[Asked], demand: Demand, wait: float, readable: Reach) -> Holdings:
    """How the files are held now, or, within `wait` seconds, as soon as all are held as demanded.

    The holders confirm their copies themselves, at the time of the call; one that does not answer counts for nothing. No
    connection is held meanwhile. What the caller may not read is unknown to it.
    """
    deadline = time.monotonic() + min(wait, settings.INVENTORY_HELD_WAIT_SECONDS)
    found = _look(asked, demand, readable)
    if found.are_held or wait <= 0 or not _waiting.acquire(blocking=False):
        return found
    try:
        pause = _FIRST_PAUSE_SECONDS
        while not found.are_held and (remaining := deadline - time.monotonic()) > 0:
            news.wait(news.count(), min(remaining, pause))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
            found = _look(asked, demand, readable)
        return found
    finally:
        _waiting.release()


def confirmations(*, asked: Sequence[Asked], since: datetime, without: uuid.UUID) -> Holdings:
    """Which copies their sites confirm now, verified since then; the site `without` is not asked. No connection is held."""
    return _look(asked, Demand(1, since), without=frozenset({without}))


def statement(asked: Sequence[Asked], demand: Demand, found: Holdings) -> dict[str, object]:
    """The answer as JSON, and under `statement` the same signed by this inventory's active key."""
    files = [
        _file(one, known, verdict, found.names)
        for one, known, verdict in zip(asked, found.known, found.verdicts, strict=True)
    ]
    claims: dict[str, object] = {
        "iss": settings.INVENTORY_PUBLIC_URL,
        "iat": int(datetime.now(UTC).timestamp()),
        "asOf": time_text(found.as_of),
        "copies": demand.copies,
        "since": time_text(demand.since) if demand.since is not None else None,
        "held": found.are_held,
        "unanswered": list(found.unanswered),
        "files": files,
    }
    return {**claims, "statement": signed_statement(keys.signing_key_cache.get(), claims, kind=STATEMENT_KIND)}


def _look(
    asked: Sequence[Asked], demand: Demand, readable: Reach = EVERYWHERE, without: frozenset[uuid.UUID] = frozenset()
) -> Holdings:
    """One round: what is known here, then all holders at once, but for those `without`."""
    as_of = database_now()
    table = queries.known_artifacts([one.uri for one in asked if one.uri in readable])
    known = [table.get(one.uri) for one in asked]
    by_site: dict[uuid.UUID, list[str]] = {}
    for one, row in zip(asked, known, strict=True):
        if row is not None and rules.mismatch(one, row) is None:
            for site_id in frozenset(row.holders) - without:
                by_site.setdefault(site_id, []).append(one.uri)
    doors = queries.site_doors(list(by_site))
    connection.close()
    copies, answered = _ask({site_id: (doors[site_id], uris) for site_id, uris in by_site.items() if site_id in doors})
    names = {site_id: door.name for site_id, door in doors.items()}
    silent = sorted(names.get(site_id, str(site_id)) for site_id in by_site if site_id not in answered)
    verdicts = [rules.judge(one, row, copies.get(one.uri, ()), demand) for one, row in zip(asked, known, strict=True)]
    return Holdings(known, verdicts, names, tuple(silent), as_of)


def _ask(
    questions: Mapping[uuid.UUID, tuple[SiteDoor, list[str]]],
) -> tuple[dict[str, list[Copy]], frozenset[uuid.UUID]]:
    """The copies by uri, and which sites answered."""
    seconds = settings.INVENTORY_REMOTE_TIMEOUT_SECONDS
    calls = {site_id: partial(_answer_of, door, uris, seconds) for site_id, (door, uris) in questions.items()}
    copies: dict[str, list[Copy]] = {}
    answered = set()
    for site_id, answer in client.concurrently(calls, seconds=seconds):
        if answer is None:
            continue
        answered.add(site_id)
        # Once per uri, whatever a site says.
        for uri, one in {one.uri: one for one in answer}.items():
            copy = Copy(site_id, one.artifact_id, one.content_checksum, one.content_length, one.verified_at)
            copies.setdefault(uri, []).append(copy)
    return copies, frozenset(answered)


def _answer_of(door: SiteDoor, uris: list[str], seconds: float) -> list[VerifiedCopy] | None:
    """None when the site fails: it confirms nothing."""
    try:
        return client.ask_verified(door, uris, seconds=seconds)
    except RemoteError:
        return None


def _file(one: Asked, known: Known | None, verdict: Verdict, names: Mapping[uuid.UUID, str]) -> dict[str, object]:
    sites = [
        {"site": names[copy.site_id], "siteId": str(copy.site_id), "verifiedAt": time_text(copy.verified_at)}
        for copy in verdict.copies
    ]
    return {
        "uri": one.uri,
        "digest": str(one.digest),
        "id": str(known.artifact_id) if known is not None else None,
        "held": verdict.reason is None,
        "reason": verdict.reason.value if verdict.reason is not None else None,
        "sites": sites,
    }
