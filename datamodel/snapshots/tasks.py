"""Celery's door: schedules, snapshots that became final, and what may be forgotten."""

from __future__ import annotations

import logging

from celery import shared_task

from datamodel.logs import unit_of_work
from datamodel.snapshots import operations
from datamodel.snapshots.models import Snapshot
from datamodel.snapshots.rules import State

logger = logging.getLogger(__name__)


@shared_task(name="datamodel.snapshots.tasks.advance_snapshots")
def advance_snapshots() -> None:
    """Take what is due, settle what is settled, thin. Repeatable, also twice at once."""
    with unit_of_work(logger, "advance_snapshots") as work:
        taken = operations.take_due_snapshots()
        pinning = Snapshot.objects.filter(state=State.PINNING, source="").order_by("moment")
        kept = sum(operations.settle_snapshot(snapshot=snapshot) for snapshot in pinning)
        work.note(taken=len(taken), kept=kept, thinned=operations.thin_snapshots())


@shared_task(name="datamodel.snapshots.tasks.count_held")
def count_held() -> None:
    """What snapshots hold back here is too much to count at each scrape."""
    with unit_of_work(logger, "count_held") as work:
        artifacts, size = operations.count_held()
        work.note(artifacts=artifacts, bytes=size)


@shared_task(name="datamodel.snapshots.tasks.forget_history")
def forget_history() -> None:
    """The past that is older than it is kept goes, some at a time."""
    with unit_of_work(logger, "forget_history") as work:
        work.note(rows=operations.prune_history())
