"""Celery door: what is missing and due. Woken by beat, and by harvest when rows have come."""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings

from datamodel.logs import unit_of_work
from site_service.file_sync import actors, scan
from site_service.storage.registry import get_store

logger = logging.getLogger("inventory.sync")


@shared_task(name="site_service.file_sync.tasks.enqueue_missing", soft_time_limit=25)
def enqueue_missing() -> None:
    """Brings the queue up to date, and rings for as many batches as may be in flight. Repeatable."""
    with unit_of_work(logger, "enqueue_missing") as work:
        gained = scan.note_missing()
        sent = actors.ring(batches=settings.INVENTORY_SYNC_THREADS, store=get_store())
        work.note(gained=gained, batches=sent)
