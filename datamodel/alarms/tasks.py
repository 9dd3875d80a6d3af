"""Celery's door: what is due is told. May be lost or repeated; the outbox is the truth."""

from __future__ import annotations

from celery import shared_task

from datamodel.alarms import delivery, operations


@shared_task(name="datamodel.alarms.tasks.deliver_alarms", soft_time_limit=120, time_limit=180)
def deliver_alarms() -> None:
    """Tells every channel what is due there; a failure is kept with the delivery and tried again."""
    delivery.deliver_due()
    operations.forget_cleared()
