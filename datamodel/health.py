"""Whether this process can serve: checks of readiness, and the state that it announces to other services.

Each check runs in a thread of its own: a store or database that hangs must neither hang the answer nor pile up threads.
Features add checks by dotted name in INVENTORY_READINESS (a function that raises an InventoryError) and decide the state in
INVENTORY_STATE (a function that returns a `StateReport`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils.module_loading import import_string

from datamodel import keys, restoration
from datamodel.errors import InventoryError, NotConfiguredError
from datamodel.positions import read_identity

logger = logging.getLogger(__name__)

started_at = datetime.now(UTC)


class ServiceState(StrEnum):
    """The words of OpenCADC for what a service does now."""

    READ_WRITE = "ReadWrite"
    READ_ONLY = "ReadOnly"
    OFFLINE = "Offline"


@dataclass(frozen=True, slots=True)
class StateReport:
    """A state and, for people, why."""

    state: ServiceState
    note: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A check that does not hold, and why."""

    check: str
    reason: str


def failures() -> list[Failure]:
    """What keeps this process from serving; takes at most INVENTORY_READINESS_SECONDS."""
    probes = _probes(settings.INVENTORY_ROLE, tuple(settings.INVENTORY_READINESS))
    runs = [(probe.name, probe.begin()) for probe in probes]
    deadline = time.monotonic() + settings.INVENTORY_READINESS_SECONDS
    found = [(name, run.outcome(deadline - time.monotonic())) for name, run in runs]
    return [Failure(name, reason) for name, reason in found if reason]


def current_state() -> StateReport:
    """Offline when a check fails, else what the role says."""
    if found := failures():
        return StateReport(ServiceState.OFFLINE, "; ".join(f"{failure.check}: {failure.reason}" for failure in found))
    if settings.INVENTORY_STATE:
        report: StateReport = import_string(settings.INVENTORY_STATE)()
        return report
    return StateReport(ServiceState.READ_WRITE, "service is accepting requests")


class _Run:
    """One run of a check; `reason` is "" when it holds."""

    def __init__(self) -> None:
        self.finished = threading.Event()
        self.reason = ""

    def outcome(self, seconds: float) -> str:
        return self.reason if self.finished.wait(max(seconds, 0)) else "it does not answer in time"


class _Probe:
    """Runs one check, at most once at a time: callers that come meanwhile share the run."""

    def __init__(self, name: str, check: Callable[[], None]) -> None:
        self.name = name
        self._check = check
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def begin(self) -> _Run:
        with self._lock:
            if self._run is None or self._run.finished.is_set():
                self._run = _Run()
                threading.Thread(
                    target=self._perform, args=(self._run,), name=f"ready-{self.name}", daemon=True
                ).start()
            return self._run

    def _perform(self, run: _Run) -> None:
        try:
            self._check()
        except InventoryError as error:
            run.reason = error.detail
        except DatabaseError:
            run.reason = "the database does not answer"
        except Exception:  # the edge of a thread: a check that breaks is a check that does not hold
            logger.exception("check %s", self.name)
            run.reason = "the check failed; the service's log says why"
        finally:
            connection.close()
            run.finished.set()


@cache
def _probes(role: str, names: tuple[str, ...]) -> tuple[_Probe, ...]:
    checks = [_database, _migrations, _identity, _restoration, *([_signing_key] if role == "global" else [])]
    checks += [import_string(name) for name in names]
    return tuple(_Probe(check.__name__.strip("_"), check) for check in checks)


def _database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


_migrated = threading.Event()


def _migrations() -> None:
    # Migrations are not taken back while a process runs: what was once complete is not asked again.
    if _migrated.is_set():
        return
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise NotConfiguredError("the database lacks migrations: run manage.py provision")
    _migrated.set()


def _identity() -> None:
    if not read_identity().is_current:
        raise NotConfiguredError("this database was restored from elsewhere: run manage.py restamp_feed")


def _restoration() -> None:
    restoration.refuse_while_restoring()


def _signing_key() -> None:
    keys.signing_key(now=datetime.now(UTC))
