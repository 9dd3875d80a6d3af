"""Starts the demo's federation with fsync on and authentication on, measures each figure beside its limit, prints one table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from datamodel import embedded
from datamodel.uris import ArtifactUri
from tests.bench import limits
from tests.bench.load import BenchError, Request, Row, download, measure, rate, upload

MIB = 1 << 20
GIB = 1 << 30
PROJECT = Path(__file__).resolve().parents[2]
_WAIT_SECONDS = 300.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work each figure does; smaller with --quick."""

    large: int
    small_files: int
    small_reads: int
    bulk_calls: int
    harvest_rows: int
    sync_files: int
    rounds: int


FULL = Sizes(GIB, 2_000, 4_000, 20, 100_000, 2_000, 3)
QUICK = Sizes(64 * MIB, 200, 400, 3, 10_000, 200, 1)


class Bench:
    """The running federation and what the figures need of it."""

    def __init__(self, directory: Path, ready: dict[str, str], sizes: Sizes) -> None:
        self.directory = directory
        self.sizes = sizes
        self.hub, self.alpha, self.beta = ready["global"], ready["alpha"], ready["beta"]
        self.headers = {"Authorization": f"Bearer {ready['token']}"}
        self.block = os.urandom(16 * MIB)
        self.small = os.urandom(4096)

    def database(self, name: str) -> str:
        return embedded.location(self.directory / name / "servers").database_url

    def put(self, name: str, body: bytes) -> Request:
        return Request("PUT", f"/files/{name}", self.headers, body, expect=201)

    def await_condition(self, what: str, holds: Callable[[], bool]) -> float:
        """Seconds until `holds()`. Raises `BenchError` after five minutes."""
        started = time.perf_counter()
        while not holds():
            if time.perf_counter() - started > _WAIT_SECONDS:
                raise BenchError(f"still not so after {_WAIT_SECONDS:.0f} s: {what}")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - started

    def count(self, name: str, query: str) -> int:
        with psycopg.connect(self.database(name), autocommit=True) as connection:
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


def large_files(bench: Bench, peer: str) -> Iterator[Row]:
    """One stream of a large file, in and out."""
    length, rounds = bench.sizes.large, bench.sizes.rounds

    def put(number: int) -> float:
        return (
            upload(bench.alpha, f"/files/bench:large/{number}", bench.headers, length=length, block=bench.block) / MIB
        )

    yield measure(
        f"PUT {length // MIB} MiB, one stream, md5 + sha-256",
        "MiB/s",
        put,
        "md5 on one thread",
        lambda _: limits.md5_alone(length) / MIB,
        rounds=rounds,
    )
    yield measure(
        f"GET {length // MIB} MiB, one stream",
        "MiB/s",
        lambda _: download(bench.alpha, "/files/bench:large/0", bench.headers, length=length) / MIB,
        "sendfile by a raw WSGI app",
        lambda _: download(peer, "/file", {}, length=length) / MIB,
        rounds=rounds,
    )


def small_files(bench: Bench, peer: str) -> Iterator[Row]:
    """Files of 4 KiB: durable writes, reads, and looking them up."""
    sizes = bench.sizes
    committer = limits.RowCommitter(bench.database("alpha"), every=1)
    scratch = bench.directory / "limit"

    def put(number: int) -> float:
        requests = [bench.put(f"bench:small/{number}/{n}", bench.small) for n in range(sizes.small_files)]
        return rate(bench.alpha, requests, in_flight=8)

    yield measure(
        "PUT 4 KiB, 8 in flight, durable",
        "files/s",
        put,
        "fsync + rename + commit, 8 threads",
        lambda _: limits.durable_files(scratch, sizes.small_files, threads=8, commit=committer),
        rounds=sizes.rounds,
    )
    committer.close()
    reads = [f"bench:small/0/{n % sizes.small_files}" for n in range(sizes.small_reads)]
    for method in ("GET", "HEAD"):
        asked = [Request(method, f"/files/{name}", bench.headers) for name in reads]
        raw = [Request("GET", f"/look-up/{name}", {}) for name in reads]
        yield measure(
            f"{method} 4 KiB, 32 in flight, authorised",
            "requests/s",
            lambda _, asked=asked: rate(bench.alpha, asked, in_flight=32),  # type: ignore[misc]  # bound now, on purpose
            "raw WSGI app, one look-up",
            lambda _, raw=raw: rate(peer, raw, in_flight=32),  # type: ignore[misc]  # bound now, on purpose
            rounds=sizes.rounds,
        )
    yield from negotiation(bench, peer, reads)


def negotiation(bench: Bench, peer: str, names: list[str]) -> Iterator[Row]:
    """Locate, one by one and in bulk; the global must know the files first."""
    bench.await_condition("the global knows the small files", lambda: bench.count("global", _SMALL_KNOWN) > 0)
    ask = {**bench.headers, "Content-Type": "application/json"}
    one = [Request("POST", "/locate", ask, json.dumps({"uri": name, "direction": "get"}).encode()) for name in names]
    raw = [Request("GET", f"/locate/{name}", {}) for name in names]
    yield measure(
        "locate one URI, 32 in flight",
        "requests/s",
        lambda _: rate(bench.hub, one, in_flight=32),
        "raw WSGI app: look-up, 2 signatures, JSON",
        lambda _: rate(peer, raw, in_flight=32),
        rounds=bench.sizes.rounds,
    )
    uris = (names * 1000)[:1000]
    body = json.dumps({"uris": uris, "direction": "get"}).encode()
    bulk = [Request("POST", "/locate", ask, body)] * bench.sizes.bulk_calls
    raw_bulk = [Request("POST", "/bulk", {}, json.dumps(uris).encode())] * bench.sizes.bulk_calls
    yield measure(
        "bulk locate, 1,000 URIs a call",
        "URIs/s",
        lambda _: 1000 * rate(bench.hub, bulk, in_flight=2),
        "raw WSGI app: one look-up, 1,000 signatures",
        lambda _: 1000 * rate(peer, raw_bulk, in_flight=2),
        rounds=bench.sizes.rounds,
    )


_SMALL_KNOWN = "SELECT count(*) FROM artifact WHERE uri LIKE 'bench:small/0/%'"


def harvest(bench: Bench) -> Iterator[Row]:
    """Many artifacts that appear at a site at once, until the global has them all."""
    rows = bench.sizes.harvest_rows

    def figure(number: int) -> float:
        prefix = f"bench:rows/{number}-{uuid.uuid4().hex[:8]}/"
        seed_artifacts(bench.database("alpha"), prefix, rows)
        known = f"SELECT count(*) FROM artifact WHERE uri >= '{prefix}' AND uri < '{prefix}~'"
        return rows / bench.await_condition(f"{rows} rows at the global", lambda: bench.count("global", known) == rows)

    yield measure(
        f"harvest of {rows:,} new artifacts",
        "rows/s",
        figure,
        "COPY into the same tables and indexes",
        lambda _: limits.copy_into_final_tables(bench.database("global"), rows),
        rounds=bench.sizes.rounds,
    )


def seed_artifacts(database_url: str, prefix: str, rows: int) -> None:
    """Rows as PUT would have made them; bytes are not needed to be harvested."""
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TEMPORARY TABLE seed (uri text, bucket text) ON COMMIT DROP")
        with connection.cursor().copy("COPY seed FROM STDIN") as copy:
            for number in range(rows):
                uri = ArtifactUri.parse(f"{prefix}{number}")
                copy.write_row((uri.value, uri.bucket))
        connection.execute(_SEED_SQL)
        connection.execute(
            "INSERT INTO storage_location SELECT id, 'bench-' || id, 'bench', inventory_now() FROM artifact "
            "WHERE uri >= %(prefix)s AND uri < %(prefix)s || '~'",
            {"prefix": prefix},
        )
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("NOTIFY inventory_news")


_SEED_SQL = """
    INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified,
        meta_checksum, meta_modified_at, txid)
    SELECT id, uri, bucket, checksum, at, 4096, at,
        artifact_meta_checksum(id, uri, bucket, checksum, at, 4096, NULL, NULL), at, 0
    FROM (SELECT gen_random_uuid() AS id, uri, bucket, 'md5:' || md5(uri) AS checksum, inventory_now() AS at FROM seed) made
"""


def file_sync(bench: Bench) -> Iterator[Row]:
    """Small files that beta wants, from the first news to the last durable copy."""
    files = bench.sizes.sync_files
    committer = limits.RowCommitter(bench.database("beta"), every=100)

    def figure(number: int) -> float:
        prefix = f"demo:kept/bench-{number}-{uuid.uuid4().hex[:8]}/"
        started = time.perf_counter()
        rate(bench.alpha, [bench.put(f"{prefix}{n}", bench.small) for n in range(files)], in_flight=8)
        stored = (
            "SELECT count(*) FROM artifact a JOIN storage_location l ON l.artifact_id = a.id "
            f"WHERE a.uri >= '{prefix}' AND a.uri < '{prefix}~'"
        )
        bench.await_condition(f"{files} copies at beta", lambda: bench.count("beta", stored) == files)
        return files / (time.perf_counter() - started)

    yield measure(
        f"file sync of {files:,} x 4 KiB, PUT at alpha to stored at beta",
        "files/s",
        figure,
        "fsync + rename, one commit per 100 files",
        lambda _: limits.durable_files(bench.directory / "limit", files, threads=8, commit=committer),
        rounds=bench.sizes.rounds,
    )
    committer.close()


def visibility(bench: Bench) -> dict[str, float]:
    """Milliseconds from the answer of a PUT at alpha until the global answers HEAD with 200, on an idle federation."""
    lags = []
    for number in range(20 if bench.sizes is FULL else 5):
        name = f"/files/bench:lag/{uuid.uuid4().hex}"
        rate(bench.alpha, [Request("PUT", name, bench.headers, f"{number}".encode(), expect=201)], in_flight=1)
        query = f"SELECT count(*) FROM artifact WHERE uri = '{name.removeprefix('/files/')}'"
        with psycopg.connect(bench.database("global"), autocommit=True) as connection:
            started = time.perf_counter()
            while connection.execute(query).fetchone() != (1,):
                if time.perf_counter() - started > _WAIT_SECONDS:
                    raise BenchError("a PUT was never visible at the global")
            lags.append(1000 * (time.perf_counter() - started))
    lags.sort()
    return {"p50_ms": lags[len(lags) // 2], "max_ms": lags[-1]}


@contextmanager
def federation(directory: Path) -> Iterator[dict[str, str]]:
    """`manage.py demo` without files, as shipped; stopped at the end."""
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
            yield json.loads(line)
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


def _free_ports() -> int:
    """The first of three adjacent free ports."""
    for start in range(18700, 19700, 3):
        if not any(_listens(start + offset) for offset in range(3)):
            return start
    raise BenchError("no three adjacent free ports between 18700 and 19700")


def run(sizes: Sizes, console: Console) -> tuple[list[Row], dict[str, float]]:
    """All figures, in a directory that is removed afterwards."""
    rows: list[Row] = []
    directory = Path(tempfile.mkdtemp(prefix="inventory-bench-", dir=os.environ.get("INVENTORY_BENCH_DIR")))
    try:
        with federation(directory) as ready:
            bench = Bench(directory, ready, sizes)
            with raw_peer(bench) as peer:
                lag = visibility(bench)
                for row in chain(large_files(bench, peer), small_files(bench, peer), file_sync(bench), harvest(bench)):
                    rows.append(row)
                    console.print(f"{row.name}: {row.figure:,.0f} {row.unit}, {row.ratio:.2f} of {row.limit_name}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return rows, lag


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little work, one round: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    rows, lag = run(QUICK if arguments.quick else FULL, console)
    if arguments.json:
        print(json.dumps({"rows": [dataclasses.asdict(row) for row in rows], "visibility": lag}))  # noqa: T201  # the result
        return
    table = Table(
        "figure", "measured", "limit", "limit measured", "ratio", title="Figures beside limits of the same run"
    )
    for row in rows:
        measured, limit = f"{row.figure:,.0f} {row.unit}", f"{row.limit:,.0f} {row.unit}"
        table.add_row(row.name, measured, row.limit_name, limit, f"{row.ratio:.2f}")
    table.add_row(
        "change visible at the global, idle", f"p50 {lag['p50_ms']:.0f} ms", "", f"max {lag['max_ms']:.0f} ms", ""
    )
    Console().print(table)


if __name__ == "__main__":
    main()
