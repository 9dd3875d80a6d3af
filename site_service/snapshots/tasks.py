"""Celery's door: every global is asked for its snapshots."""

from __future__ import annotations

from celery import shared_task
from django.db import connection

from datamodel.errors import InventoryError
from harvest import queries
from site_service.snapshots import pins


@shared_task(name="site_service.snapshots.tasks.exchange_pins", soft_time_limit=300)
def exchange_pins() -> None:
    """One turn with each; one that fails is logged where it happened, and delays nobody else."""
    for remote in queries.harvested_remotes():
        try:
            pins.exchange_pins(remote=remote)
        except InventoryError:
            continue
        finally:
            connection.close()
