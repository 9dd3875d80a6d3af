"""Celery's door: the floor under the sealer of `manage.py listen`, the daily head, retention; and who acts in a task."""

from __future__ import annotations

from typing import Any

from celery import shared_task, signals

from datamodel.audit import acting, archiving, chain


@signals.task_prerun.connect
def begin(*, task: Any, **_signal: Any) -> None:
    """What a task does is its doing."""
    acting.begin_work(task.name)


@shared_task(name="datamodel.audit.tasks.seal_audit", soft_time_limit=120, time_limit=180)
def seal_audit() -> None:
    """Seals what is ready, and signs the head once a day."""
    chain.seal_ready()
    chain.sign_head_daily()


@shared_task(name="datamodel.audit.tasks.archive_audit", soft_time_limit=1800, time_limit=1900)
def archive_audit() -> None:
    """Moves what is old enough into a file."""
    archiving.archive_due()
