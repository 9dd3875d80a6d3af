"""Celery door: what is left over of puts."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from celery import shared_task

from datamodel.logs import unit_of_work
from datamodel.restoration import is_restoring
from site_service.files import put_transactions
from site_service.storage.registry import get_store

logger = logging.getLogger(__name__)


@shared_task(name="site_service.files.tasks.sweep_transactions", soft_time_limit=240)
def sweep_transactions() -> None:
    """Drops stale put transactions and the temporary files of crashed writes."""
    if is_restoring():
        return
    with unit_of_work(logger, "sweep_transactions") as work:
        dropped, leftovers = put_transactions.sweep(store=get_store(), now=datetime.now(UTC))
        work.note(transactions=dropped, leftovers=leftovers)
