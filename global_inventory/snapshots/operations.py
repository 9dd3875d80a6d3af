"""What sites say of our snapshots. Each operation is one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from datamodel.errors import StateConflictError
from datamodel.models import RemoteInventory
from datamodel.positions import Position
from datamodel.rows import database_now
from datamodel.snapshots.models import Snapshot, SnapshotAcknowledgement
from datamodel.snapshots.operations import tell_until_now
from datamodel.snapshots.rules import State
from global_inventory.snapshots import queries


@dataclass(frozen=True, slots=True)
class Page:
    """Some of our snapshots; there are no others of a moment before `until`, whatever is on later pages."""

    until: datetime
    pins: Sequence[Snapshot]


def tell_pins(*, after: uuid.UUID | None) -> Page:
    """A page for a site; commits the promise that no snapshot of an earlier moment will come."""
    with transaction.atomic():
        until = tell_until_now()
        return Page(until, queries.pins_page(after=after))


def record_acknowledgements(*, position: Position, held: Sequence[uuid.UUID], dropped: Sequence[uuid.UUID]) -> None:
    """A site keeps what these snapshots name, and has let go what those named that are released.

    The first position of an epoch stands: what happened before the moment lies below it, and it is passed first. A released
    snapshot that every enabled site has dropped is forgotten. Raises `StateConflictError` for a site that is none of ours.
    """
    with transaction.atomic():
        site = RemoteInventory.objects.filter(
            inventory_id=position.inventory_id, role=RemoteInventory.Role.SITE, enabled=True
        ).first()
        if site is None:
            raise StateConflictError(f"no enabled site with the inventory id {position.inventory_id} is harvested here")
        for snapshot in Snapshot.objects.filter(source="", state=State.PINNING, id__in=held):
            _hold(snapshot, site, position)
        for snapshot in Snapshot.objects.filter(source="", state=State.RELEASED, id__in=dropped):
            _drop(snapshot, site)
        forget_dropped()


def forget_dropped() -> int:
    """Inside a transaction: released snapshots that no enabled site keeps anything for any more go; how many rows."""
    sites = RemoteInventory.objects.filter(enabled=True, role=RemoteInventory.Role.SITE)
    gone = [
        snapshot.id
        for snapshot in Snapshot.objects.filter(source="", state=State.RELEASED).defer("tree")
        if not sites.exclude(
            id__in=snapshot.acknowledgements.filter(dropped_at__isnull=False).values("remote")
        ).exists()
    ]
    deleted, _ = Snapshot.objects.filter(id__in=gone, state=State.RELEASED).delete()
    return deleted


def _hold(snapshot: Snapshot, site: RemoteInventory, position: Position) -> None:
    facts = {"position": str(position), "acknowledged_at": database_now()}
    told, is_new = SnapshotAcknowledgement.objects.get_or_create(snapshot=snapshot, remote=site, defaults=facts)
    if not is_new and (not told.position or Position.parse(told.position).epoch != position.epoch):
        SnapshotAcknowledgement.objects.filter(id=told.id).update(**facts)


def _drop(snapshot: Snapshot, site: RemoteInventory) -> None:
    now = database_now()
    SnapshotAcknowledgement.objects.update_or_create(
        snapshot=snapshot,
        remote=site,
        defaults={"dropped_at": now},
        create_defaults={"dropped_at": now, "acknowledged_at": now},
    )
