"""What a process gathers before it records it: refused attempts, by the minute, and reads, by the batch.

Entries are never changed, so counting is done here, in memory of a fixed size: nobody can fill the table by being refused, nor memory by
inventing names. What is here when a process dies without its goodbye (kill -9) is lost; what is done is never gathered, it commits with its
transaction.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
from prometheus_client import Counter

from datamodel import direct
from datamodel.audit import acting
from datamodel.audit.acting import Actor
from datamodel.audit.recording import INSERT_SQL, Values, values_for
from datamodel.audit.rules import Action, Outcome
from datamodel.counters import registry
from datamodel.logs import mask_tokens, request_id
from datamodel.wire import time_text

logger = logging.getLogger(__name__)

lost_reads = Counter("inventory_audit_lost_reads", "Reads that could not be recorded", registry=registry)
# Entries of one process and minute: so many (caller, action, reason), the rest together by (action, reason).
MOST_CALLERS = 100
MOST_READS = 10_000
OTHERS = Actor("(others)", "various")
_EXAMPLES = 3
_EXAMPLE_LENGTH = 200
_MINUTE = 60
_READ_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Key:
    minute: int
    actor: Actor
    action: Action
    reason: str


@dataclass(slots=True)
class _Tally:
    """Attempts of one minute."""

    first_at: float
    last_at: float
    request: str
    count: int = 0
    subjects: list[str] = field(default_factory=list)


class Pending:
    """Gathered by the threads of this process; written by one of its own, over a connection of its own."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._tallies: dict[_Key, _Tally] = {}
        self._reads: deque[Values] = deque()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def refused(self, actor: Actor, action: Action, subject: str, *, reason: str, request: str) -> None:
        """Somebody was not let. Costs no statement."""
        now, subject = self._clock(), mask_tokens(subject)[:_EXAMPLE_LENGTH]
        key = _Key(int(now // _MINUTE), actor, action, reason)
        with self._lock:
            if key not in self._tallies and len(self._tallies) >= MOST_CALLERS:
                key = _Key(key.minute, OTHERS, action, reason)
            tally = self._tallies.setdefault(key, _Tally(now, now, request))
            tally.count, tally.last_at = tally.count + 1, now
            if len(tally.subjects) < _EXAMPLES and subject not in tally.subjects:
                tally.subjects.append(subject)
        self._start()

    def read(self, actor: Actor, subject: str, *, percent: int, request: str) -> None:
        """Somebody read a file. While the database is away the oldest are lost."""
        details: dict[str, object] = {"readAt": time_text(datetime.now(UTC))}
        if percent < 100:
            details["percent"] = percent
        values = values_for(actor, Action.READ, subject, details=details, request=request)
        with self._lock:
            if len(self._reads) >= MOST_READS:
                self._reads.popleft()
                lost_reads.inc()
            self._reads.append(values)
        self._start()

    def write(self, *, everything: bool) -> int:
        """Record the minutes that are over (or `everything`) and all reads; returns how many entries. Raises `psycopg.Error`; then they wait."""
        with self._writing:
            tallies, reads = self._take(everything=everything)
            entries = [*(_refusal(key, tally) for key, tally in tallies.items()), *reads]
            try:
                if entries:
                    _insert(entries)
            except psycopg.Error:
                self._put_back(tallies, reads)
                raise
        return len(entries)

    def _take(self, *, everything: bool) -> tuple[dict[_Key, _Tally], list[Values]]:
        with self._lock:
            minute = int(self._clock() // _MINUTE)
            tallies = {key: tally for key, tally in self._tallies.items() if everything or key.minute < minute}
            for key in tallies:
                del self._tallies[key]
            reads = list(self._reads)
            self._reads.clear()
        return tallies, reads

    def _put_back(self, tallies: dict[_Key, _Tally], reads: list[Values]) -> None:
        with self._lock:
            for key, tally in tallies.items():
                known = self._tallies.setdefault(key, tally)
                if known is not tally:
                    known.count, known.first_at = known.count + tally.count, tally.first_at
            room = MOST_READS - len(self._reads)
            lost_reads.inc(max(len(reads) - room, 0))
            self._reads.extendleft(reversed(reads[-room:] if room else []))

    def forget(self) -> None:
        """Nothing has happened (tests)."""
        with self._lock:
            self._tallies.clear()
            self._reads.clear()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                if self._thread is None:
                    atexit.register(self._say_goodbye)
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_READ_SECONDS)
            self._try(everything=False)

    def _say_goodbye(self) -> None:
        self._try(everything=True)

    def _try(self, *, everything: bool) -> None:
        try:
            self.write(everything=everything)
            self._is_failing = False
        except psycopg.Error as error:
            if not self._is_failing:
                facts = {"result": "failed", "reason": str(error).strip()}
                logger.warning("END event=write_audit", extra={"facts": facts})
            self._is_failing = True


def _refusal(key: _Key, tally: _Tally) -> Values:
    details: dict[str, object] = {
        "first": time_text(datetime.fromtimestamp(tally.first_at, UTC)),
        "last": time_text(datetime.fromtimestamp(tally.last_at, UTC)),
        "subjects": tally.subjects,
    }
    return values_for(
        key.actor,
        key.action,
        tally.subjects[0] if tally.subjects else "",
        details=details,
        outcome=Outcome.REFUSED,
        reason=key.reason,
        request=tally.request,
        count=tally.count,
    )


def _insert(entries: Sequence[Values]) -> None:
    with direct.connect("inventory-audit") as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(INSERT_SQL, entries)


pending = Pending()


def note_refusal(action: Action, subject: str, *, reason: str) -> None:
    """Whoever acts now was not let, by what is decided here; `reason` is a word. Outside of the transaction, which will be undone."""
    pending.refused(acting.current().actor, action, subject, reason=reason, request=request_id.get())
