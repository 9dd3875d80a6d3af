"""Whom a snapshot waits for, and what sites are told. Reads only."""

from __future__ import annotations

import uuid

from datamodel.models import RemoteInventory
from datamodel.positions import Position
from datamodel.snapshots.models import Snapshot, SnapshotAcknowledgement
from global_inventory.locate.queries import passage

PAGE_PINS = 1000


def awaited(snapshot: Snapshot) -> list[str]:
    """The enabled sites that have not said they keep what it names, or whose past up to then has not been harvested yet.

    Every site counts: one of which no copy is known here may hold bytes, or news, of before that moment.
    """
    said = {
        told.remote_id: told.position
        for told in SnapshotAcknowledgement.objects.filter(snapshot=snapshot, dropped_at__isnull=True)
    }
    sites = RemoteInventory.objects.filter(enabled=True, role=RemoteInventory.Role.SITE).order_by("name")
    return [site.name for site in sites if site.id not in said or not passage(Position.parse(said[site.id])).is_passed]


def pins_page(*, after: uuid.UUID | None) -> list[Snapshot]:
    """Our snapshots, released ones included, by id."""
    rows = Snapshot.objects.filter(source="").defer("tree").order_by("id")
    if after is not None:
        rows = rows.filter(id__gt=after)
    return list(rows[:PAGE_PINS])
