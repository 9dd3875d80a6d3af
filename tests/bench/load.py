"""A load generator and the arithmetic of rounds. The same client drives a figure and its limit, so its cost cancels out."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tests.bench.costs import Cost, Meter

READ_SIZE = 1 << 20
PROJECT = Path(__file__).resolve().parents[2]


class BenchError(RuntimeError):
    """A request of the bench was not answered as it must be: the figure would be worthless."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `body` is sent with its length; `expect` is the status that counts as success."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None = None
    expect: int = 200


class Session(Protocol):
    """One keep-alive connection of one worker."""

    def send(self, request: Request) -> bytes: ...


class HttpSession:
    """Reads every answer to its end."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self.prefix = parts.path
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)

    def send(self, request: Request) -> bytes:
        self.connection.request(request.method, self.prefix + request.path, body=request.body, headers=request.headers)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != request.expect:
            raise BenchError(f"{request.method} {request.path[:80]}: {response.status} {body[:300]!r}")
        return body

    def close(self) -> None:
        self.connection.close()


def rate(base: str, requests: Sequence[Request], *, in_flight: int) -> float:
    """Requests per second with `in_flight` connections. Raises `BenchError` on the first wrong answer."""
    pending = iter(requests)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        with closing(HttpSession(base)) as session:
            while not failures:
                with lock:
                    request = next(pending, None)
                if request is None:
                    return
                try:
                    session.send(request)
                except (OSError, http.client.HTTPException, BenchError) as error:
                    failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(in_flight)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failures:
        raise failures[0]
    return len(requests) / seconds


def upload(base: str, path: str, headers: dict[str, str], *, length: int, block: bytes) -> float:
    """Bytes per second of one streamed PUT of `length` bytes made of `block`."""
    with closing(HttpSession(base)) as session:
        connection = session.connection
        started = time.perf_counter()
        connection.putrequest("PUT", session.prefix + path)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        for _ in range(length // len(block)):
            connection.send(block)
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

    The milliseconds are of the processor, for one operation, in all services and in all their databases.
    """

    name: str
    unit: str
    figure: float
    limit_name: str
    limit: float
    ratio: float
    service_ms: float
    database_ms: float


def measure(
    name: str,
    unit: str,
    figure: Callable[[int], float],
    limit_name: str,
    limit: Callable[[int], float],
    *,
    rounds: int,
    operations: int,
    meter: Meter,
) -> Row:
    """Figure and limit in turn, so that a machine whose speed drifts drifts for both; the first pair only warms up."""
    found = list(_rounds(figure, limit, rounds, operations, meter))
    return Row(
        name,
        unit,
        statistics.median(value for value, _, _ in found),
        limit_name,
        statistics.median(limit_value for _, limit_value, _ in found),
        statistics.median(value / limit_value for value, limit_value, _ in found),
        statistics.median(cost.service_ms for _, _, cost in found),
        statistics.median(cost.database_ms for _, _, cost in found),
    )


def _rounds(
    figure: Callable[[int], float], limit: Callable[[int], float], rounds: int, operations: int, meter: Meter
) -> Iterator[tuple[float, float, Cost]]:
    for number in range(rounds + 1):
        value, cost = meter.cost(partial(figure, number), operations)
        limit_value = limit(number)
        if number:
            yield value, limit_value, cost


def timed(operations: int, act: Callable[[], object]) -> float:
    """Operations per second."""
    started = time.perf_counter()
    act()
    return operations / (time.perf_counter() - started)
