"""How soon a change at a site is visible at its global: milliseconds from the answer of a PUT, idle and under load."""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import psycopg

from tests.bench import limits
from tests.bench.client import BenchError, Request, ask
from tests.bench.load import HttpSession, Row
from tests.bench.running import WAIT_SECONDS, Bench

_PUTS_PER_SECOND = 200
_PUTTERS = 16
_MEDIAN_MS, _WORST_MS = 100.0, 1000.0
_LOOK_SECONDS = 0.002


def idle(bench: Bench) -> Iterator[Row]:
    """One PUT after the other."""
    changes = bench.sizes.idle_changes

    def act() -> list[float]:
        return [lag for _ in range(changes) for lag in _Changes(bench, count=1, per_second=1).lags()]

    lags, cost = bench.meter.cost(act, changes)
    yield _row(bench, "idle", lags, cost.service_ms, cost.database_ms)


def loaded(bench: Bench) -> Iterator[Row]:
    """So many PUTs a second whatever becomes of them, each of which is waited for."""
    changes = _Changes(bench, count=_PUTS_PER_SECOND * bench.sizes.loaded_seconds, per_second=_PUTS_PER_SECOND)
    lags, cost = bench.meter.cost(changes.lags, changes.count)
    yield _row(bench, f"under {changes.rate:,.0f} PUT/s", lags, cost.service_ms, cost.database_ms)


class _Changes:
    """Files put at alpha at their times, and the look-out for them at the global."""

    def __init__(self, bench: Bench, *, count: int, per_second: float) -> None:
        self.count = count
        self.rate = 0.0
        self._bench, self._interval = bench, 1 / per_second
        self._prefix = f"bench:lag/{uuid.uuid4().hex}/"
        self._numbers = iter(range(count))
        self._lock = threading.Lock()
        # When each was answered, until it is seen.
        self._answered: dict[str, float] = {}

    def lags(self) -> list[float]:
        """Milliseconds from answer to sight, of each; those of a request that was never answered raise `BenchError`."""
        with ThreadPoolExecutor(min(_PUTTERS, self.count)) as pool:
            started = time.perf_counter()
            putters = [pool.submit(self._put_all, started) for _ in range(min(_PUTTERS, self.count))]
            lags = self._look_out(putters)
            self.rate = self.count / (max(putter.result() for putter in putters) - started)
        return lags

    def _put_all(self, started: float) -> float:
        """What is due next, until nothing is; when the last was answered."""
        answered = started
        with closing(HttpSession(self._bench.alpha)) as session:
            while True:
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    return answered
                time.sleep(max(started + number * self._interval - time.perf_counter(), 0))
                answered = self._put(session, f"{self._prefix}{number}")

    def _put(self, session: HttpSession, name: str) -> float:
        path, headers = f"{session.prefix}/files/{name}", self._bench.headers
        session.connection.request("PUT", path, body=self._bench.small, headers=headers)
        response = session.connection.getresponse()
        response.read()
        if response.status != 201:
            raise BenchError(f"PUT {name}: {response.status}")
        answered = time.perf_counter()
        with self._lock:
            self._answered[name] = answered
        return answered

    def _look_out(self, putters: list[Future[float]]) -> list[float]:
        lags: list[float] = []
        deadline = time.perf_counter() + WAIT_SECONDS
        with psycopg.connect(self._bench.database("global"), autocommit=True) as connection:
            while len(lags) < self.count:
                with self._lock:
                    waiting = list(self._answered)
                found = connection.execute("SELECT uri FROM artifact WHERE uri = ANY(%s)", [waiting]).fetchall()
                seen = time.perf_counter()
                with self._lock:
                    lags += [1000 * (seen - self._answered.pop(name)) for (name,) in found]
                failed = [error for putter in putters if putter.done() and (error := putter.exception())]
                if failed or seen > deadline:
                    raise failed[0] if failed else BenchError("a PUT was never visible at the global")
                time.sleep(_LOOK_SECONDS)
        return lags


def _row(bench: Bench, how: str, lags: list[float], service_ms: float, database_ms: float) -> Row:
    lags.sort()
    median, late = statistics.median(lags), lags[min(int(len(lags) * 0.99), len(lags) - 1)]
    known = Request("GET", f"/locate/{bench.small_names()[0]}", {})
    limit = limits.commit_and_round_trip(bench.database("alpha"), lambda: ask(bench.peer, known), count=50)
    return Row(
        "12",
        f"change visible, {how} (p99 {late:,.0f} ms)",
        "ms",
        median,
        "one commit, one loopback request",
        limit,
        median / limit,
        f"p50 < {_MEDIAN_MS:,.0f}, p99 < {_WORST_MS:,.0f}",
        median < _MEDIAN_MS and late < _WORST_MS,
        service_ms,
        database_ms,
    )
