"""Celery's doors: which remote is compared now. Every task may be lost or repeated; a comparison begins anew each time."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from datamodel.errors import InventoryError
from harvest import queries
from harvest.reconcile import compare
from harvest.reconcile.models import ReconcileRun
from harvest.reconcile.rules import Mode
from harvest.tasks import Nudge, send_task

# A run that has not ended after so long has died.
_LONGEST = timedelta(hours=1)


@shared_task(name="harvest.reconcile.tasks.reconcile_all")
def reconcile_all() -> None:
    """Each enabled remote gets a task of its own, unless a comparison with it is under way."""
    since = timezone.now() - _LONGEST
    busy = set(
        ReconcileRun.objects.filter(finished_at__isnull=True, started_at__gt=since).values_list(
            "remote__name", flat=True
        )
    )
    for remote in queries.harvested_remotes():
        if remote.name not in busy:
            send_task("harvest.reconcile.tasks.reconcile_remote", remote.name)


@shared_task(name="harvest.reconcile.tasks.reconcile_remote", soft_time_limit=3500, time_limit=3600)
def reconcile_remote(name: str) -> None:
    """One comparison, as far as INVENTORY_RECONCILE allows. A failure is in its report and is nobody else's."""
    nudge = Nudge()
    try:
        compare.reconcile(name, mode=Mode(settings.INVENTORY_RECONCILE), on_change=nudge.ring)
    except InventoryError:
        # Recorded and logged where it happened; the next tick tries again.
        return
    finally:
        nudge.finish()
