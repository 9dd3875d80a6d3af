"""What is due about sites: a probe of each, a new signing key."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from celery import shared_task
from django.conf import settings

from datamodel.logs import unit_of_work
from global_inventory.sites import operations, queries

logger = logging.getLogger(__name__)


@shared_task(name="global_inventory.sites.tasks.probe_sites")
def probe_sites() -> None:
    """Probe every enabled site; bounded in time whatever they do."""
    with unit_of_work(logger, "probe-sites") as work:
        outcomes = operations.probe_sites(
            targets=queries.probe_targets(), seconds=settings.INVENTORY_PROBE_TIMEOUT_SECONDS
        )
        work.note(sites=len(outcomes), readable=sum(probed.read_ok for probed in outcomes.values()))


@shared_task(name="global_inventory.sites.tasks.rotate_keys")
def rotate_keys() -> None:
    """Publish a new signing key once the newest is older than INVENTORY_KEY_PERIOD_SECONDS."""
    with unit_of_work(logger, "rotate-keys") as work:
        key_id = operations.rotate_keys(
            now=datetime.now(UTC), period=settings.INVENTORY_KEY_PERIOD, overlap=settings.INVENTORY_KEY_OVERLAP
        )
        work.note(new_key=key_id)
