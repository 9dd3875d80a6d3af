"""Whose bytes are due for removal, and whose facts may lag behind their row."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Q

from datamodel.models import HarvestConflict, ObsoleteStorageLocation, RetiredArtifact, StorageLocation
from datamodel.rows import database_now

BATCH = 1000
# A removal that was begun and not finished for so long has lost its worker.
STUCK = timedelta(minutes=10)
_CONFLICTS_LOOKED_AT = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Horizons:
    """Retired artifacts that died, and bytes that became obsolete, before these times may go.

    Neither before the longest GET is over that may still be reading them.
    """

    died_before: datetime
    obsolete_before: datetime


def horizons() -> Horizons:
    """By the inventory's clock."""
    now = database_now()
    transfer = timedelta(seconds=settings.INVENTORY_TRANSFER_SECONDS)
    retention = timedelta(seconds=settings.INVENTORY_RETENTION_SECONDS)
    return Horizons(died_before=now - max(retention, transfer), obsolete_before=now - transfer)


def due_retired() -> list[uuid.UUID]:
    """Retired artifacts whose bytes are due, the longest dead first; also those whose removal was begun and got stuck."""
    state = RetiredArtifact.State
    due = Q(state=state.RETAINED, died_at__lt=horizons().died_before)
    stuck = Q(state=state.REMOVING, state_at__lt=database_now() - STUCK)
    rows = RetiredArtifact.objects.filter(due | stuck).order_by("died_at")
    return list(rows.values_list("id", flat=True)[:BATCH])


def due_obsolete() -> list[uuid.UUID]:
    """Obsolete storage locations that are due, the oldest first."""
    rows = ObsoleteStorageLocation.objects.filter(last_modified__lt=horizons().obsolete_before).order_by(
        "last_modified"
    )
    return list(rows.values_list("id", flat=True)[:BATCH])


def reattached() -> list[uuid.UUID]:
    """Stored artifacts that lately won a collision of equal content: their bytes may still say the loser's id."""
    stored = StorageLocation.objects.filter(artifact_id=OuterRef("winner_id"))
    lately = HarvestConflict.objects.filter(same_content=True, decided_at__gt=database_now() - _CONFLICTS_LOOKED_AT)
    return list(lately.filter(Exists(stored)).values_list("winner_id", flat=True).distinct()[:BATCH])
