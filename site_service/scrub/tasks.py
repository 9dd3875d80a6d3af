"""Celery door: which copies are due to be read, and what became of damaged ones."""

from __future__ import annotations

import logging
import uuid

from celery import shared_task
from django.conf import settings

from datamodel.logs import unit_of_work
from datamodel.restoration import is_restoring
from site_service.scrub import actors, queries, scan

logger = logging.getLogger("inventory.scrub")


@shared_task(name="site_service.scrub.tasks.enqueue_readings", soft_time_limit=50)
def enqueue_readings() -> None:
    """Brings the record up to date and sends the next run of readings. Repeatable.

    A tick that finds nothing leaves no line in the log.
    """
    noted = scan.follow(queries.configured_schedule())
    settled = scan.settle()
    sent = actors.ring()
    if noted or settled or sent:
        facts = {"noted": noted, "settled": settled, "sent": sent, "result": "ok"}
        logger.info("END event=enqueue_readings", extra={"facts": facts})


@shared_task(name="site_service.scrub.tasks.tidy", soft_time_limit=300)
def tidy() -> None:
    """Gives up damaged bytes after the retention time; damaged bytes that nothing could repair are read once more."""
    if is_restoring():
        return
    with unit_of_work(logger, "scrub_tidy") as work:
        forgotten, released = scan.tidy(retention_seconds=settings.INVENTORY_RETENTION_SECONDS)
        waiting: list[uuid.UUID] = queries.waiting_damaged()
        for damaged_id in waiting:
            actors.read_damaged.send([str(damaged_id)])
        work.note(forgotten=forgotten, released=released, rechecked=len(waiting))
