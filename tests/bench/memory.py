"""`make bench-memory`: the most memory that each process has while small files, and one of 10 GiB, are put, read and synced.

The federation of `make bench`; the client streams, and is not measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.load import download, upload
from tests.bench.running import FULL, GIB, MIB, Bench, federation

_KIB = 1 << 10
_SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Files:
    """`count` files of `length` bytes each."""

    count: int
    length: int

    def __str__(self) -> str:
        sizes = ((GIB, "GiB"), (MIB, "MiB"), (_KIB, "KiB"))
        unit, name = next((size, name) for size, name in sizes if self.length >= size)
        return f"{self.count:,} x {self.length // unit:,} {name}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found of some files: MiB by process, and how long what was done with them took."""

    files: str
    memory: dict[str, float]
    seconds: dict[str, float]


def works(bench: Bench, files: Files) -> Iterator[tuple[str, Callable[[], object]]]:
    """From alpha's door to the last durable copy at beta."""
    prefix = f"bench:memory-{files.length}/"
    paths = [f"/files/{prefix}{number}" for number in range(files.count)]
    length = files.length

    def sync() -> None:
        bench.let_beta_want(prefix)
        bench.await_condition("the copies at beta", lambda: bench.stored_at_beta(prefix) == files.count)

    yield "PUT", lambda: [upload(bench.alpha, path, bench.headers, length=length, block=bench.block) for path in paths]
    yield "GET", lambda: [download(bench.alpha, path, bench.headers, length=length) for path in paths]
    yield "file sync", sync
    yield "GET at beta", lambda: [download(bench.beta, path, bench.headers, length=length) for path in paths]


def run(asked: Sequence[Files], console: Console) -> list[Result]:
    """One after the other, in a directory that is removed afterwards."""
    found = []
    directory = Path(tempfile.mkdtemp(prefix="inventory-bench-", dir=os.environ.get("INVENTORY_BENCH_DIR")))
    try:
        with federation(directory) as (ready, service):
            bench = Bench.of(directory, ready, FULL, service)
            with bench.meter.sampling(_SAMPLE_SECONDS):
                for files in asked:
                    bench.meter.peaks.clear()
                    seconds = {}
                    for name, act in works(bench, files):
                        started = time.perf_counter()
                        act()
                        seconds[name] = time.perf_counter() - started
                        console.print(f"{files}, {name}: {seconds[name]:,.1f} s")
                    found.append(Result(str(files), dict(bench.meter.peaks), seconds))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return found


def table(results: Sequence[Result]) -> Table:
    """A line for each process."""
    found = Table(*("process", *(result.files for result in results)), title="The most memory, MiB (its share, PSS)")
    for name in sorted({name for result in results for name in result.memory}):
        found.add_row(name, *(f"{result.memory.get(name, 0):,.0f}" for result in results))
    return found


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="make bench-memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 MiB as the large file: only to see that it runs")
    parser.add_argument("--gib", type=int, default=10, help="how large the large file is (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the result as one JSON list on stdout")
    arguments = parser.parse_args()
    large = Files(1, 64 * MIB if arguments.quick else arguments.gib * GIB)
    results = run([Files(200, _KIB), large], Console(stderr=True))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(result) for result in results]))  # noqa: T201  # the result
        return
    Console().print(table(results))


if __name__ == "__main__":
    main()
