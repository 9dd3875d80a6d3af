"""The way of a restored inventory back into the federation, in the one order that loses nothing; until its end it is closed.

The row says which step is next. Each step may be repeated, so whoever dies in one leaves it to the next `manage.py restore --resume`.
What the steps do is told by the roles (RESTORATION_STEPS): here is only their order, and that nothing else happens before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from datamodel.errors import InventoryError, RaceLostError, RestoringError
from datamodel.logs import unit_of_work
from datamodel.models import Restoration

logger = logging.getLogger(__name__)

# Restoring the rows and restamping them come before, in one transaction.
_STEPS_BEFORE = 2
_CACHE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What an operator says to the steps: peers that are left out, and how many copies may leave service unasked."""

    skipped: frozenset[str] = frozenset()
    at_most: int = 100
    by: str = "command"


StepFunction = Callable[[StepOptions], dict[str, Any]]


def begin(*, source: str, by: str, taken_at: datetime | None) -> None:
    """From this commit on the inventory is closed until `resume` has come to the end. Call it in the transaction that restores."""
    first = steps()[0]
    values = {"step": first, "step_at": Now(), "begun_at": Now(), "begun_by": by[:100], "source": source[:300]}
    rest: dict[str, Any] = {"taken_at": taken_at, "finished_at": None, "last_error": "", "report": {}}
    Restoration.objects.update_or_create(id=1, defaults=values | rest)
    gate.forget()


def resume(*, options: StepOptions, say: Callable[[str], None], until: str = "") -> bool:
    """Do the steps that are left, or those before `until`; whether the inventory is open now.

    Raises what a step raises, after noting it; a repeat goes on with that step, which finds what it has done.
    """
    while (found := current()) is not None and found.step != until:
        step = found.step
        say(description(found))
        try:
            with unit_of_work(logger, "restoration_step", step=step, by=options.by):
                report = _function_of(step)(options)
        except InventoryError as error:
            Restoration.objects.filter(id=1, step=step).update(last_error=f"{error.code}: {error.detail}")
            raise
        _advance(found, report)
        say(", ".join(f"{name}: {value}" for name, value in report.items()) or "done")
    return found is None


def steps() -> list[str]:
    """In order; what follows the last is open."""
    return [step for step, _ in settings.RESTORATION_STEPS]


def current() -> Restoration | None:
    """The restoration that is not at its end; None when this inventory is open."""
    return Restoration.objects.filter(id=1, finished_at__isnull=True).first()


def number(found: Restoration) -> tuple[int, int]:
    """Which step is next, and of how many."""
    return _STEPS_BEFORE + steps().index(found.step) + 1, _STEPS_BEFORE + len(steps())


def description(found: Restoration) -> str:
    """In words."""
    place, total = number(found)
    return f"restoring: step {place} of {total} ({Restoration.Step(found.step).label})"


def is_restoring() -> bool:
    """Asks the database. While it says so nothing is removed, and nothing is pulled from other sites."""
    return Restoration.objects.filter(id=1, finished_at__isnull=True).exists()


def refuse_while_restoring() -> None:
    """Raises `RestoringError` unless this inventory is open."""
    if (found := current()) is not None:
        raise RestoringError(
            f"{description(found)}; nothing is served, changed or removed before its end: manage.py restore --status"
        )


class Gate:
    """The same for requests, which must not cost a query each: an answer is at most a second old, and never one of "open" that
    this process knows to be wrong.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open_until = float("-inf")

    def check(self, *, is_exact: bool) -> None:
        """Raises `RestoringError`. `is_exact`: ask the database now. One that does not answer is not our concern."""
        with self._lock:
            if not is_exact and time.monotonic() < self._open_until:
                return
        try:
            refuse_while_restoring()
        except DatabaseError:
            return
        with self._lock:
            self._open_until = time.monotonic() + _CACHE_SECONDS

    def forget(self) -> None:
        with self._lock:
            self._open_until = float("-inf")


gate = Gate()


def _function_of(step: str) -> StepFunction:
    function: StepFunction = import_string(dict(settings.RESTORATION_STEPS)[step])
    return function


def _advance(found: Restoration, report: dict[str, Any]) -> None:
    """Raises `RaceLostError` when another process has gone on with it."""
    following = [*steps(), Restoration.Step.OPEN][steps().index(found.step) + 1]
    is_last = following == Restoration.Step.OPEN
    with transaction.atomic():
        won = Restoration.objects.filter(id=1, step=found.step, begun_at=found.begun_at).update(
            step=following,
            step_at=Now(),
            finished_at=Now() if is_last else None,
            last_error="",
            report=found.report | {found.step: report},
        )
    connection.close()
    if not won:
        raise RaceLostError("another process goes on with this restoration: see manage.py restore --status")
