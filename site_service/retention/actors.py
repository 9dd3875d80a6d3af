"""Dramatiq door: the bytes that are due go, a few artifacts per message.

A message is a doorbell: if it is lost or too old, the next tick of `tasks.enqueue_removals` sends its ids again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence

import dramatiq
from redis.exceptions import RedisError

from site_service.retention import operations
from site_service.storage.registry import get_store

logger = logging.getLogger(__name__)

QUEUE = "retention"
_TIME_LIMIT = 10 * 60 * 1000
_MAX_AGE = 60 * 1000


@dramatiq.actor(queue_name=QUEUE, time_limit=_TIME_LIMIT, max_age=_MAX_AGE, max_retries=3)
def purge_retired(artifact_ids: list[str]) -> None:
    """Removes the bytes of retired artifacts. Repeatable."""
    for artifact_id in artifact_ids:
        operations.purge_retired(store=get_store(), artifact_id=uuid.UUID(artifact_id))


@dramatiq.actor(queue_name=QUEUE, time_limit=_TIME_LIMIT, max_age=_MAX_AGE, max_retries=3)
def remove_obsolete(location_ids: list[str]) -> None:
    """Removes bytes that nobody needs. Repeatable."""
    for location_id in location_ids:
        operations.remove_obsolete(store=get_store(), location_id=uuid.UUID(location_id))


@dramatiq.actor(queue_name=QUEUE, time_limit=_TIME_LIMIT, max_age=_MAX_AGE, max_retries=3)
def follow_facts(artifact_ids: list[str]) -> None:
    """Facts kept with bytes follow their rows. Repeatable."""
    for artifact_id in artifact_ids:
        operations.follow_facts(store=get_store(), artifact_id=uuid.UUID(artifact_id))


def ring_facts(artifact_ids: Sequence[uuid.UUID]) -> None:
    """Have the facts follow now; without a broker the next tick of `tasks.enqueue_removals` sees to it."""
    try:
        follow_facts.send([str(identity) for identity in artifact_ids])
    except RedisError as error:
        logger.warning("END event=ring_facts", extra={"facts": {"result": "failed", "reason": str(error)}})
