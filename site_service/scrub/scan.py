"""Keeping the record of copies whole without a write on the way of a PUT: it follows this inventory's own feed.

A copy comes into service in a transaction whose id its artifact row carries, so a cursor below the stable horizon misses none
and costs only what is new. Until its row is made a copy counts as verified when it was stored, so nothing hangs on this being prompt.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connection

from datamodel.positions import HORIZON_SQL, read_identity
from datamodel.rules import Located
from datamodel.transactions import serialized
from site_service.scrub import rules
from site_service.scrub.models import ScrubProgress
from site_service.scrub.rules import Schedule

# A transaction that writes holds back what is news to others (`HORIZON_SQL`): where all cores are busy 5,000 rows took most of a second.
PAGE = 1_000
_BUDGET_SECONDS = 10.0
_FIRST_ID, _LAST_ID = uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)


def follow(schedule: Schedule, *, seconds: float = _BUDGET_SECONDS) -> int:
    """Make rows for what came into service, and new times for all if the schedule has changed; returns how many rows changed.

    Commits a page at a time with its cursor and stops after about `seconds` (not before one page); the next call goes on.
    Does nothing when another process is at it.
    """
    deadline = time.monotonic() + seconds
    changed = 0
    while True:
        count, is_done = serialized(lambda: _page(schedule))
        changed += count
        if is_done or time.monotonic() > deadline:
            return changed


def remember(*, located: Located, content_length: int, verified_at: datetime) -> None:
    """Bytes that come into service without being read are no better than when they were last known good.

    For the caller's transaction. What is known of them already stands.
    """
    place = {"storage_id": located.storage_id, "storage_bucket": located.storage_bucket}
    _execute(_REMEMBER_SQL, place | {"length": content_length, "verified_at": verified_at})


def request_reading(*, uris: Sequence[str], schedule: Schedule) -> int:
    """The copies of these artifacts are due at once; returns how many. Those that no rule has read are not. A repeat changes nothing."""
    follow(schedule)
    return serialized(lambda: _execute(_REQUEST_SQL, {"uris": list(uris)}))


def settle() -> int:
    """Damaged copies whose artifact has a good copy again, or is gone, wait no more; returns how many.

    The new copy was verified while it was written; it is read back from the device as soon as possible.
    """

    def write() -> int:
        with connection.cursor() as cursor:
            cursor.execute(_REPAIRED_SQL)
            repaired = [row[0] for row in cursor.fetchall()]
            cursor.execute(_READ_BACK_SQL, {"ids": repaired})
            cursor.execute(_GONE_SQL)
            return len(repaired) + int(cursor.rowcount)

    return serialized(write)


def tidy(*, retention_seconds: int) -> tuple[int, int]:
    """Give up what is of no use any more; returns how many records of removed bytes went, and damaged bytes for removal.

    Damaged bytes of artifacts that have a good copy again, or are gone, are kept for the retention time. A repeat changes
    nothing.
    """

    def write() -> tuple[int, int]:
        with connection.cursor() as cursor:
            cursor.execute(_FORGET_SQL)
            forgotten = int(cursor.rowcount)
            cursor.execute(_RELEASE_SQL, {"seconds": retention_seconds})
            return forgotten, int(cursor.rowcount)

    return serialized(write)


def _page(schedule: Schedule) -> tuple[int, bool]:
    ScrubProgress.objects.get_or_create(id=1)
    progress = ScrubProgress.objects.select_for_update(skip_locked=True).filter(id=1).first()
    if progress is None:
        return 0, True
    _begin_again_if_changed(progress, schedule)
    judged = _judge_again(progress, schedule)
    added, is_current = _add_news(progress, schedule)
    progress.save(update_fields=["epoch", "known_txid", "known_id", "schedule", "judged_id"])
    return added + judged, is_current and progress.judged_id is None


def _begin_again_if_changed(progress: ScrubProgress, schedule: Schedule) -> None:
    epoch = read_identity().epoch
    if progress.epoch != epoch:
        progress.epoch, progress.known_txid, progress.known_id = epoch, 0, _FIRST_ID
    if progress.schedule != schedule.digest:
        progress.schedule, progress.judged_id = schedule.digest, _FIRST_ID


def _add_news(progress: ScrubProgress, schedule: Schedule) -> tuple[int, bool]:
    """One page of the feed; returns how many rows it gave, and whether its end was reached."""
    place = {"txid": progress.known_txid, "id": progress.known_id, "limit": PAGE}
    (horizon,) = _fetch(f"SELECT {HORIZON_SQL}", {})[0]
    page = _fetch(_NEWS_SQL, place | {"horizon": horizon})
    stored = [row for row in page if row[4] is not None]
    added = _insert(stored, schedule) if stored else 0
    is_full = len(page) == PAGE
    last = (page[-1][0], page[-1][1]) if is_full else (max(horizon - 1, progress.known_txid), _LAST_ID)
    progress.known_txid, progress.known_id = last
    return added, not is_full


def _insert(stored: Sequence[tuple[Any, ...]], schedule: Schedule) -> int:
    judged = [schedule.rule_for(row[2]) for row in stored]
    times = [
        rules.next_reading(row[1], verified_at=row[4], period_seconds=rule.period_seconds)
        for row, rule in zip(stored, judged, strict=True)
    ]
    return _execute(
        _INSERT_SQL,
        {
            "ids": [row[1] for row in stored],
            "lengths": [row[3] for row in stored],
            "names": [rule.namespace for rule in judged],
            "times": times,
        },
    )


def _judge_again(progress: ScrubProgress, schedule: Schedule) -> int:
    """One page of the rows that follow an older schedule."""
    if progress.judged_id is None:
        return 0
    rows = _fetch(_JUDGED_SQL, {"after": progress.judged_id, "limit": PAGE})
    values: dict[str, list[Any]] = {"ids": [], "names": [], "times": []}
    for artifact_id, uri, verified_at in rows:
        rule = schedule.rule_for(uri)
        values["ids"].append(artifact_id)
        values["names"].append(rule.namespace)
        values["times"].append(
            rules.next_reading(artifact_id, verified_at=verified_at, period_seconds=rule.period_seconds)
        )
    progress.judged_id = rows[-1][0] if len(rows) == PAGE else None
    return _execute(_JUDGE_SQL, values) if rows else 0


_NEWS_SQL = """
    SELECT p.txid, p.id, p.uri, p.content_length, l.stored_at
    FROM (
        SELECT a.txid, a.id, a.uri, a.content_length FROM artifact a
        WHERE (a.txid, a.id) > (%(txid)s, %(id)s) AND a.txid < %(horizon)s ORDER BY a.txid, a.id LIMIT %(limit)s
    ) p LEFT JOIN storage_location l ON l.artifact_id = p.id ORDER BY p.txid, p.id
"""
# Bytes that are known from an earlier life keep the time at which they were known good; a repaired copy is read back at once.
_INSERT_SQL = """
    INSERT INTO copy_verification (artifact_id, storage_id, storage_bucket, content_length, namespace, verified_at, next_at,
        result, failures)
    SELECT l.artifact_id, l.storage_id, l.storage_bucket, n.content_length, n.namespace, l.stored_at,
        CASE WHEN n.next_at IS NOT NULL AND EXISTS (
            SELECT FROM damaged_copy d WHERE d.artifact_id = n.id AND d.state IN ('damaged', 'repaired')
        ) THEN inventory_now() ELSE n.next_at END, 'written', 0
    FROM unnest(%(ids)s::uuid[], %(lengths)s::bigint[], %(names)s::text[], %(times)s::timestamptz[])
        AS n(id, content_length, namespace, next_at) JOIN storage_location l ON l.artifact_id = n.id
    ON CONFLICT (storage_bucket, storage_id) DO UPDATE SET artifact_id = EXCLUDED.artifact_id,
        namespace = EXCLUDED.namespace,
        next_at = CASE WHEN EXCLUDED.next_at IS NOT NULL THEN least(EXCLUDED.next_at, copy_verification.next_at) END
        WHERE copy_verification.artifact_id IS DISTINCT FROM EXCLUDED.artifact_id
"""
_REMEMBER_SQL = """
    INSERT INTO copy_verification (storage_id, storage_bucket, content_length, namespace, verified_at, result, failures)
    VALUES (%(storage_id)s, %(storage_bucket)s, %(length)s, '', %(verified_at)s, 'written', 0) ON CONFLICT DO NOTHING
"""
_JUDGED_SQL = """
    SELECT v.artifact_id, a.uri, v.verified_at FROM copy_verification v JOIN artifact a ON a.id = v.artifact_id
    WHERE v.artifact_id > %(after)s ORDER BY v.artifact_id LIMIT %(limit)s
"""
_JUDGE_SQL = """
    UPDATE copy_verification v SET namespace = n.namespace, next_at = n.next_at
    FROM unnest(%(ids)s::uuid[], %(names)s::text[], %(times)s::timestamptz[]) AS n(id, namespace, next_at)
    WHERE v.artifact_id = n.id AND (v.namespace, v.next_at) IS DISTINCT FROM (n.namespace, n.next_at)
"""
_REQUEST_SQL = """
    UPDATE copy_verification v SET next_at = least(v.next_at, inventory_now())
    FROM artifact a WHERE a.id = v.artifact_id AND a.uri = ANY(%(uris)s) AND v.next_at IS NOT NULL
"""
_REPAIRED_SQL = """
    UPDATE damaged_copy d SET state = 'repaired', state_at = inventory_now(), unrepairable_since = NULL
    FROM storage_location l WHERE d.state = 'damaged' AND l.artifact_id = d.artifact_id RETURNING d.artifact_id
"""
_READ_BACK_SQL = """
    UPDATE copy_verification SET next_at = inventory_now()
    WHERE artifact_id = ANY(%(ids)s) AND next_at IS NOT NULL AND result <> 'read'
"""
_GONE_SQL = """
    UPDATE damaged_copy d SET state = 'gone', state_at = inventory_now(), unrepairable_since = NULL
    WHERE d.state = 'damaged' AND NOT EXISTS (SELECT FROM artifact a WHERE a.id = d.artifact_id)
"""
_FORGET_SQL = """
    DELETE FROM copy_verification v WHERE v.artifact_id IS NULL AND NOT EXISTS (
        SELECT FROM retired_artifact r WHERE r.state IN ('retained', 'removing')
            AND r.storage_bucket = v.storage_bucket AND r.storage_id = v.storage_id
    ) AND NOT EXISTS (
        SELECT FROM storage_location l WHERE l.storage_bucket = v.storage_bucket AND l.storage_id = v.storage_id
    )
"""
_RELEASE_SQL = """
    WITH released AS (
        UPDATE damaged_copy SET state = 'released', state_at = inventory_now()
        WHERE state IN ('repaired', 'gone') AND state_at < inventory_now() - make_interval(secs => %(seconds)s)
        RETURNING id, storage_id, storage_bucket
    )
    INSERT INTO obsolete_storage_location (id, storage_id, storage_bucket, last_modified, meta_checksum)
    SELECT r.id, r.storage_id, r.storage_bucket, inventory_now(), event_meta_checksum(r.id, r.storage_bucket || r.storage_id)
    FROM released r
    WHERE NOT EXISTS (
        SELECT FROM storage_location l WHERE l.storage_bucket = r.storage_bucket AND l.storage_id = r.storage_id
    ) AND NOT EXISTS (
        SELECT FROM retired_artifact k WHERE k.state IN ('retained', 'removing')
            AND k.storage_bucket = r.storage_bucket AND k.storage_id = r.storage_id
    ) ON CONFLICT DO NOTHING
"""


def _fetch(sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def _execute(sql: str, values: dict[str, Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)
