"""Celery door: a report-only run that is always on its way, a few buckets per tick; and removals that an operator decided."""

from __future__ import annotations

import logging
from datetime import timedelta

from celery import shared_task
from django.conf import settings

from datamodel.errors import DatabaseUnavailableError, StorageError
from datamodel.restoration import is_restoring
from datamodel.rows import database_now
from site_service.file_validate import actors, queries, runs
from site_service.file_validate.rules import Policy
from site_service.file_validate.surveyors import surveyor_of
from site_service.storage.registry import get_store

logger = logging.getLogger("inventory.validate")

# Of a tick of 30 s: users come first.
_SECONDS = 5.0
_POLICY = Policy.INVENTORY_IS_ALWAYS_RIGHT


@shared_task(name="site_service.file_validate.tasks.advance_validation", soft_time_limit=25)
def advance_validation() -> None:
    """Goes on with the run over all buckets, begins one when the last is old enough. Never applies anything. Repeatable."""
    if is_restoring():
        return
    actors.ring(queries.removals_to_finish())
    if not _is_due():
        return
    run = runs.open_run(policy=_POLICY, started_by="beat")
    try:
        progress = runs.advance(run_id=run.id, surveyor=surveyor_of(get_store()), seconds=_SECONDS)
    except (StorageError, DatabaseUnavailableError) as error:
        facts = {"run": run.id, "result": "failed", "reason": error.code, "detail": error.detail}
        logger.warning("END event=validate", extra={"facts": facts})
        return
    if progress is not None and progress.is_complete:
        runs.prune()


def _is_due() -> bool:
    if settings.INVENTORY_VALIDATE_SECONDS == 0:
        return False
    last = queries.last_complete(_POLICY)
    return last is None or last.started_at + timedelta(seconds=settings.INVENTORY_VALIDATE_SECONDS) < database_now()
