"""What the bench runs: the demo's federation, a raw WSGI server beside it, and what the figures need of both."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from datamodel import embedded
from tests.bench.costs import Meter
from tests.bench.load import PROJECT, BenchError, Request, Row, measure

MIB = 1 << 20
GIB = 1 << 30
WAIT_SECONDS = 300.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work each figure does; smaller with --quick."""

    large: int
    stream: int
    small_files: int
    small_reads: int
    bulk_calls: int
    harvest_rows: int
    sync_files: int
    rounds: int


FULL = Sizes(GIB, 64 * MIB, 2_000, 2_000, 20, 100_000, 1_000, 3)
QUICK = Sizes(64 * MIB, 16 * MIB, 200, 400, 3, 10_000, 200, 1)


class Bench:
    """The running federation and what the figures need of it."""

    def __init__(self, directory: Path, ready: dict[str, str], sizes: Sizes, service: int) -> None:
        self.directory = directory
        self.sizes = sizes
        self.meter = Meter(service, [_postmaster(directory / name) for name in ("global", "alpha", "beta")])
        self.hub, self.alpha, self.beta = ready["global"], ready["alpha"], ready["beta"]
        self.headers = {"Authorization": f"Bearer {ready['token']}"}
        self.block = os.urandom(16 * MIB)
        self.small = os.urandom(4096)

    def database(self, name: str) -> str:
        return embedded.location(self.directory / name / "servers").database_url

    def measure(
        self,
        name: str,
        unit: str,
        figure: Callable[[int], float],
        limit_name: str,
        limit: Callable[[int], float],
        *,
        operations: int,
    ) -> Row:
        """See `load.measure`."""
        return measure(
            name,
            unit,
            figure,
            limit_name,
            limit,
            rounds=self.sizes.rounds,
            operations=operations,
            meter=self.meter,
        )

    def put(self, name: str, body: bytes) -> Request:
        return Request("PUT", f"/files/{name}", self.headers, body, expect=201)

    def await_condition(self, what: str, holds: Callable[[], bool]) -> float:
        """Seconds until `holds()`. Raises `BenchError` after five minutes."""
        started = time.perf_counter()
        while not holds():
            if time.perf_counter() - started > WAIT_SECONDS:
                raise BenchError(f"still not so after {WAIT_SECONDS:.0f} s: {what}")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - started

    def count(self, name: str, query: str) -> int:
        with psycopg.connect(self.database(name), autocommit=True) as connection:
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


@contextmanager
def federation(directory: Path) -> Iterator[tuple[dict[str, str], int]]:
    """`manage.py demo` without files, as shipped, and its pid; stopped at the end."""
    argv = [
        sys.executable,
        "manage.py",
        "demo",
        "--no-ingest",
        "--json",
        "--dir",
        str(directory),
        "--port",
        str(_free_ports()),
    ]
    with subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, stderr=sys.stderr, text=True) as demo:
        try:
            line = demo.stdout.readline() if demo.stdout else ""
            if not line:
                raise BenchError("the demo did not start; see above")
            yield json.loads(line), demo.pid
        finally:
            demo.send_signal(signal.SIGTERM)
            demo.wait(timeout=60)


@contextmanager
def raw_peer(bench: Bench) -> Iterator[str]:
    """The raw WSGI applications, on the product's server with the product's settings."""
    port = _free_ports()
    file = bench.directory / "large"
    with file.open("wb") as target:
        for _ in range(bench.sizes.large // len(bench.block)):
            target.write(bench.block)
    environment = {
        **os.environ,
        "DATABASE_URL": bench.database("alpha"),
        "BENCH_FILE": str(file),
        "INVENTORY_BIND": f"127.0.0.1:{port}",
    }
    argv = [sys.executable, "-m", "gunicorn", "-c", "python:datamodel.webserver", "tests.bench.peer:application"]
    with subprocess.Popen(argv, cwd=PROJECT, env=environment) as server:
        try:
            bench.await_condition("the raw WSGI app listens", lambda: _listens(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _postmaster(service: Path) -> int:
    return int((service / "servers" / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def _free_ports() -> int:
    """The first of three adjacent free ports."""
    for start in range(18700, 19700, 3):
        if not any(_listens(start + offset) for offset in range(3)):
            return start
    raise BenchError("no three adjacent free ports between 18700 and 19700")
