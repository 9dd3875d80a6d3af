"""What is due about sites: a probe of each."""

from __future__ import annotations

import logging

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
