"""What Celery does around every task of ours."""

from __future__ import annotations

import pytest
from celery import signals

from datamodel import memory
from harvest import tasks


def test_after_every_task_memory_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(True))
    signals.task_postrun.send(sender=tasks.harvest_all)
    assert given_back == [True]
