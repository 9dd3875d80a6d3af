"""Celery's doors: which remote is looked at now. Every task may be lost or repeated; the cursors are the truth."""

from __future__ import annotations

import functools
import logging
import time
from datetime import UTC, datetime

from celery import Celery, shared_task, signals
from django.conf import settings
from django.db import connection
from kombu.exceptions import OperationalError as BrokerError

from datamodel import keys, memory
from datamodel.errors import InventoryError
from datamodel.logs import unit_of_work
from harvest import echo, exchange, expiry, queries, trusted
from harvest.exchange import Harvested, Heard

logger = logging.getLogger(__name__)

_NUDGE_SECONDS = 1.0
_MESSAGE_SECONDS = 60


@signals.task_postrun.connect
def give_memory_back(**_task: object) -> None:
    """Of both roles, after every task: pages of rows leave the heap full of holes, and task by task it would grow."""
    memory.give_back()


@shared_task(name="harvest.tasks.harvest_all")
def harvest_all() -> None:
    """The floor under the listener: each enabled remote that is due gets a task of its own."""
    now = datetime.now(UTC)
    for remote in queries.harvested_remotes():
        if queries.is_due(remote, now):
            request_harvest(remote.name)


@shared_task(name="harvest.tasks.harvest_remote", soft_time_limit=900, time_limit=960)
def harvest_remote(name: str) -> None:
    """One turn with one remote. A failure is recorded with the remote and is nobody else's."""
    nudge = Nudge()
    _meet(name)
    try:
        found = exchange.harvest(name, on_change=nudge.ring)
    except InventoryError:
        # Recorded and logged where it happened; the next tick tries again.
        return
    finally:
        nudge.finish()
    if found.is_interrupted:
        request_harvest(name)
    if found.must_reconcile:
        send_task("harvest.reconcile.tasks.reconcile_remote", name)


def harvest_heard(name: str, heard: Heard) -> Harvested:
    """What a long-poll was told is harvested where it was heard, which takes no worker. Raises what `exchange.harvest_heard` does."""
    nudge = Nudge()
    try:
        return exchange.harvest_heard(name, heard, on_change=nudge.ring)
    finally:
        nudge.finish()


@shared_task(name="harvest.tasks.expire_events", soft_time_limit=300)
def expire_events() -> None:
    """Events that are old and that every peer has passed go, and notes of pages that their sites have passed."""
    expiry.expire_events()
    echo.prune()


@shared_task(name="harvest.tasks.rotate_keys")
def rotate_keys() -> None:
    """Publish a new signing key once the newest is older than INVENTORY_KEY_PERIOD_SECONDS."""
    with unit_of_work(logger, "rotate-keys") as work:
        key_id = keys.rotate_keys(
            now=datetime.now(UTC), period=settings.INVENTORY_KEY_PERIOD, overlap=settings.INVENTORY_KEY_OVERLAP
        )
        work.note(new_key=key_id)


@shared_task(name="harvest.tasks.refresh_trusted_keys")
def refresh_trusted_keys() -> None:
    """The public keys of every paired remote and every global, as it publishes them now; who does not answer keeps those it had."""
    trusted.refresh_all()
    connection.close()


def _meet(name: str) -> None:
    """A global that is met for the first time signs URLs at once: its keys cannot wait for the next tick."""
    for remote in trusted.remotes().filter(name=name, trusted_keys__isnull=True, paired_at__isnull=True):
        trusted.refresh(remote)


def request_harvest(name: str) -> bool:
    """Ask a worker to harvest a remote; False when the broker cannot be reached (the next tick asks again)."""
    return send_task("harvest.tasks.harvest_remote", name)


class Nudge:
    """Tells HARVEST_NUDGE (a task's name, or nothing) that rows have come: once a second while they come, and at the end."""

    def __init__(self) -> None:
        self._sent_at = float("-inf")
        self._is_pending = False

    def ring(self) -> None:
        self._is_pending = True
        if time.monotonic() - self._sent_at > _NUDGE_SECONDS:
            self.finish()

    def finish(self) -> None:
        if self._is_pending and settings.HARVEST_NUDGE:
            send_task(settings.HARVEST_NUDGE)
        self._is_pending = False
        self._sent_at = time.monotonic()


def send_task(task: str, *arguments: str) -> bool:
    """Hand a task to the broker; False when it cannot be reached."""
    try:
        _sender().send_task(task, args=arguments, expires=_MESSAGE_SECONDS, retry=False)
    except BrokerError as error:
        facts = {"task": task, "result": "failed", "reason": "broker", "detail": str(error)}
        logger.warning("END event=send_task", extra={"facts": facts})
        return False
    return True


@functools.cache
def _sender() -> Celery:
    """Tasks are sent from workers and from commands alike; only the broker must be the same."""
    app = Celery("harvest", set_as_current=False)
    app.conf.update(settings.CELERY_SETTINGS)
    # Whoever sends has something else to do than to wait for a broker that is gone.
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "max_retries": 1, "interval_start": 0}
    return app
