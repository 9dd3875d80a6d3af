"""Dramatiq door: read a run of copies back, then ring for the next one.

A message is a lease with the ids that it is about. Brokers repeat nothing: what was not read is due, and chosen by the next
tick. Of all that waits in a worker these messages come last.
"""

from __future__ import annotations

import logging
import uuid

import dramatiq
from django.conf import settings
from dramatiq.threading import Interrupt
from redis.exceptions import RedisError

from datamodel.errors import RaceLostError
from datamodel.logs import unit_of_work
from site_service.scrub import leases, operations
from site_service.storage.registry import get_store

QUEUE = "scrub"
_LAST = 1000
# The largest file at the lowest bandwidth takes days; a reader that hangs loses its lease, not its time.
_TIME_LIMIT = 30 * 24 * 3600 * 1000

logger = logging.getLogger("inventory.scrub")


@dramatiq.actor(queue_name=QUEUE, priority=_LAST, max_retries=0, time_limit=_TIME_LIMIT, notify_shutdown=True)
def read_copies(lease: str, artifact_ids: list[str]) -> None:
    """Read these copies; while more is due, ring for another run. Repeatable: a lease is taken up once."""
    try:
        result = _carry(lease, artifact_ids)
    except (Interrupt, RaceLostError) as stop:
        # The operation has recorded what it read; to the broker the message is done.
        logger.warning("END event=scrub", extra={"facts": {"result": "stopped", "reason": type(stop).__name__}})
        return
    if result is not None and result.files and not result.is_ended_early:
        ring()


@dramatiq.actor(queue_name=QUEUE, priority=_LAST, max_retries=0, time_limit=_TIME_LIMIT)
def read_damaged(damaged_ids: list[str]) -> None:
    """Read damaged bytes again: they may be good by now. Repeatable."""
    for damaged_id in damaged_ids:
        operations.recheck(damaged_id=uuid.UUID(damaged_id), store=get_store())


def ring() -> int:
    """Choose what is read next and send it; returns how many copies. What cannot be sent is given back at once."""
    run = operations.begin_run(seconds=settings.INVENTORY_SCRUB_SECONDS)
    if run is None:
        return 0
    try:
        read_copies.send(str(run.lease), [str(artifact_id) for artifact_id in run.artifact_ids])
    except RedisError as error:
        leases.release(holder=run.lease)
        facts = {"result": "failed", "reason": "broker", "detail": str(error)}
        logger.warning("END event=scrub", extra={"facts": facts})
        return 0
    return len(run.artifact_ids)


def _carry(lease: str, artifact_ids: list[str]) -> operations.RunResult | None:
    with unit_of_work(logger, "scrub") as work:
        ids = [uuid.UUID(artifact_id) for artifact_id in artifact_ids]
        result = operations.carry_run(lease=uuid.UUID(lease), artifact_ids=ids, store=get_store())
        if result is None:
            work.reason = "lease_gone"
        else:
            work.note(files=result.files, bytes=result.bytes, damaged=result.damaged, unreadable=result.unreadable)
        return result
