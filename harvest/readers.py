"""How far each peer has read this inventory's feed: what it asks for next says that it has applied everything before.

A peer is a caller and an inventory: the one that it is, or for which it may speak. It blocks the expiry of events that it has not
passed, until it is retired or revoked.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from datamodel.models import FeedReader, RemoteInventory

NOBODY = uuid.UUID(int=0)
_WRITE_SECONDS = 10.0
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Reader:
    """A peer that blocks, and the last transaction that it has passed in our present epoch; 0 if none."""

    name: str
    txid: int


class _Recent:
    """What this process has recorded lately: a row is written every ten seconds, and at once when a peer has gone back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, uuid.UUID], tuple[float, str, int]] = {}

    def is_enough(self, key: tuple[str, uuid.UUID], epoch: str, txid: int) -> bool:
        now = time.monotonic()
        with self._lock:
            at, known_epoch, known_txid = self._seen.get(key, (float("-inf"), "", -1))
            if now - at < _WRITE_SECONDS and epoch == known_epoch and txid >= known_txid >= 0:
                return True
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[key] = (now, epoch, txid)
            return False

    def clear(self) -> None:
        with self._lock:
            self._seen.clear()


recent = _Recent()
_RECORD_SQL = """
    INSERT INTO feed_reader AS r (caller, inventory_id, epoch, txid, asked_at)
    VALUES (%(caller)s, %(inventory_id)s, %(epoch)s, %(txid)s, inventory_now())
    ON CONFLICT (caller, inventory_id) DO UPDATE SET epoch = excluded.epoch, txid = excluded.txid, asked_at = excluded.asked_at,
        retired_at = CASE WHEN excluded.epoch = %(present)s AND excluded.txid >= (SELECT events_gone_txid FROM inventory_identity)
            THEN NULL ELSE r.retired_at END
"""
_ACTIVE_SQL = """
    SELECT r.caller, r.inventory_id, coalesce((SELECT min(p.name) FROM remote_inventory p
            WHERE p.inventory_id = r.inventory_id), ''), CASE WHEN r.epoch = %s THEN r.txid ELSE 0 END
    FROM feed_reader r WHERE r.retired_at IS NULL
        AND NOT EXISTS (SELECT FROM api_token t WHERE t.name = r.caller AND (t.revoked_at < now() OR t.expires_at < now()))
    ORDER BY 1, 2
"""


# What others said of an inventory, or it by a token of before it was paired, counts no more.
_OTHERS_SQL = "DELETE FROM feed_reader WHERE inventory_id = %s AND caller <> %s"


def record_reader(
    *, caller: str, inventory_id: uuid.UUID, epoch: str, txid: int, present: str, is_itself: bool = False
) -> None:
    """A peer asks for what follows `txid` of an epoch; `is_itself`: it is known by its keys, so nobody else's word counts.

    Whoever was retired is known again once it has passed what is gone.
    """
    if recent.is_enough((caller, inventory_id), epoch, txid):
        return
    values: dict[str, Any] = {
        "caller": caller[:64],
        "inventory_id": inventory_id,
        "epoch": epoch[:16],
        "txid": txid,
        "present": present,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RECORD_SQL, values)
        if is_itself:
            cursor.execute(_OTHERS_SQL, [inventory_id, values["caller"]])


def retire_readers(*, readers: QuerySet[FeedReader]) -> int:
    """An operator's word that these will not come back, or will reconcile if they do: they no longer block; returns how many."""
    return readers.filter(retired_at__isnull=True).update(retired_at=Now())


def active_readers(epoch: str) -> list[Reader]:
    """Everybody who blocks; a remote that never asked, though it is enabled, has passed nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_ACTIVE_SQL, [epoch])
        rows = cursor.fetchall()
    known = {inventory_id for _, inventory_id, _, _ in rows} | set(
        FeedReader.objects.filter(retired_at__isnull=False).values_list("inventory_id", flat=True)
    )
    silent = RemoteInventory.objects.filter(enabled=True).exclude(inventory_id__in=known)
    found = [
        Reader(name or (caller if inventory_id == NOBODY else str(inventory_id)), txid)
        for caller, inventory_id, name, txid in rows
    ]
    return found + [Reader(name, 0) for name in silent.values_list("name", flat=True)]


def passed_by(inventory_id: uuid.UUID, epoch: str) -> int:
    """The last transaction of ours that this inventory has applied; 0 if that is not known."""
    found = FeedReader.objects.filter(inventory_id=inventory_id, epoch=epoch).values_list("txid", flat=True)
    return min(found, default=0)
