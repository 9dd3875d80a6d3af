"""Dramatiq door: carry a batch, then ring for the next one.

A message is the id of a lease and nothing else. It is never retried by the broker: what failed waits in the table, and a
lease that nobody works on expires there. So there is one mechanism of retries, and a flushed broker loses nothing.
"""

from __future__ import annotations

import logging
import uuid

import dramatiq
from django.conf import settings
from dramatiq.threading import Interrupt
from redis.exceptions import RedisError

from site_service.file_sync import attempts
from site_service.file_sync.operations import claim_batches, sync_batch as carry
from site_service.storage.contract import ArtifactStore
from site_service.storage.registry import get_store

QUEUE = "sync"

logger = logging.getLogger("inventory.sync")


@dramatiq.actor(
    queue_name=QUEUE,
    max_retries=0,
    time_limit=settings.INVENTORY_SYNC_TIME_LIMIT_SECONDS * 1000,
    notify_shutdown=True,
)
def sync_batch(lease: str) -> None:
    """Pull what the lease names; while there is more to do, ring for another batch.

    It comes behind the messages that already wait, so that no queue starves. Repeatable: a lease is taken up once.
    """
    store = get_store()
    try:
        result = carry(lease=uuid.UUID(lease), store=store)
    except Interrupt as stop:
        # The operation has given its lease back; to the broker the message is done.
        logger.warning("END event=sync_batch", extra={"facts": {"result": "stopped", "reason": type(stop).__name__}})
        return
    if result is not None and not result.is_blocked:
        ring(batches=1, store=store)


def ring(*, batches: int, store: ArtifactStore) -> int:
    """Claim what is due and send a message per batch; returns how many. What cannot be sent is given back at once."""
    leases = claim_batches(batches=batches, store=store)
    sent = 0
    try:
        for lease in leases:
            sync_batch.send(str(lease))
            sent += 1
    except RedisError as error:
        logger.warning(
            "END event=ring", extra={"facts": {"result": "failed", "reason": "broker", "detail": str(error)}}
        )
    finally:
        for lease in leases[sent:]:
            attempts.unclaim(lease=lease)
    return sent
