"""Celery doors: which bytes are due for removal; copies that shall go."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from celery import shared_task

from datamodel.logs import unit_of_work
from site_service.retention import actors, dropping, queries, retire

logger = logging.getLogger(__name__)

_IDS_PER_MESSAGE = 50
# Of a tick of 10 s.
_RETIRE_SECONDS = 8.0


@shared_task(name="site_service.retention.tasks.enqueue_removals", soft_time_limit=25)
def enqueue_removals() -> None:
    """Sends the ids that are due; what is not done when the next tick comes is sent again."""
    with unit_of_work(logger, "enqueue_removals") as work:
        retired, obsolete, reattached = queries.due_retired(), queries.due_obsolete(), queries.reattached()
        _send(actors.purge_retired, retired)
        _send(actors.remove_obsolete, obsolete)
        _send(actors.follow_facts, reattached)
        work.note(retired=len(retired), obsolete=len(obsolete), reattached=len(reattached))


@shared_task(name="site_service.retention.tasks.advance_retirement", soft_time_limit=300)
def advance_retirement() -> None:
    """Goes on with runs of retire, for less than a tick unless a global is slow; old runs are forgotten. Repeatable."""
    if queries.has_open_runs():
        retire.advance(seconds=_RETIRE_SECONDS)
    else:
        retire.prune()


@shared_task(name="site_service.retention.tasks.give_back_unknown", soft_time_limit=600)
def give_back_unknown() -> None:
    """The globals learn which copies stay although they take them for going. Repeatable."""
    dropping.give_back_unknown()


def _send(actor: Any, ids: Sequence[uuid.UUID]) -> None:
    for start in range(0, len(ids), _IDS_PER_MESSAGE):
        actor.send([str(identity) for identity in ids[start : start + _IDS_PER_MESSAGE]])
