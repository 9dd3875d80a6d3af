"""Positions in an inventory's feed: epoch, stable horizon, cursors, and the `x-inventory-position` of a write.

A row's `txid` is the transaction that last changed it; rows below the horizon (the oldest transaction still running in the
cluster) can no longer be joined by earlier ones, so a cursor that stays below it never misses a row (house, decision 5).
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from django.db import connection

from datamodel.errors import InvalidRequestError, NotConfiguredError

HORIZON_SQL = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
TXID_SQL = "pg_current_xact_id()::text::bigint"

_LAST_ID = uuid.UUID(int=2**128 - 1)
_MAX_TXID = 2**63 - 1
_UUID = r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_CURSOR = re.compile(rf"([0-9a-f]{{16}})\.([0-9]{{1,19}})\.{_UUID}\Z")
_POSITION = re.compile(rf"{_UUID}\.([0-9a-f]{{16}})\.([0-9]{{1,19}})\Z")
IDENTITY_COLUMNS = """
    i.inventory_id, i.epoch, i.system_identifier, i.timeline, s.system_identifier, c.timeline_id, i.events_gone_txid,
    i.events_gone_at
"""
IDENTITY_TABLES = "inventory_identity i, pg_control_system() s, pg_control_checkpoint() c"


@dataclass(frozen=True, slots=True)
class Cursor:
    """After the row (txid, row id) of one epoch; text form `epoch.txid.id`."""

    epoch: str
    txid: int
    row_id: uuid.UUID

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `InvalidRequestError`."""
        match = _CURSOR.match(text)
        if match is None or int(match[2]) > _MAX_TXID:
            raise InvalidRequestError(
                f"invalid cursor {text!r}: pass on the one from the last end line, or none to start"
            )
        return cls(match[1], int(match[2]), uuid.UUID(match[3]))

    @classmethod
    def before_all(cls, epoch: str) -> Self:
        return cls(epoch, 0, uuid.UUID(int=0))

    @classmethod
    def below(cls, epoch: str, horizon: int) -> Self:
        """After everything below `horizon`."""
        return cls(epoch, horizon - 1, _LAST_ID)

    def __str__(self) -> str:
        return f"{self.epoch}.{self.txid}.{self.row_id}"


POSITION_HEADER = "x-inventory-position"


@dataclass(frozen=True, slots=True)
class Position:
    """A committed write of one inventory: whoever has harvested past it has seen the write (`x-inventory-position`)."""

    inventory_id: uuid.UUID
    epoch: str
    txid: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `InvalidRequestError`."""
        match = _POSITION.match(text)
        if match is None or int(match[3]) > _MAX_TXID:
            raise InvalidRequestError(f"invalid x-inventory-position {text!r}: pass it on as the site gave it")
        return cls(uuid.UUID(match[1]), match[2], int(match[3]))

    def __str__(self) -> str:
        return f"{self.inventory_id}.{self.epoch}.{self.txid}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this inventory is; `epoch` is the text that cursors carry; `is_current` is false until restamped after a restore.

    Events up to transaction `gone_txid` may have expired, none that happened after `gone_at`.
    """

    inventory_id: uuid.UUID
    epoch: str
    is_current: bool
    gone_txid: int
    gone_at: datetime | None


def read_identity() -> Identity:
    """Asks the database. Raises `NotConfiguredError` before `manage.py provision` has run."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {IDENTITY_COLUMNS} FROM {IDENTITY_TABLES} WHERE i.id = 1")
        return identity_from(cursor.fetchone())


def identity_from(row: Sequence[Any] | None) -> Identity:
    """From IDENTITY_COLUMNS. Raises `NotConfiguredError` when there was no row."""
    if row is None:
        raise NotConfiguredError("this inventory has no identity yet: run manage.py provision")
    inventory_id, epoch, stamped_system, stamped_timeline, system, timeline, gone_txid, gone_at = row
    name = f"{system}.{timeline}.{epoch}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    is_current = (stamped_system, stamped_timeline) == (system, timeline)
    return Identity(inventory_id, digest, is_current, gone_txid, gone_at)


class _IdentityCache:
    """A write's position names the epoch; asking the database for it each time would cost a round trip per PUT.

    A stale answer lasts `seconds` and only makes a reader wait in vain for a position of the old epoch, never miss one.
    """

    seconds = 5.0

    def __init__(self) -> None:
        self._identity: Identity | None = None
        self._read_at = 0.0

    def get(self) -> Identity:
        if self._identity is None or time.monotonic() - self._read_at > self.seconds:
            self._identity = read_identity()
            self._read_at = time.monotonic()
        return self._identity

    def clear(self) -> None:
        self._identity = None


cached_identity = _IdentityCache()


def position_of(txid: int) -> Position:
    """The position of a write that this process has just committed as transaction `txid`."""
    identity = cached_identity.get()
    return Position(identity.inventory_id, identity.epoch, txid)
