"""`make bench-growth`: what one operation costs with 10⁵, 10⁶ and 10⁷ artifacts: in a good inventory always the same.

The federation of `make bench`; all three inventories are filled with the same artifacts, of which nobody asks for the bytes. Beside
processor milliseconds stand the buffers (8 kB) that the three databases looked at and the rows that they touched, as their own
statistics have them, less what they touch by themselves when nobody asks for anything; what that costs the processor is not taken off.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from tests.bench import costs
from tests.bench.client import Request, rate
from tests.bench.long import _drop_indexes
from tests.bench.running import FULL, QUICK, Bench, Sizes, federation
from tests.bench.seeding import seed_objects, seed_rows
from tests.factories import WHEN

_INVENTORIES = ("global", "alpha", "beta")
_SYNCED = "bench:growth-sync/"
# A backend of PostgreSQL that has nothing to do tells what it has done after ten seconds.
_STATISTICS_SECONDS = 11.0
_PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Work:
    """Something done `operations` times; `prepare` is not counted."""

    name: str
    operations: int
    act: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one operation; `rows` are those that statements read or changed."""

    name: str
    artifacts: int
    service_ms: float
    database_ms: float
    buffers: float
    rows: float


@dataclass(frozen=True, slots=True)
class Result:
    """`memory`: MiB by process, its share (PSS), for each number of artifacts."""

    costs: list[Cost]
    memory: dict[int, dict[str, float]]


def works(bench: Bench) -> Iterator[Work]:
    """What is done often, on files of its own among the many."""
    count, label = bench.sizes.small_reads, uuid.uuid4().hex[:8]
    names = [f"bench:growth/{label}/{number}" for number in range(count)]
    json_headers = {**bench.headers, "Content-Type": "application/json"}

    def each(base: str, method: str, *, expect: int = 200, body: bytes | None = None) -> Callable[[], object]:
        requests = [Request(method, f"/files/{name}", bench.headers, body, expect) for name in names]
        return lambda: rate(base, requests, in_flight=8)

    def locate(uris: Sequence[Sequence[str]]) -> Callable[[], object]:
        documents = [{"uri": some[0]} if len(some) == 1 else {"uris": some} for some in uris]
        bodies = [json.dumps({**document, "direction": "get"}).encode() for document in documents]
        return lambda: rate(bench.hub, [Request("POST", "/locate", json_headers, b) for b in bodies], in_flight=8)

    def pages(path: str) -> Callable[[], object]:
        return lambda: rate(bench.alpha, [Request("GET", path, bench.headers)] * bench.sizes.bulk_calls, in_flight=1)

    def known(artifacts: int) -> None:
        bench.await_condition(
            "the global knows them", lambda: bench.known("global", f"bench:growth/{label}/") == artifacts
        )

    yield Work("PUT 4 KiB", count, each(bench.alpha, "PUT", expect=201, body=bench.small))
    yield Work("HEAD", count, each(bench.alpha, "HEAD"), lambda: known(count))
    yield Work("GET 4 KiB", count, each(bench.alpha, "GET"))
    yield Work("locate", count, locate([[name] for name in names]))
    yield Work("bulk locate, a URI", count, locate([names[n : n + 1000] for n in range(0, count, 1000)]))
    yield Work("PUT that replaces", count, each(bench.alpha, "PUT", expect=201, body=bench.small[::-1]))
    yield Work("DELETE", count, each(bench.alpha, "DELETE", expect=204))
    yield Work(
        f"page of the feed, {_PAGE_ROWS:,}", bench.sizes.bulk_calls, pages(f"/harvest/artifacts?limit={_PAGE_ROWS}")
    )
    listing = f"/artifacts?namespace=bench:many/&after=bench:many/5&limit={_PAGE_ROWS}"
    yield Work(f"page of a listing, {_PAGE_ROWS:,}", bench.sizes.bulk_calls, pages(listing))
    yield Work("metrics of a site", bench.sizes.bulk_calls, pages("/metrics"))
    yield _harvest(bench, label)
    yield _sync(bench, label)


def _harvest(bench: Bench, label: str) -> Work:
    prefix, count = f"bench:growth-rows/{label}/", 5 * bench.sizes.small_reads
    return _seeded(
        "harvest of a new row",
        count,
        lambda: seed_rows(bench.database("alpha"), prefix, count),
        lambda: bench.await_condition("the rows at the global", lambda: bench.known("global", prefix) == count),
    )


def _sync(bench: Bench, label: str) -> Work:
    prefix, count = f"{_SYNCED}{label}/", bench.sizes.small_files
    return _seeded(
        "file sync of 4 KiB, from alpha's row on",
        count,
        lambda: seed_objects(bench.database("alpha"), bench.objects, prefix, count=count, length=4096),
        lambda: bench.await_condition("the copies at beta", lambda: bench.stored_at_beta(prefix) == count),
    )


def _seeded(name: str, count: int, seed: Callable[[], Callable[[], None]], wait: Callable[[], object]) -> Work:
    """What happens with rows once they are let go, whose making is not counted."""
    waiting: list[Callable[[], None]] = []

    def act() -> None:
        waiting.pop()()
        wait()

    return Work(name, count, act, lambda: waiting.append(seed()))


def fill(bench: Bench, above: int, count: int) -> None:
    """The same artifacts everywhere, beyond those that are there already; no news of them, for all know them."""
    sites = [_identity(bench, name) for name in ("alpha", "beta")]
    with ThreadPoolExecutor(len(_INVENTORIES)) as pool:
        list(pool.map(lambda name: _fill(bench.database(name), name, above, count, sites), _INVENTORIES))


def _fill(database_url: str, name: str, above: int, count: int, sites: list[str]) -> None:
    """In one transaction, so that the services only wait; without triggers, and without indexes until the end."""
    values = {"above": above, "count": count, "when": WHEN, "sites": sites}
    with psycopg.connect(database_url, autocommit=True) as connection:
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute("LOCK TABLE artifact, storage_location, site_location IN ACCESS EXCLUSIVE MODE")
            again = _drop_indexes(connection)
            for statement in (_ARTIFACTS, *((_HELD,) if name == "global" else (_STORED, _VERIFIED))):
                connection.execute(statement, values)
            for statement in again:
                connection.execute(statement)
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


_MANY = "(SELECT n, 'bench:many/' || n AS uri FROM generate_series(%(above)s::int, %(count)s::int - 1) n) m"
_ARTIFACTS = f"""
    INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified,
        meta_checksum, meta_modified_at, txid)
    SELECT md5(uri)::uuid, uri, left(md5(uri), 5), 'md5:' || md5(uri), %(when)s, 7, %(when)s,
        artifact_meta_checksum(md5(uri)::uuid, uri, left(md5(uri), 5), 'md5:' || md5(uri), %(when)s, 7, NULL, NULL),
        %(when)s, 1
    FROM {_MANY}
"""
_STORED = (
    f"INSERT INTO storage_location SELECT md5(uri)::uuid, md5(uri), left(md5(uri), 3), inventory_now() FROM {_MANY}"
)
# Not to be read back before the bench is over.
_VERIFIED = f"""
    INSERT INTO copy_verification (artifact_id, storage_id, storage_bucket, content_length, namespace, verified_at, next_at,
        result, failures)
    SELECT md5(uri)::uuid, md5(uri), left(md5(uri), 3), 7, '', inventory_now(), inventory_now() + interval '60 days' +
        n * interval '1 second', 'written', 0
    FROM {_MANY}
"""
_HELD = (
    "INSERT INTO site_location (artifact_id, site_id) "
    f"SELECT md5(uri)::uuid, site FROM {_MANY}, unnest(%(sites)s::uuid[]) site"
)


def settle(bench: Bench) -> None:
    """Until both sites have looked through what they have for the first time: what is filled in later they must not look for."""
    # Before there is much: a changed policy has everything judged anew.
    bench.let_beta_want(_SYNCED)
    rate(bench.alpha, [bench.put(f"{_SYNCED}first", bench.small)], in_flight=1)
    for name in ("alpha", "beta"):
        bench.await_condition(f"{name} knows its copies and is validated", partial(_is_settled, bench, name))


def _is_settled(bench: Bench, name: str) -> bool:
    noted = bench.count(name, "SELECT count(*) FROM copy_verification")
    return noted > 0 and bench.count(name, "SELECT count(*) FROM validation_run WHERE state = 'complete'") > 0


def _identity(bench: Bench, name: str) -> str:
    with psycopg.connect(bench.database(name)) as connection:
        row = connection.execute("SELECT inventory_id::text FROM inventory_identity").fetchone()
    return str(row[0]) if row else ""


class Counters:
    """Buffers and rows of the three databases, less what they touch by themselves in the same time."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        buffers, rows, seconds = self._during(lambda: time.sleep(_STATISTICS_SECONDS))
        self._idle_buffers, self._idle_rows = buffers / seconds, rows / seconds

    def cost(self, work: Work, artifacts: int) -> Cost:
        """Of one operation."""
        work.prepare()
        time.sleep(_STATISTICS_SECONDS)
        found: list[costs.Cost] = []
        buffers, rows, seconds = self._during(
            lambda: found.append(self._bench.meter.cost(work.act, work.operations)[1])
        )
        buffers, rows = buffers - self._idle_buffers * seconds, rows - self._idle_rows * seconds
        service_ms, database_ms = found[0].service_ms, found[0].database_ms
        touched = (max(buffers, 0) / work.operations, max(rows, 0) / work.operations)
        return Cost(work.name, artifacts, service_ms, database_ms, *touched)

    def _during(self, act: Callable[[], object]) -> tuple[float, float, float]:
        """Buffers, rows, seconds. The statistics of the databases are read when everybody has told them."""
        started, before = time.perf_counter(), _statistics(self._bench)
        act()
        time.sleep(_STATISTICS_SECONDS)
        after = _statistics(self._bench)
        return after[0] - before[0], after[1] - before[1], time.perf_counter() - started


def _statistics(bench: Bench) -> tuple[int, int]:
    """Buffers and rows since the beginning, in all three databases."""
    sums = [
        bench.count(name, f"SELECT {text} FROM pg_stat_database WHERE datname = current_database()")
        for text in (
            "blks_hit + blks_read",
            "tup_fetched + tup_returned + tup_inserted + tup_updated + tup_deleted",
        )
        for name in _INVENTORIES
    ]
    return sum(sums[:3]), sum(sums[3:])


def run(sizes: Sizes, steps: Sequence[int], console: Console) -> Result:
    """At each number of artifacts everything once, in a directory that is removed afterwards."""
    found: list[Cost] = []
    memory: dict[int, dict[str, float]] = {}
    directory = Path(tempfile.mkdtemp(prefix="inventory-bench-", dir=os.environ.get("INVENTORY_BENCH_DIR")))
    try:
        with federation(directory) as (ready, service):
            bench = Bench.of(directory, ready, sizes, service)
            settle(bench)
            with bench.meter.sampling():
                for above, artifacts in zip((0, *steps), steps, strict=False):
                    started = time.perf_counter()
                    fill(bench, above, artifacts)
                    console.print(f"{artifacts:,} artifacts each: {time.perf_counter() - started:,.0f} s")
                    bench.meter.peaks.clear()
                    counters = Counters(bench)
                    for work in works(bench):
                        found.append(counters.cost(work, artifacts))
                        console.print(_cell(found[-1]), work.name)
                    memory[artifacts] = dict(bench.meter.peaks)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return Result(found, memory)


def _cell(cost: Cost) -> str:
    return f"{cost.service_ms:,.2f} + {cost.database_ms:,.2f} ms, {cost.buffers:,.0f} buffers, {cost.rows:,.0f} rows"


def tables(result: Result) -> Iterator[Table]:
    """One line for each work, one for each process; a column for each number of artifacts."""
    steps = list(result.memory)
    table = Table(
        "one operation", *(f"{step:,} artifacts" for step in steps), title="Processor time of services + databases"
    )
    for name in dict.fromkeys(cost.name for cost in result.costs):
        table.add_row(name, *(_cell(cost) for cost in result.costs if cost.name == name))
    yield table
    memory = Table("process", *(f"{step:,} artifacts" for step in steps), title="The most memory, MiB (its share, PSS)")
    for name in sorted({name for peaks in result.memory.values() for name in peaks}):
        memory.add_row(name, *(f"{peaks.get(name, 0):,.0f}" for peaks in result.memory.values()))
    yield memory


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="make bench-growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10³ and 10⁴ artifacts: only to see that it runs")
    parser.add_argument("--rows", type=int, nargs="+", help="numbers of artifacts, growing")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
    arguments = parser.parse_args()
    steps = arguments.rows or ([10**3, 10**4] if arguments.quick else [10**5, 10**6, 10**7])
    result = run(QUICK if arguments.quick else FULL, steps, Console(stderr=True))
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))  # noqa: T201  # the result
        return
    for table in tables(result):
        Console().print(table)


if __name__ == "__main__":
    main()
