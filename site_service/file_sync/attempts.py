"""The table as a queue: claim, take up, renew, release, fail, finish. Every change of a row is conditional on its lease.

Brokers carry lease ids only. Whoever holds a lease may work on its rows; who loses it finds nothing to change any more.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from datamodel.queries import ARTIFACT_COLUMNS, KnownArtifact, artifact_from
from datamodel.restoration import is_restoring
from datamodel.rules import Located
from site_service.file_sync.models import SyncAttempt
from site_service.file_sync.rules import Due, plan_batches, share

LEASE_SECONDS = settings.INVENTORY_SYNC_LEASE_SECONDS
# A batch costs both ends some work whatever is in it; but few files are better shared among many threads.
LEAST_BATCH_FILES = 50
MOST_BATCH_FILES = 200
BATCH_BYTES = 64 * 1024 * 1024
_NOW = "(SELECT inventory_now())"
_LEASE = f"{_NOW} + make_interval(secs => {LEASE_SECONDS})"


@dataclass(frozen=True, slots=True)
class Taken:
    """A row that this unit of work has; `known` is None when the artifact is gone; `attempts` counts this one."""

    artifact_id: uuid.UUID
    uri: str
    attempts: int
    is_repair: bool
    known: KnownArtifact | None


def claim(*, batches: int) -> list[uuid.UUID]:
    """Lease the head of the queue, in up to `batches` batches, and return their lease ids.

    At most INVENTORY_SYNC_THREADS batches are leased at any time. Commits the leases; they expire (INVENTORY_SYNC_LEASE_SECONDS) unless
    somebody takes them up. A repeat leases what comes next.
    """
    with transaction.atomic():
        free = min(batches, settings.INVENTORY_SYNC_THREADS - _live_leases())
        # What seems to be missing may be in the store, and only its row lost.
        if free <= 0 or is_restoring():
            return []
        due = [Due(*row) for row in _fetch(_DUE_SQL, {"limit": free * MOST_BATCH_FILES})]
        files = share(len(due), among=free, least=LEAST_BATCH_FILES, most=MOST_BATCH_FILES)
        plan = list(islice(plan_batches(due, max_files=files, max_bytes=BATCH_BYTES), free))
        leases = [uuid.uuid4() for _ in plan]
        pairs = [(row.artifact_id, lease) for lease, batch in zip(leases, plan, strict=True) for row in batch]
        _execute(_CLAIM_SQL, {"ids": [pair[0] for pair in pairs], "leases": [pair[1] for pair in pairs]})
        return leases


def take_up(*, lease: uuid.UUID, holder: uuid.UUID) -> list[Taken]:
    """Turn a claimed lease into the worker's own and read what it is about; in the order of the queue.

    Empty when the lease expired and was claimed again, or was already taken up: a message that came twice does nothing.
    """
    rows = _fetch(_TAKE_SQL, {"lease": lease, "holder": holder})
    return [Taken(row[0], row[1], row[2], row[3], _known(row[4:])) for row in rows]


def renew(*, holder: uuid.UUID) -> bool:
    """Put off the end of the lease; False when nothing is left of it."""
    return (
        _execute(f"UPDATE sync_attempt SET lease_until = {_LEASE} WHERE lease_holder = %(holder)s", {"holder": holder})
        > 0
    )


def finish(artifact_ids: Sequence[uuid.UUID]) -> None:
    """These need no attempt any more: stored, gone or not wanted."""
    _execute("DELETE FROM sync_attempt WHERE artifact_id = ANY(%(ids)s)", {"ids": list(artifact_ids)})


def fail(*, holder: uuid.UUID, artifact_id: uuid.UUID, reason: str, detail: str, seconds: float) -> None:
    """An attempt failed; the next one is due after `seconds`."""
    values = {"holder": holder, "id": artifact_id, "reason": reason, "detail": detail, "seconds": seconds}
    _execute(_FAIL_SQL, values)


def postpone(*, holder: uuid.UUID, reason: str, detail: str, seconds: float) -> None:
    """The rest of the batch could not even begin, for a reason that is not its own: not counted as an attempt."""
    _execute(_POSTPONE_SQL, {"holder": holder, "reason": reason, "detail": detail, "seconds": seconds})


def release(*, holder: uuid.UUID) -> None:
    """Give back what was not begun, due at once: this process ends. Changes nothing when nothing is left."""
    _execute(_RELEASE_SQL, {"holder": holder})


def unclaim(*, lease: uuid.UUID) -> None:
    """A claimed lease that nobody could be told of is given back; its rows are due at once."""
    _execute(_UNCLAIM_SQL, {"lease": lease})


def count(reason: str, *, files: int, size: int) -> None:
    """Add to the counters by reason word; last in a transaction, for the row is shared by all workers."""
    _execute(_COUNT_SQL, {"reason": reason, "files": files, "bytes": size})


def try_now(artifact_ids: Sequence[uuid.UUID] | None = None) -> int:
    """Make these rows (or all) due at once; returns how many were waiting."""
    chosen = (
        SyncAttempt.objects.all() if artifact_ids is None else SyncAttempt.objects.filter(artifact_id__in=artifact_ids)
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SELECT {_NOW}")
        (now,) = cursor.fetchone()
        return chosen.filter(next_try_at__gt=now).update(next_try_at=now)


_DUE_SQL = f"""
    SELECT artifact_id, content_length FROM sync_attempt
    WHERE next_try_at <= {_NOW} AND (lease_until IS NULL OR lease_until <= {_NOW})
    ORDER BY priority DESC, next_try_at, artifact_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
_CLAIM_SQL = f"""
    UPDATE sync_attempt s SET lease_holder = n.lease, lease_until = {_LEASE}
    FROM unnest(%(ids)s::uuid[], %(leases)s::uuid[]) AS n(id, lease) WHERE s.artifact_id = n.id
"""
_TAKE_SQL = f"""
    WITH taken AS (
        UPDATE sync_attempt SET lease_holder = %(holder)s, lease_until = {_LEASE}, attempts = attempts + 1,
            last_tried_at = {_NOW} WHERE lease_holder = %(lease)s
        RETURNING artifact_id, uri, attempts, is_repair, priority, next_try_at
    )
    SELECT t.artifact_id, t.uri, t.attempts, t.is_repair, {ARTIFACT_COLUMNS}, l.storage_id, l.storage_bucket
    FROM taken t LEFT JOIN artifact a ON a.id = t.artifact_id LEFT JOIN storage_location l ON l.artifact_id = a.id
    ORDER BY t.priority DESC, t.next_try_at, t.artifact_id
"""
_FAIL_SQL = f"""
    UPDATE sync_attempt SET lease_holder = NULL, lease_until = NULL, last_reason = %(reason)s, last_error = %(detail)s,
        next_try_at = {_NOW} + make_interval(secs => %(seconds)s)
    WHERE artifact_id = %(id)s AND lease_holder = %(holder)s
"""
_POSTPONE_SQL = f"""
    UPDATE sync_attempt SET lease_holder = NULL, lease_until = NULL, last_reason = %(reason)s, last_error = %(detail)s,
        attempts = greatest(attempts - 1, 0), next_try_at = {_NOW} + make_interval(secs => %(seconds)s)
    WHERE lease_holder = %(holder)s
"""
_RELEASE_SQL = """
    UPDATE sync_attempt SET lease_holder = NULL, lease_until = NULL, attempts = greatest(attempts - 1, 0)
    WHERE lease_holder = %(holder)s
"""
_UNCLAIM_SQL = """
    UPDATE sync_attempt SET lease_holder = NULL, lease_until = NULL WHERE lease_holder = %(lease)s
"""
_COUNT_SQL = """
    INSERT INTO sync_outcome (reason, files, bytes) VALUES (%(reason)s, %(files)s, %(bytes)s)
    ON CONFLICT (reason) DO UPDATE SET files = sync_outcome.files + EXCLUDED.files, bytes = sync_outcome.bytes + EXCLUDED.bytes
"""
_LIVE_SQL = (
    f"SELECT count(DISTINCT lease_holder) FROM sync_attempt WHERE lease_holder IS NOT NULL AND lease_until > {_NOW}"
)


def _live_leases() -> int:
    return int(_fetch(_LIVE_SQL, {})[0][0])


def _known(columns: Sequence[Any]) -> KnownArtifact | None:
    if columns[0] is None:
        return None
    location = None if columns[-2] is None else Located(columns[-2], columns[-1])
    return KnownArtifact(artifact_from(columns), location)


def _fetch(sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def _execute(sql: str, values: dict[str, Any]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount)
