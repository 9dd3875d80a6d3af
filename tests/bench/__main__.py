"""Starts the demo's federation with fsync on and authentication on, measures each figure beside its limit, prints one table."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from datamodel.uris import ArtifactUri
from tests.bench import limits, lists
from tests.bench.load import BenchError, Request, Row, download, rate, upload
from tests.bench.running import FULL, MIB, QUICK, WAIT_SECONDS, Bench, Sizes, federation, raw_peer


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found; `visibility` in milliseconds, `memory` in MiB by process."""

    rows: list[Row]
    visibility: dict[str, float]
    memory: dict[str, float]


def large_files(bench: Bench, peer: str) -> Iterator[Row]:
    """One stream of a large file, in and out."""
    length = bench.sizes.large

    def put(number: int) -> float:
        return (
            upload(bench.alpha, f"/files/bench:large/{number}", bench.headers, length=length, block=bench.block) / MIB
        )

    yield bench.measure(
        f"PUT {length // MIB} MiB, one stream, md5 + sha-256",
        "MiB/s",
        put,
        "md5 on one thread",
        lambda _: limits.md5_alone(length) / MIB,
        operations=1,
    )
    yield bench.measure(
        f"GET {length // MIB} MiB, one stream",
        "MiB/s",
        lambda _: download(bench.alpha, "/files/bench:large/0", bench.headers, length=length) / MIB,
        "sendfile by a raw WSGI app",
        lambda _: download(peer, "/file", {}, length=length) / MIB,
        operations=1,
    )


def streams(bench: Bench) -> Iterator[Row]:
    """Several large files at once: more streams than cores."""
    length, count = bench.sizes.stream, 8

    def put(number: int) -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda n: one(f"/files/bench:streams/{number}-{n}"), range(count)))
        return count * length / MIB / (time.perf_counter() - started)

    def one(path: str) -> float:
        return upload(bench.alpha, path, bench.headers, length=length, block=bench.block)

    yield bench.measure(
        f"PUT {length // MIB} MiB, {count} streams, md5 + sha-256",
        "MiB/s",
        put,
        "both digests on two threads",
        lambda _: limits.both_digests(count * length) / MIB,
        operations=count,
    )


def small_files(bench: Bench, peer: str) -> Iterator[Row]:
    """Files of 4 KiB: durable writes, reads, and looking them up."""
    sizes = bench.sizes
    committer = limits.RowCommitter(bench.database("alpha"), every=1)
    scratch = bench.directory / "limit"

    def put(number: int) -> float:
        requests = [bench.put(f"bench:small/{number}/{n}", bench.small) for n in range(sizes.small_files)]
        return rate(bench.alpha, requests, in_flight=8)

    yield bench.measure(
        "PUT 4 KiB, 8 in flight, durable",
        "files/s",
        put,
        "fsync + rename + commit, 8 threads",
        lambda _: limits.durable_files(scratch, sizes.small_files, threads=8, commit=committer),
        operations=sizes.small_files,
    )
    committer.close()
    reads = [f"bench:small/0/{n % sizes.small_files}" for n in range(sizes.small_reads)]
    for method in ("GET", "HEAD"):
        asked = [Request(method, f"/files/{name}", bench.headers) for name in reads]
        raw = [Request("GET", f"/look-up/{name}", {}) for name in reads]
        yield bench.measure(
            f"{method} 4 KiB, 32 in flight, authorised",
            "requests/s",
            lambda _, asked=asked: rate(bench.alpha, asked, in_flight=32),  # type: ignore[misc]  # bound now, on purpose
            "raw WSGI app, one look-up",
            lambda _, raw=raw: rate(peer, raw, in_flight=32),  # type: ignore[misc]  # bound now, on purpose
            operations=sizes.small_reads,
        )
    yield from negotiation(bench, peer, reads)


def negotiation(bench: Bench, peer: str, names: list[str]) -> Iterator[Row]:
    """Locate, one by one and in bulk; the global must know the files first."""
    bench.await_condition("the global knows the small files", lambda: bench.count("global", _SMALL_KNOWN) > 0)
    ask = {**bench.headers, "Content-Type": "application/json"}
    one = [Request("POST", "/locate", ask, json.dumps({"uri": name, "direction": "get"}).encode()) for name in names]
    raw = [Request("GET", f"/locate/{name}", {}) for name in names]
    yield bench.measure(
        "locate one URI, 32 in flight",
        "requests/s",
        lambda _: rate(bench.hub, one, in_flight=32),
        "raw WSGI app: look-up, 2 signatures, JSON",
        lambda _: rate(peer, raw, in_flight=32),
        operations=len(one),
    )
    uris = (names * 1000)[:1000]
    body = json.dumps({"uris": uris, "direction": "get"}).encode()
    bulk = [Request("POST", "/locate", ask, body)] * bench.sizes.bulk_calls
    raw_bulk = [Request("POST", "/bulk", {}, json.dumps(uris).encode())] * bench.sizes.bulk_calls
    yield bench.measure(
        "bulk locate, 1,000 URIs a call",
        "URIs/s",
        lambda _: 1000 * rate(bench.hub, bulk, in_flight=2),
        "raw WSGI app: one look-up, 1,000 signatures",
        lambda _: 1000 * rate(peer, raw_bulk, in_flight=2),
        operations=1000 * len(bulk),
    )


_SMALL_KNOWN = "SELECT count(*) FROM artifact WHERE uri LIKE 'bench:small/0/%'"


def harvest(bench: Bench) -> Iterator[Row]:
    """Many artifacts that appear at a site at once, until the global has them all."""
    rows = bench.sizes.harvest_rows

    def figure(number: int) -> float:
        prefix = f"bench:rows/{number}-{uuid.uuid4().hex[:8]}/"
        before = bench.count("global", _HARVESTED)
        seed_artifacts(bench.database("alpha"), prefix, rows)
        known = f"SELECT count(*) FROM artifact WHERE uri >= '{prefix}' AND uri < '{prefix}~'"
        # To count them all while they come would cost more than their coming.
        started = time.perf_counter()
        bench.await_condition("some rows at the global", lambda: bench.count("global", _HARVESTED) - before >= rows)
        taken = time.perf_counter() - started
        if bench.count("global", known) != rows:
            raise BenchError("the global does not have all rows")
        return rows / taken

    yield bench.measure(
        f"harvest of {rows:,} new artifacts",
        "rows/s",
        figure,
        "COPY into the same tables and indexes",
        lambda _: limits.copy_into_final_tables(bench.database("global"), rows),
        operations=rows,
    )


_HARVESTED = (
    "SELECT s.rows FROM harvest_state s JOIN remote_inventory r ON r.id = s.remote_id "
    "WHERE r.name = 'alpha' AND s.name = 'artifacts' AND s.selector = ''"
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
    """Small files that the federation has, from the moment that beta wants them to the last durable copy."""
    files = bench.sizes.sync_files
    committer = limits.RowCommitter(bench.database("beta"), every=100)
    everywhere = itertools.count()

    def prepare() -> str:
        prefix = f"bench:sync/{next(everywhere)}-{uuid.uuid4().hex[:8]}/"
        rate(bench.alpha, [bench.put(f"{prefix}{n}", bench.small) for n in range(files)], in_flight=8)
        known = f"SELECT count(*) FROM artifact WHERE uri >= '{prefix}' AND uri < '{prefix}~'"
        bench.await_condition("the global knows them", lambda: bench.count("global", known) == files)
        return prefix

    prefixes = [prepare() for _ in range(bench.sizes.rounds + 1)]

    def figure(number: int) -> float:
        prefix = prefixes[number]
        policy = json.dumps({"namespace": prefix, "wanted": True, "priority": 1}).encode()
        headers = {**bench.headers, "Content-Type": "application/json"}
        started = time.perf_counter()
        rate(bench.beta, [Request("PUT", "/policy", headers, policy)], in_flight=1)
        stored = (
            "SELECT count(*) FROM artifact a JOIN storage_location l ON l.artifact_id = a.id "
            f"WHERE a.uri >= '{prefix}' AND a.uri < '{prefix}~'"
        )
        bench.await_condition(f"{files} copies at beta", lambda: bench.count("beta", stored) == files)
        return files / (time.perf_counter() - started)

    yield bench.measure(
        f"file sync of {files:,} x 4 KiB, wanted to stored",
        "files/s",
        figure,
        "fsync + rename, one commit per 100 files",
        lambda _: limits.durable_files(bench.directory / "limit", files, threads=8, commit=committer),
        operations=files,
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
                if time.perf_counter() - started > WAIT_SECONDS:
                    raise BenchError("a PUT was never visible at the global")
            lags.append(1000 * (time.perf_counter() - started))
    lags.sort()
    return {"p50_ms": lags[len(lags) // 2], "max_ms": lags[-1]}


def run(sizes: Sizes, console: Console) -> Result:
    """All figures, in a directory that is removed afterwards."""
    rows: list[Row] = []
    directory = Path(tempfile.mkdtemp(prefix="inventory-bench-", dir=os.environ.get("INVENTORY_BENCH_DIR")))
    try:
        with federation(directory) as (ready, service):
            bench = Bench(directory, ready, sizes, service)
            with raw_peer(bench) as peer, bench.meter.sampling():
                lag = visibility(bench)
                for row in _all_rows(bench, peer):
                    rows.append(row)
                    console.print(f"{row.name}: {row.figure:,.0f} {row.unit}, {row.ratio:.2f} of {row.limit_name}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return Result(rows, lag, bench.meter.peaks)


def _all_rows(bench: Bench, peer: str) -> Iterator[Row]:
    yield from chain(
        large_files(bench, peer),
        streams(bench),
        small_files(bench, peer),
        lists.validation(bench),
        file_sync(bench),
        harvest(bench),
        lists.many_rows(bench),
    )


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little work, one round: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    result = run(QUICK if arguments.quick else FULL, console)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))  # noqa: T201  # the result
        return
    for table in tables(result):
        Console().print(table)


def tables(result: Result) -> Iterator[Table]:
    """Figures beside their limits; the memory of each process."""
    figures = Table(
        *("figure", "measured", "limit", "limit measured", "ratio", "service", "database"),
        title="Figures beside limits of the same run; processor milliseconds of one operation",
    )
    for row in result.rows:
        measured, limit = f"{row.figure:,.0f} {row.unit}", f"{row.limit:,.0f} {row.unit}"
        costs = f"{row.service_ms:,.3f}", f"{row.database_ms:,.3f}"
        figures.add_row(row.name, measured, row.limit_name, limit, f"{row.ratio:.2f}", *costs)
    lag = result.visibility
    figures.add_row(
        "change visible at the global, idle", f"p50 {lag['p50_ms']:.0f} ms", "", f"max {lag['max_ms']:.0f} ms", ""
    )
    yield figures
    memory = Table("process", "MiB", title="The most memory that a process had (its share, PSS)")
    for name, peak in sorted(result.memory.items()):
        memory.add_row(name, f"{peak:,.0f}")
    yield memory


if __name__ == "__main__":
    main()
