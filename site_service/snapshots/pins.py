"""A site and the snapshots of its globals: learn of them, keep their bytes, say so, and let go what was released.

The order makes the promise: first the snapshots and the moment up to which the global has named all of them are committed
here, then nothing that ended later is removed unasked (`datamodel.snapshots.queries.FREE_SQL`), then the global is told.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from django.db import connection, transaction

from datamodel.errors import InvalidUriError, RemoteProtocolError
from datamodel.identity import FEED_TABLES
from datamodel.logs import unit_of_work
from datamodel.models import RemoteInventory
from datamodel.positions import Position, read_identity
from datamodel.rows import database_now
from datamodel.rules import truncate_to_millis
from datamodel.snapshots import queries
from datamodel.snapshots.models import PinSource, Snapshot
from datamodel.snapshots.rules import State
from datamodel.uris import Namespace
from harvest import client
from harvest.client import Remote

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 30
_ANSWER_BYTES = 4 * 1024 * 1024
_MOST_PAGES = 1000
_IDS_AT_ONCE = 500
# As far as a cursor of the change feed will go, once every transaction that is older is over.
_NEWEST_SQL = "SELECT max(newest) FROM ({}) AS tables".format(
    " UNION ALL ".join(f"SELECT coalesce(max(txid), 0) AS newest FROM {table}" for table in FEED_TABLES)
)


@dataclass(frozen=True, slots=True)
class Pin:
    """A snapshot of a global as it names it."""

    id: uuid.UUID
    name: str
    namespace: str
    moment: datetime
    state: State
    digest: str
    artifacts: int
    size: int
    kept_at: datetime | None

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Self:
        """Raises `ValueError`, `KeyError`, `TypeError`, `InvalidUriError`."""
        kept_at, state = item["keptAt"], State(item["state"])
        if state is State.KEPT and not (kept_at and item["digest"]):
            raise ValueError(f"{item['name']} is kept, but has no digest")
        return cls(
            uuid.UUID(item["id"]),
            str(item["name"])[:200],
            Namespace.parse(item["namespace"]).value,
            _moment(item["moment"]),
            state,
            str(item["digest"] or "")[:32],
            int(item["artifacts"] or 0),
            int(item["bytes"] or 0),
            _moment(kept_at) if kept_at is not None else None,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """Everything that a global said; `until`: it has no snapshot of an earlier moment beside these."""

    until: datetime
    pins: Sequence[Pin] = field(default_factory=tuple)
    released: Sequence[uuid.UUID] = field(default_factory=tuple)


def exchange_pins(*, remote: RemoteInventory) -> None:
    """One turn with one global. A failure leaves everything as it was: what it may have pinned is not removed here.

    Raises as `client.fetch_page` does. Repeatable.
    """
    with unit_of_work(logger, "exchange_pins", remote=remote.name) as work:
        door = Remote.of(remote)
        told = _ask(door)
        if not record_pins(remote=remote, told=told):
            work.reason = "newer_known"
            return
        held = [pin.id for pin in told.pins if pin.state is State.PINNING and queries.is_past(pin.moment)]
        work.note(pins=len(told.pins), acknowledged=len(held), dropped=len(told.released))
        _acknowledge(door, held, told.released)


def record_pins(*, remote: RemoteInventory, told: Told) -> bool:
    """Keep what a global names and let go what it has released, in one transaction with the moment it spoke of.

    What it leaves out without a word is kept, and marked as an orphan. False, with nothing changed, for an answer that is
    older than one that was recorded.
    """
    with transaction.atomic():
        known = PinSource.objects.select_for_update().filter(remote=remote, url=remote.url).first()
        if known is not None and known.heard_until > told.until:
            return False
        ids = [pin.id for pin in told.pins]
        if Snapshot.objects.filter(id__in=ids).exclude(source=remote.name).exists():
            raise RemoteProtocolError(f"{remote.name} names a snapshot by the id of somebody else's")
        own = Snapshot.objects.filter(source=remote.name)
        own.filter(id__in=told.released).delete()
        recorded = dict(own.filter(is_orphan=False).values_list("id", "state"))
        Snapshot.objects.bulk_create(
            [_row(remote, pin) for pin in told.pins if recorded.get(pin.id) != pin.state],
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["state", "digest", "artifacts", "size", "kept_at", "is_orphan"],
        )
        own.exclude(id__in=ids).update(is_orphan=True)
        PinSource.objects.update_or_create(
            remote=remote, defaults={"url": remote.url, "heard_until": told.until, "heard_at": database_now()}
        )
    return True


def _row(remote: RemoteInventory, pin: Pin) -> Snapshot:
    return Snapshot(
        id=pin.id,
        name=pin.name,
        source=remote.name,
        namespace=pin.namespace,
        moment=pin.moment,
        state=pin.state,
        digest=pin.digest,
        artifacts=pin.artifacts,
        size=pin.size,
        kept_at=pin.kept_at,
        created_at=pin.moment,
    )


def _ask(door: Remote) -> Told:
    """All pages; the moment of the first one counts, for what is taken meanwhile may be missed."""
    until: datetime | None = None
    pins: list[Pin] = []
    released: list[uuid.UUID] = []
    after = ""
    for _ in range(_MOST_PAGES):
        page = _page(door, after)
        try:
            until = until or _moment(page["until"])
            pins += [Pin.parse(item) for item in page["pins"] if item["state"] != State.RELEASED]
            released += [uuid.UUID(item["id"]) for item in page["pins"] if item["state"] == State.RELEASED]
            after = str(page["next"] or "")
        except (ValueError, KeyError, TypeError, InvalidUriError) as error:
            raise RemoteProtocolError(f"{door.name} named its snapshots in another form: {error!r}") from error
        if not after:
            return Told(until, pins, released)
    raise RemoteProtocolError(f"{door.name} names more snapshots than there can be")


def _page(door: Remote, after: str) -> Any:
    fields = [("after", after)] if after else []
    body = client.fetch_text(door, "/pins", fields, seconds=_ANSWER_SECONDS, most_bytes=_ANSWER_BYTES)
    try:
        return json.loads(body or b"")
    except ValueError:
        raise RemoteProtocolError(f"{door.name} did not answer in JSON") from None


def _acknowledge(door: Remote, held: Sequence[uuid.UUID], dropped: Sequence[uuid.UUID]) -> None:
    """Tell it which are kept, and below which position all lies that happened before; and which are let go."""
    identity = read_identity()
    for start in range(0, max(len(held), len(dropped)), _IDS_AT_ONCE):
        position = Position(identity.inventory_id, identity.epoch, _newest_change())
        fields = [
            ("position", str(position)),
            ("held", _words(held[start : start + _IDS_AT_ONCE])),
            ("dropped", _words(dropped[start : start + _IDS_AT_ONCE])),
        ]
        connection.close()
        client.fetch_text(door, "/pins", fields, seconds=_ANSWER_SECONDS, most_bytes=_ANSWER_BYTES, is_posted=True)


def _newest_change() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_NEWEST_SQL)
        (txid,) = cursor.fetchone()
    return int(txid)


def _words(ids: Iterable[uuid.UUID]) -> str:
    return ",".join(map(str, ids))


def _moment(text: object) -> datetime:
    """Never later than it says: the database would round."""
    when = datetime.fromisoformat(str(text))
    if when.tzinfo is None:
        raise ValueError(f"{text} names no time zone")
    return truncate_to_millis(when)
