"""News inside one inventory: NOTIFY after a commit, coalesced per process, and a listener that wakes waiting requests.

Both use connections of their own (INVENTORY_DIRECT_DATABASE_URL): LISTEN does not survive a transaction pooler. News are a
doorbell only: whoever waits asks the tables, and beat asks them anyway. Changes of rights have a channel of their own, on which
triggers ring with the commit; whoever remembers rights asks `Freshness` whether that may still be believed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import psycopg
from django.db import connection, transaction

from datamodel import direct

logger = logging.getLogger(__name__)

CHANNEL = "inventory_news"
ACCESS_CHANNEL = "inventory_access"
_RECONNECT_SECONDS = 1.0
_CLOSING_SECONDS = 0.5
_APPLICATION = "inventory-news"
# A connection can be dead without a sign: it is used every so often, and not believed to hear when that does not come back.
_BEAT_SECONDS = 2.0
_DEAF_SECONDS = 5.0
# What is remembered of rights without a listener.
UNHEARD_SECONDS = 5.0


def announce() -> None:
    """Rings the doorbell once the current transaction has committed (at once outside one)."""
    if connection.in_atomic_block:
        transaction.on_commit(_announcer.ring)
    else:
        _announcer.ring()


class _Outage:
    """Tells the log when a connection is lost and when it is back, not each try between."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._is_on = False

    def goes_on(self, error: psycopg.Error) -> None:
        if not self._is_on:
            facts = {"result": "failed", "reason": str(error).strip()}
            logger.warning("END event=%s", self._event, extra={"facts": facts})
        self._is_on = True

    def ends(self) -> None:
        if self._is_on:
            logger.info("END event=%s", self._event, extra={"facts": {"result": "ok", "reason": "connected again"}})
        self._is_on = False


class _Announcer:
    """One thread per process sends NOTIFY; many commits in a short time cost one."""

    def __init__(self) -> None:
        self._pending = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="announce", daemon=True)
                self._thread.start()
        self._pending.set()

    def _run(self) -> None:
        outage = _Outage("announce")
        while True:
            try:
                with direct.connect(_APPLICATION) as connection:
                    while True:
                        self._pending.wait()
                        self._pending.clear()
                        connection.execute(f"NOTIFY {CHANNEL}")
                        outage.ends()
            except psycopg.Error as error:
                outage.goes_on(error)
                self._pending.set()
                time.sleep(_RECONNECT_SECONDS)


class NewsListener:
    """Counts doorbells; `wait` returns as soon as the count differs from the one seen before."""

    def __init__(self) -> None:
        # Set by a signal handler, which must take no lock: waiters look at it twice a second.
        self.is_closing = False
        self._condition = threading.Condition()
        self._count = 0
        self._access_count = 0
        self._heard_at = float("-inf")
        self._thread: threading.Thread | None = None
        self._started = threading.Lock()

    def count(self) -> int:
        """The number of doorbells so far; call it before asking the tables. Starts listening on first use."""
        self._start()
        with self._condition:
            return self._count

    def access(self) -> tuple[int, bool]:
        """The number of changes of rights so far, and whether the next one would be heard. Starts listening on first use."""
        would_hear = time.monotonic() - self._heard_at < _DEAF_SECONDS
        if not would_hear:
            self._start()
            would_hear = time.monotonic() - self._heard_at < _DEAF_SECONDS
        return self._access_count, would_hear

    def wait(self, seen: int, seconds: float) -> bool:
        """Whether a doorbell has rung since `seen` was counted, waiting up to `seconds` for it, less when closing."""
        return self._wait(lambda: self._count != seen, seconds)

    def wait_access(self, seen: int, seconds: float) -> bool:
        """As `wait`, for a change of rights since `access` gave this number."""
        return self._wait(lambda: self._access_count != seen, seconds)

    def _wait(self, has_rung: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with self._condition:
            while not has_rung() and not self.is_closing and (left := deadline - time.monotonic()) > 0:
                self._condition.wait(min(left, _CLOSING_SECONDS))
            return has_rung()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        with self._started:
            if self._thread is None or not self._thread.is_alive():
                ready = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(ready,), name="listen", daemon=True)
                self._thread.start()
                ready.wait(_RECONNECT_SECONDS)

    def _ring(self) -> None:
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def _ring_access(self) -> None:
        with self._condition:
            self._access_count += 1
            self._condition.notify_all()

    def _run(self, ready: threading.Event) -> None:
        outage = _Outage("listen")
        while True:
            try:
                with direct.connect(_APPLICATION) as connection:
                    if direct.is_pooled(connection):
                        raise psycopg.OperationalError(direct.POOLED)
                    connection.execute(f"LISTEN {CHANNEL}")
                    connection.execute(f"LISTEN {ACCESS_CHANNEL}")
                    # What was missed meanwhile nobody knows: whoever waits looks, whoever remembers asks again.
                    self._ring()
                    self._ring_access()
                    self._heard_at = time.monotonic()
                    ready.set()
                    outage.ends()
                    self._listen(connection)
            except psycopg.Error as error:
                self._heard_at = float("-inf")
                outage.goes_on(error)
                ready.set()
                time.sleep(_RECONNECT_SECONDS)

    def _listen(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        while True:
            for notice in connection.notifies(timeout=_BEAT_SECONDS):
                if notice.channel == ACCESS_CHANNEL:
                    self._ring_access()
                else:
                    self._ring()
            asked_at = time.monotonic()
            # Listening twice is listening once: a sign of life that says what this connection is for.
            connection.execute(f"LISTEN {ACCESS_CHANNEL}")
            self._heard_at = asked_at


_announcer = _Announcer()
news = NewsListener()


@dataclass(frozen=True, slots=True)
class Freshness:
    """When rights were read; take it before reading them."""

    access_count: int
    read_at: float

    @classmethod
    def now(cls) -> Self:
        return cls(news.access()[0], time.monotonic())

    @property
    def age(self) -> float:
        """Seconds since they were read."""
        return time.monotonic() - self.read_at

    @property
    def is_good(self) -> bool:
        """Whether they still hold: nothing was changed since; without a listener for a few seconds."""
        count, would_hear = news.access()
        return count == self.access_count and (would_hear or self.age < UNHEARD_SECONDS)
