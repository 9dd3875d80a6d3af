"""Events end: those that are old enough and that every known peer has passed are forgotten, oldest first.

Before the first of them goes, the mark says that everything up to it is gone: whoever has not passed it is told so (410) and
must reconcile. A sweep is many small transactions, and what is left is the next one's.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

from datamodel.logs import unit_of_work
from datamodel.positions import HORIZON_SQL, cached_identity, read_identity
from datamodel.rows import database_now
from harvest import readers

logger = logging.getLogger(__name__)

EVENT_TABLES = ("deleted_storage_location_event", "storage_location_event", "deleted_artifact_event")
_LOOKED_AT = 20_000
_DELETED_AT_ONCE = 2_000
_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Expired:
    """How many events went, and who kept older ones from going."""

    events: int
    blocked_by: tuple[str, ...]


def expire_events(*, seconds: float = _SECONDS) -> Expired:
    """One sweep of about so many seconds. A repeat goes on; nothing happens with INVENTORY_EVENT_RETENTION_DAYS=0."""
    if settings.INVENTORY_EVENT_RETENTION_DAYS == 0:
        return Expired(0, ())
    deadline = time.monotonic() + seconds
    with unit_of_work(logger, "expire_events") as work:
        cutoff = database_now() - timedelta(days=settings.INVENTORY_EVENT_RETENTION_DAYS)
        blocked_by = _raise_mark(cutoff)
        count = 0
        while time.monotonic() < deadline and (gone := _delete_some()):
            count += gone
        work.note(events=count, blocked_by=",".join(blocked_by))
    return Expired(count, blocked_by)


def _raise_mark(cutoff: datetime) -> tuple[str, ...]:
    """Decide up to where all events are old and passed by everybody. Commits the mark alone; returns who was in the way."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT events_gone_txid FROM inventory_identity WHERE id = 1 FOR UPDATE")
        (mark,) = cursor.fetchone()
        cursor.execute(f"SELECT {HORIZON_SQL} - 1")
        (below,) = cursor.fetchone()
        found = [_oldest(table, mark, cutoff) for table in EVENT_TABLES]
        newest = max((last for last, _ in found), default=0)
        old = min([below, newest, *(bound for _, bound in found if bound is not None)])
        if old <= mark:
            return ()
        active = readers.active_readers(read_identity().epoch)
        blocked_by = tuple(sorted(reader.name for reader in active if reader.txid < old))
        allowed = min([old, *(reader.txid for reader in active)])
        if allowed > mark:
            cursor.execute(
                "UPDATE inventory_identity SET events_gone_txid = %s, events_gone_at = greatest(events_gone_at, %s) WHERE id = 1",
                [allowed, cutoff],
            )
    cached_identity.clear()
    return blocked_by


def _oldest(table: str, mark: int, cutoff: datetime) -> tuple[int, int | None]:
    """Of the first events beyond the mark: the last transaction of old ones, and a bound above which some may be young."""
    with connection.cursor() as cursor:
        cursor.execute(_OLDEST_SQL.format(table=table), {"mark": mark, "cutoff": cutoff, "limit": _LOOKED_AT})
        count, young, last = cursor.fetchone()
        if young is not None:
            return young - 1, young - 1
        if count < _LOOKED_AT:
            return last or 0, None
        cursor.execute(f"SELECT EXISTS (SELECT FROM {table} WHERE txid = %s AND last_modified > %s)", [last, cutoff])
        (is_mixed,) = cursor.fetchone()
    return (last - 1, last - 1) if is_mixed else (last, last)


def _delete_some() -> int:
    count = 0
    for table in EVENT_TABLES:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_DELETE_SQL.format(table=table), [_DELETED_AT_ONCE])
            if cursor.rowcount:
                count += cursor.rowcount
                cursor.execute("UPDATE inventory_identity SET events_expired = events_expired + %s", [cursor.rowcount])
    return count


_OLDEST_SQL = """
    SELECT count(*), min(txid) FILTER (WHERE last_modified > %(cutoff)s), max(txid)
    FROM (SELECT txid, last_modified FROM {table} WHERE txid > %(mark)s ORDER BY txid, id LIMIT %(limit)s) t
"""
_DELETE_SQL = """
    DELETE FROM {table} WHERE id IN (SELECT t.id FROM {table} t
        WHERE t.txid <= (SELECT events_gone_txid FROM inventory_identity WHERE id = 1) ORDER BY t.txid, t.id LIMIT %s)
"""
