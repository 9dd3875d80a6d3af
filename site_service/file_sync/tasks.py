"""Celery door: what is missing and due. Woken by beat, and by harvest when rows have come."""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings

from site_service.file_sync import actors, scan
from site_service.storage.registry import get_store

logger = logging.getLogger("inventory.sync")


@shared_task(name="site_service.file_sync.tasks.enqueue_missing", soft_time_limit=25)
def enqueue_missing() -> None:
    """Brings the queue up to date, and rings for as many batches as may be in flight. Repeatable.

    A tick that finds nothing, as most do, leaves no line in the log.
    """
    gained = scan.note_missing()
    sent = actors.ring(batches=settings.INVENTORY_SYNC_THREADS, store=get_store())
    if gained or sent:
        facts = {"gained": gained, "batches": sent, "result": "ok"}
        logger.info("END event=enqueue_missing", extra={"facts": facts})
