"""Finding what is missing, without reading what is stored: only what is new in this inventory's own feed is looked at.

An artifact becomes known, or its copy is lost, in a transaction whose id its row (or its DeletedStorageLocationEvent) carries.
The search reads both in that order from where it stopped, below the stable horizon like any harvester, and puts what is not
stored and wanted into the queue. Its cost follows the news, not the inventory. Rows above the horizon are looked at as well,
and again next time: a long transaction elsewhere must not hold up the pull of what is visible.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from datamodel.positions import HORIZON_SQL, read_identity
from site_service.file_sync.models import SyncScan
from site_service.policy.queries import current_policy
from site_service.policy.rules import Policy

PAGE = 10_000
_BUDGET_SECONDS = 10.0
_FIRST_ID, _LAST_ID = uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class _Place:
    """After this row of the feed."""

    txid: int
    row_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class _Page:
    """What lies behind a place: how many rows were looked at, where they end, and which of their artifacts are not stored."""

    rows: int
    end: _Place
    missing: list[tuple[uuid.UUID, str, int]]


_START = _Place(0, _FIRST_ID)


def note_missing(*, seconds: float = _BUDGET_SECONDS) -> int:
    """Bring the queue up to date with what is known, lost and wanted; returns how many rows it gained.

    Commits a page at a time, rows and cursor together, and stops after about `seconds` (but not before one page); the next
    call goes on. Returns 0 when another process is at it. A changed policy re-judges the queue, then reads everything once more.
    """
    deadline = time.monotonic() + seconds
    gained = 0
    while True:
        with transaction.atomic():
            scan = _locked_scan()
            if scan is None:
                return gained
            policy = current_policy()
            _begin_again_if_changed(scan, policy)
            more, is_done = _go_on(scan, policy)
            scan.save()
        gained += more
        if is_done or time.monotonic() > deadline:
            return gained


def count_unseen() -> int:
    """How many wanted and missing artifacts the next scan will find, as far as one page shows; changes nothing."""
    scan, policy = SyncScan.objects.filter(id=1).first() or SyncScan(), current_policy()
    is_current = (scan.epoch, scan.policy) == (read_identity().epoch, policy_digest(policy))
    known = _Place(scan.known_txid, scan.known_id) if is_current else _START
    lost = _Place(scan.lost_txid, scan.lost_id) if is_current else _START
    wanted = {row[0] for row in _page(_KNOWN_SQL, known).missing if policy.is_wanted(row[1])}
    found = wanted | {row[0] for row in _page(_LOST_SQL, lost).missing}
    queued = _fetch("SELECT count(*) FROM sync_attempt WHERE artifact_id = ANY(%(ids)s)", {"ids": list(found)})
    return len(found) - int(queued[0][0])


def policy_digest(policy: Policy) -> str:
    """Names the rules of a policy: equal rules, equal digest."""
    text = "\n".join(f"{rule.namespace} {rule.wanted} {rule.priority}" for rule in policy.rules)
    return hashlib.sha256(text.encode()).hexdigest()


def _locked_scan() -> SyncScan | None:
    SyncScan.objects.get_or_create(id=1)
    return SyncScan.objects.select_for_update(skip_locked=True).filter(id=1).first()


def _begin_again_if_changed(scan: SyncScan, policy: Policy) -> None:
    epoch, digest = read_identity().epoch, policy_digest(policy)
    if scan.epoch == epoch and scan.policy == digest:
        return
    if scan.policy != digest:
        scan.judged_id = _FIRST_ID
    scan.epoch, scan.policy = epoch, digest
    scan.known_txid = scan.lost_txid = 0
    scan.known_id = scan.lost_id = _FIRST_ID


def _go_on(scan: SyncScan, policy: Policy) -> tuple[int, bool]:
    """One page of what comes next; returns how many rows the queue gained and whether nothing is left."""
    if scan.judged_id is not None:
        scan.judged_id = _judge_again(scan.judged_id, policy)
    if scan.judged_id is not None:
        return 0, False
    known, known_done = _advance(scan, policy, _KNOWN_SQL, is_repair=False)
    lost, lost_done = _advance(scan, policy, _LOST_SQL, is_repair=True)
    return known + lost, known_done and lost_done


def _judge_again(after: uuid.UUID, policy: Policy) -> uuid.UUID | None:
    """The queue's next rows under another policy: unwanted ones go (but for repairs), priorities follow. The last of them;
    none if these were all.
    """
    rows = _fetch(_QUEUED_SQL, {"after": after, "limit": PAGE})
    verdicts = [(artifact_id, is_repair, policy.verdict(str(uri))) for artifact_id, uri, is_repair in rows]
    dropped = [artifact_id for artifact_id, is_repair, verdict in verdicts if not (verdict.wanted or is_repair)]
    values = {
        "dropped": dropped,
        "ids": [artifact_id for artifact_id, _, _ in verdicts],
        "priorities": [verdict.priority for _, _, verdict in verdicts],
    }
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM sync_attempt WHERE artifact_id = ANY(%(dropped)s)", values)
        cursor.execute(_PRIORITY_SQL, values)
    last: uuid.UUID = rows[-1][0] if rows else after
    return last if len(rows) == PAGE else None


def _advance(scan: SyncScan, policy: Policy, sql: str, *, is_repair: bool) -> tuple[int, bool]:
    """One page of one kind of news; returns how many rows the queue gained and whether the end was reached."""
    place = _Place(scan.lost_txid, scan.lost_id) if is_repair else _Place(scan.known_txid, scan.known_id)
    (horizon,) = _fetch(f"SELECT {HORIZON_SQL}", {})[0]
    gained = 0
    while True:
        page = _page(sql, place)
        gained += _enqueue(page.missing, policy, is_repair=is_repair)
        place, is_full = page.end, page.rows == PAGE
        if not is_full or place.txid < horizon:
            break
    reached = place if is_full and place.txid < horizon else _Place(horizon - 1, _LAST_ID)
    if is_repair:
        scan.lost_txid, scan.lost_id = reached.txid, reached.row_id
    else:
        scan.known_txid, scan.known_id = reached.txid, reached.row_id
    return gained, not is_full


def _page(sql: str, place: _Place) -> _Page:
    rows = _fetch(sql, {"txid": place.txid, "id": place.row_id, "limit": PAGE})
    count, txid, row_id = rows[0][:3]
    end = _Place(int(txid), row_id) if count else place
    return _Page(int(count), end, [row[3:6] for row in rows if row[3] is not None])


def _enqueue(missing: Sequence[tuple[uuid.UUID, str, int]], policy: Policy, *, is_repair: bool) -> int:
    judged = [(row, policy.verdict(row[1])) for row in missing]
    wanted = [(row, verdict.priority) for row, verdict in judged if verdict.wanted or is_repair]
    if not wanted:
        return 0
    values: dict[str, Any] = {
        "ids": [row[0] for row, _ in wanted],
        "uris": [row[1] for row, _ in wanted],
        "lengths": [row[2] for row, _ in wanted],
        "priorities": [priority for _, priority in wanted],
        "is_repair": is_repair,
    }
    with connection.cursor() as cursor:
        cursor.execute(_ENQUEUE_SQL, values)
        return int(cursor.rowcount)


def _feed_sql(source: str) -> str:
    """A page of `source` (id, uri, content_length, txid in feed order): its size, its end, and what of it is not stored."""
    return f"""
    WITH page AS MATERIALIZED (SELECT * FROM ({source}) f ORDER BY f.txid, f.id LIMIT %(limit)s)
    SELECT p.rows, p.txid, p.id, m.id, m.uri, m.content_length
    FROM (SELECT count(*) AS rows, (array_agg(txid ORDER BY txid DESC, id DESC))[1] AS txid,
                 (array_agg(id ORDER BY txid DESC, id DESC))[1] AS id FROM page) p
    LEFT JOIN (
        SELECT id, uri, content_length FROM page
        WHERE content_length IS NOT NULL AND NOT EXISTS (SELECT 1 FROM storage_location l WHERE l.artifact_id = page.id)
    ) m ON TRUE
    """


_KNOWN_SQL = _feed_sql(
    "SELECT a.id, a.uri, a.content_length, a.txid FROM artifact a WHERE (a.txid, a.id) > (%(txid)s, %(id)s) "
    "ORDER BY a.txid, a.id LIMIT %(limit)s"
)
_LOST_SQL = _feed_sql(
    "SELECT e.id, a.uri, a.content_length, e.txid FROM deleted_storage_location_event e LEFT JOIN artifact a ON a.id = e.id "
    "AND NOT e.is_dropped WHERE (e.txid, e.id) > (%(txid)s, %(id)s) ORDER BY e.txid, e.id LIMIT %(limit)s"
)
_ENQUEUE_SQL = """
    INSERT INTO sync_attempt (artifact_id, uri, content_length, priority, is_repair, created_at, attempts, next_try_at,
        last_reason, last_error)
    SELECT n.id, n.uri, n.content_length, n.priority, %(is_repair)s, t.now, 0, t.now, '', ''
    FROM unnest(%(ids)s::uuid[], %(uris)s::text[], %(lengths)s::bigint[], %(priorities)s::int[])
        AS n(id, uri, content_length, priority), (SELECT inventory_now() AS now) t
    ON CONFLICT (artifact_id) DO UPDATE SET is_repair = TRUE WHERE EXCLUDED.is_repair AND NOT sync_attempt.is_repair
"""
_QUEUED_SQL = """
    SELECT artifact_id, uri, is_repair FROM sync_attempt WHERE artifact_id > %(after)s ORDER BY artifact_id LIMIT %(limit)s
"""
_PRIORITY_SQL = """
    UPDATE sync_attempt s SET priority = n.priority FROM unnest(%(ids)s::uuid[], %(priorities)s::int[]) AS n(id, priority)
    WHERE s.artifact_id = n.id AND s.priority <> n.priority
"""


def _fetch(sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
