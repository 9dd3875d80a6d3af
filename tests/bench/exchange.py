"""Rows from a site to its global, new and known; many small files from site to site."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.bench import limits
from tests.bench.client import ask
from tests.bench.load import Figure, Row
from tests.bench.running import Bench
from tests.bench.seeding import seed_objects, seed_rows

ROWS = "bench:rows/"
_STREAM = (
    "FROM harvest_state s JOIN remote_inventory r ON r.id = s.remote_id "
    "WHERE r.name = 'alpha' AND s.name = 'artifacts' AND s.selector = ''"
)
_HARVESTED = f"SELECT s.rows {_STREAM}"
_HARVESTED_TO_THE_END = f"{_HARVESTED} AND s.is_complete"
# Of seeded rows: scrub finds that they are without bytes, and takes some back meanwhile.
AT_LEAST = 0.99
# What "Harvest the selected streams from the start" of the admin does.
_REWIND = (
    "UPDATE harvest_state SET epoch = '', cur_txid = 0, cur_id = '00000000-0000-0000-0000-000000000000', is_complete = false "
    "WHERE remote_id = (SELECT id FROM remote_inventory WHERE name = 'alpha')"
)


def harvest(bench: Bench) -> Iterator[Row]:
    """Into a global that knows nothing: what was there is gone before each round."""
    rows = bench.sizes.rows
    tables = limits.FinalTables(bench.database("global"), rows)
    seeded = _Seeded(bench)
    figure = Figure(
        "9",
        f"harvest of {rows:,} new artifacts",
        "rows/s",
        lambda _: rows / seeded.let_go(),
        "COPY into the same tables and indexes, verified",
        lambda _: tables.copy_in(),
        0.75,
        operations=rows,
        rounds=bench.sizes.heavy_rounds,
        warm=False,
        prepare=lambda _: seeded.prepare(),
    )
    yield bench.measure(figure)
    tables.drop()


def harvest_known(bench: Bench) -> Iterator[Row]:
    """The same rows once more, from the start of the feed."""
    seed_once(bench)
    rows = bench.sizes.rows
    tables = limits.FinalTables(bench.database("global"), rows)
    tables.copy_in()

    def act(number: int) -> float:
        before = bench.count("global", _HARVESTED)
        bench.execute("global", _REWIND)
        started = time.perf_counter()
        # Any news lets the global look.
        ask(bench.alpha, bench.put(f"bench:again/{number}", bench.small))
        bench.await_condition(
            "all rows again", lambda: bench.count("global", _HARVESTED_TO_THE_END) - before >= AT_LEAST * rows
        )
        return rows / (time.perf_counter() - started)

    figure = Figure(
        "10",
        f"harvest of {rows:,} unchanged artifacts",
        "rows/s",
        act,
        "COPY to staging, verified, merged",
        lambda _: tables.copy_in_again(),
        0.75,
        operations=rows,
        rounds=bench.sizes.heavy_rounds,
    )
    yield bench.measure(figure)
    tables.drop()


def seed_once(bench: Bench) -> None:
    """So many rows at alpha, and at the global, if `harvest` has not left them there."""
    if ROWS not in bench.made:
        seeded = _Seeded(bench)
        seeded.prepare()
        seeded.let_go()


@dataclass
class _Seeded:
    """Many rows at alpha that nobody sees before they are let go."""

    bench: Bench
    commit: Callable[[], None] = lambda: None
    before: int = 0

    def prepare(self) -> None:
        bench = self.bench
        bench.execute("alpha", "TRUNCATE artifact CASCADE")
        bench.execute("global", "TRUNCATE artifact, site_location CASCADE")
        bench.made.clear()
        self.commit = seed_rows(bench.database("alpha"), ROWS, bench.sizes.rows)
        self.before = bench.count("global", _HARVESTED)

    def let_go(self) -> float:
        """Seconds until the global has them all."""
        bench, rows = self.bench, self.bench.sizes.rows
        started = time.perf_counter()
        self.commit()
        # To count them all while they come would cost more than their coming.
        bench.await_condition("the rows' harvest", lambda: bench.count("global", _HARVESTED) - self.before >= rows)
        taken = time.perf_counter() - started
        bench.await_condition("the rows at the global", lambda: bench.known("global", ROWS) == rows)
        bench.made.add(ROWS)
        return taken


def sync(bench: Bench) -> Iterator[Row]:
    """Small files that the federation has, from the moment that beta wants them to the last durable copy."""
    files = bench.sizes.sync_files
    committer = limits.RowCommitter(bench.database("beta"), every=100)
    prefixes = [f"bench:sync/{uuid.uuid4().hex[:8]}/" for _ in range(bench.sizes.heavy_rounds)]

    def prepare(number: int) -> None:
        prefix = prefixes[number]
        seed_objects(bench.database("alpha"), bench.objects, prefix, count=files, length=4096)()
        bench.await_condition("the global knows them", lambda: bench.known("global", prefix) == files)

    def act(number: int) -> float:
        started = time.perf_counter()
        bench.let_beta_want(prefixes[number])
        bench.await_condition(f"{files} copies at beta", lambda: bench.stored_at_beta(prefixes[number]) == files)
        return files / (time.perf_counter() - started)

    figure = Figure(
        "13",
        f"file sync of {files:,} x 4 KiB, wanted to stored",
        "files/s",
        act,
        "fsync + rename, one commit per 100 files",
        lambda _: limits.durable_files(bench.directory / "limit", files, threads=8, commit=committer),
        0.45,
        operations=files,
        rounds=bench.sizes.heavy_rounds,
        warm=False,
        prepare=prepare,
    )
    yield bench.measure(figure)
    committer.close()
