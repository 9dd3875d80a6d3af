"""What permission services have answered, remembered by this process: fresh, stale for as long as is allowed, then closed.

A question is asked once at a time; a service that does not answer is left alone for some seconds, so that it costs one caller its time
limit and nobody else anything; a uri of which it makes nonsense is left alone for as long.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from django.conf import settings
from prometheus_client import Counter

from datamodel.counters import registry
from datamodel.errors import RemoteError, RemoteUnavailableError
from datamodel.permission_service import client
from datamodel.permission_service.rules import Operation, Permission

logger = logging.getLogger(__name__)

Question = tuple[Operation, str]
Value = TypeVar("Value")

_questions = Counter(
    "inventory_permission_questions",
    "Decisions: asked, fresh (remembered), stale, closed",
    ["service", "operation", "outcome"],
    registry=registry,
)
# So many answers of each kind are remembered.
_REMEMBERED = 20_000
_PAUSE_SECONDS = 5.0
# So many questions are asked at a time.
_AT_ONCE = 8
# A service whose clock is late would be asked for everything each time.
_LEAST_FRESH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a question: without a permission it is not known, for a reason."""

    outcome: str
    permission: Permission | None = None
    age: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Remembered:
    permission: Permission
    asked_at: float
    fresh_until: float


class _Bounded(Generic[Value]):
    """The latest used; not locked."""

    def __init__(self, most: int) -> None:
        self.values: OrderedDict[Question, Value] = OrderedDict()
        self._most = most

    def get(self, question: Question) -> Value | None:
        found = self.values.get(question)
        if found is not None:
            self.values.move_to_end(question)
        return found

    def put(self, question: Question, value: Value) -> None:
        self.values[question] = value
        self.values.move_to_end(question)
        if len(self.values) > self._most:
            self.values.popitem(last=False)


class PermissionService:
    """One service, asked and remembered."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic, most: int = _REMEMBERED) -> None:
        self.url = url
        self._clock = clock
        self._lock = threading.Lock()
        # Made-up names, of which it knows nothing, push out one another only.
        self._permitting, self._refusing = _Bounded[_Remembered](most), _Bounded[_Remembered](most)
        self._nonsense = _Bounded[tuple[float, str]](most)
        self._flights: dict[Question, Future[Permission]] = {}
        self._slots = threading.Semaphore(_AT_ONCE)
        self._trouble = ""
        self._next_try = float("-inf")

    @property
    def is_up(self) -> bool:
        return not self._trouble

    def standing(self) -> tuple[int, float]:
        """How many answers are remembered, and the age of the oldest."""
        with self._lock:
            held = [*self._permitting.values.values(), *self._refusing.values.values()]
        return len(held), self._clock() - min((found.asked_at for found in held), default=self._clock())

    def look(self, operation: Operation, uri: str) -> Answer:
        """What it says, or what it said if it cannot be asked now; never raises."""
        question = (operation, uri)
        with self._lock:
            found = self._permitting.get(question) or self._refusing.get(question)
        now = self._clock()
        if found is not None and now < found.fresh_until:
            return self._counted(operation, Answer("fresh", found.permission, now - found.asked_at))
        try:
            return self._counted(operation, Answer("asked", self._asked(question)))
        except RemoteError as error:
            reason = error.detail
        age = self._clock() - found.asked_at if found is not None else float("inf")
        if found is not None and age <= _stale_seconds(operation):
            return self._counted(operation, Answer("stale", found.permission, age, reason))
        return self._counted(operation, Answer("closed", reason=reason))

    def _counted(self, operation: Operation, answer: Answer) -> Answer:
        _questions.labels(self.url, operation.value, answer.outcome).inc()
        return answer

    def _asked(self, question: Question) -> Permission:
        """Asked by one; the others wait for what it hears. Raises `RemoteError`."""
        with self._lock:
            flight = self._flights.get(question)
            if flight is None:
                self._refuse_in_vain(question)
                mine: Future[Permission] = Future()
                self._flights[question] = mine
        if flight is not None:
            try:
                return flight.result(2.0 * settings.INVENTORY_PERMISSION_TIMEOUT_SECONDS)
            except TimeoutError:
                raise RemoteUnavailableError("it is too slow") from None
        try:
            permission = self._ask_now(question)
            mine.set_result(permission)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[question]
        return permission

    def _refuse_in_vain(self, question: Question) -> None:
        """While it does not answer one question in some seconds tries it."""
        now = self._clock()
        if self._trouble:
            if now < self._next_try:
                raise RemoteUnavailableError(self._trouble)
            self._next_try = now + _PAUSE_SECONDS
        until, reason = self._nonsense.get(question) or (now, "")
        if now < until:
            raise RemoteUnavailableError(reason)

    def _ask_now(self, question: Question) -> Permission:
        if not self._slots.acquire(timeout=settings.INVENTORY_PERMISSION_TIMEOUT_SECONDS):
            raise RemoteUnavailableError("too many questions wait for it")
        try:
            permission = client.ask(self.url, *question)
        except RemoteError as error:
            with self._lock:
                self._note(question, error)
            raise
        finally:
            self._slots.release()
        with self._lock:
            self._trouble = ""
            self._remember(question, permission)
        return permission

    def _note(self, question: Question, error: RemoteError) -> None:
        later = self._clock() + _PAUSE_SECONDS
        if not self._trouble:
            facts = {"service": self.url, "result": "failed", "reason": error.detail}
            logger.warning("END event=ask_permission", extra={"facts": facts})
        if isinstance(error, RemoteUnavailableError):
            self._trouble, self._next_try = error.detail, later
        else:
            # It answers: what it makes of one uri, which a caller has chosen, says nothing of the others.
            self._trouble = ""
            self._nonsense.put(question, (later, error.detail))

    def _remember(self, question: Question, permission: Permission) -> None:
        now, fresh = self._clock(), float(settings.INVENTORY_PERMISSION_FRESH_SECONDS)
        if permission.expires_at is not None:
            left = (permission.expires_at - datetime.now(UTC)).total_seconds()
            fresh = min(fresh, max(left, _LEAST_FRESH_SECONDS))
        kept, other = self._permitting, self._refusing
        if permission.is_for_nobody:
            kept, other = other, kept
        other.values.pop(question, None)
        kept.put(question, _Remembered(permission, now, now + fresh))


def services() -> tuple[PermissionService, ...]:
    """The configured ones; a grant of any of them counts."""
    return _services(tuple(settings.INVENTORY_PERMISSION_SERVICES)) if settings.INVENTORY_PERMISSION_SERVICES else ()


def forget() -> None:
    """Ask anew."""
    _services.cache_clear()


@functools.lru_cache(maxsize=2)
def _services(urls: tuple[str, ...]) -> tuple[PermissionService, ...]:
    return tuple(PermissionService(url) for url in urls)


def _stale_seconds(operation: Operation) -> int:
    bound: int = (
        settings.INVENTORY_PERMISSION_STALE_READ_SECONDS
        if operation is Operation.READ
        else settings.INVENTORY_PERMISSION_STALE_WRITE_SECONDS
    )
    return bound
