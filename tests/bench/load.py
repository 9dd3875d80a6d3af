"""Large transfers, and the arithmetic of rounds. The same client drives a figure and its limit."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.client import BenchError
from tests.bench.costs import Cost, Meter

READ_SIZE = 1 << 20
PROJECT = Path(__file__).resolve().parents[2]


class HttpSession:
    """One connection for bodies that are streamed."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self.prefix = parts.path
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)

    def close(self) -> None:
        self.connection.close()


def upload(base: str, path: str, headers: dict[str, str], *, length: int, block: bytes) -> float:
    """Bytes per second of one streamed PUT of `length` bytes made of `block`."""
    with closing(HttpSession(base)) as session:
        connection = session.connection
        started = time.perf_counter()
        connection.putrequest("PUT", session.prefix + path)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        whole, rest = divmod(length, len(block))
        for _ in range(whole):
            connection.send(block)
        connection.send(block[:rest])
        response = connection.getresponse()
        body = response.read()
        if response.status != http.client.CREATED:
            raise BenchError(f"PUT {path}: {response.status} {body[:300]!r}")
        return length / (time.perf_counter() - started)


def download(base: str, path: str, headers: dict[str, str], *, length: int) -> float:
    """Bytes per second of one GET whose body must have `length` bytes; the bytes are dropped."""
    buffer = bytearray(READ_SIZE)
    with closing(HttpSession(base)) as session:
        started = time.perf_counter()
        session.connection.request("GET", session.prefix + path, headers=headers)
        response = session.connection.getresponse()
        total = 0
        while count := response.readinto(buffer):
            total += count
        if total != length:
            raise BenchError(f"GET {path}: {response.status}, {total} of {length} bytes")
        return length / (time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: medians over the rounds; `ratio` is the median of the rounds' own ratios.

    The milliseconds are of the processor, for one operation, in all services and in all their databases. `work` is the number
    of the row in the issue's table of targets.
    """

    work: str
    name: str
    unit: str
    figure: float
    limit_name: str
    limit: float
    ratio: float
    target: str
    is_met: bool
    service_ms: float
    database_ms: float


def nothing(_: int) -> object:
    """For a figure that needs no preparation."""
    return None


@dataclass(frozen=True, slots=True)
class Figure:
    """What is measured, how, and beside what; `prepare` belongs to neither time nor cost.

    `target` is the least ratio, `least` the least figure itself. A figure that is not `warm` has no round that only warms up.
    """

    work: str
    name: str
    unit: str
    act: Callable[[int], float]
    limit_name: str
    limit: Callable[[int], float]
    target: float
    operations: int
    rounds: int
    least: float = 0.0
    warm: bool = True
    prepare: Callable[[int], object] = field(default=nothing)

    def measure(self, meter: Meter) -> Row:
        """Figure and limit in turn, so that a machine whose speed drifts drifts for both."""
        found = list(self._rounds(meter))
        figure, ratio = (
            statistics.median(values) for values in ([f for f, _, _ in found], [f / o for f, o, _ in found])
        )
        return Row(
            self.work,
            self.name,
            self.unit,
            figure,
            self.limit_name,
            statistics.median(limit for _, limit, _ in found),
            ratio,
            f"≥ {self.target:.2f}" + (f", ≥ {self.least:,.0f}" if self.least else ""),
            ratio >= self.target and figure >= self.least,
            statistics.median(cost.service_ms for _, _, cost in found),
            statistics.median(cost.database_ms for _, _, cost in found),
        )

    def _rounds(self, meter: Meter) -> Iterator[tuple[float, float, Cost]]:
        for number in range(self.rounds + self.warm):
            self.prepare(number)
            value, cost = meter.cost(partial(self.act, number), self.operations)
            limit = self.limit(number)
            if number or not self.warm:
                yield value, limit, cost


def timed(operations: int, act: Callable[[], object]) -> float:
    """Operations per second."""
    started = time.perf_counter()
    act()
    return operations / (time.perf_counter() - started)
