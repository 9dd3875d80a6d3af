"""Dramatiq door: the bytes of quarantined objects whose purge was decided go.

A message is a doorbell: if it is lost or too old, the next tick of `tasks.advance_validation` sends its ids again.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import dramatiq

from site_service.file_validate import quarantine
from site_service.storage.registry import get_store

QUEUE = "retention"
_IDS_PER_MESSAGE = 50


@dramatiq.actor(queue_name=QUEUE, time_limit=10 * 60 * 1000, max_age=60 * 1000, max_retries=3)
def purge_quarantined(object_ids: list[str]) -> None:
    """Removes the bytes of quarantined objects. Repeatable."""
    for object_id in object_ids:
        quarantine.purge_quarantined(store=get_store(), object_id=uuid.UUID(object_id))


def ring(object_ids: Sequence[uuid.UUID]) -> None:
    """Send these ids, some per message."""
    for start in range(0, len(object_ids), _IDS_PER_MESSAGE):
        purge_quarantined.send([str(one) for one in object_ids[start : start + _IDS_PER_MESSAGE]])
