"""Starts the demo's federation with fsync on and authentication on, measures each figure beside its limit, prints one table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import exchange, large, lists, small, visible
from tests.bench.load import Row
from tests.bench.running import FULL, QUICK, Bench, Sizes, federation, raw_peer

# In this order: each leaves rows or files behind, and `harvest` begins with empty tables.
FIGURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "visible": visible.idle,
    "visible-loaded": visible.loaded,
    "put-one-digest": large.put_with_one_digest,
    "put": large.put,
    "streams": large.streams,
    "get": large.get,
    "put-small": small.put,
    "get-small": small.get,
    "head": small.head,
    "locate": small.locate,
    "bulk": small.bulk,
    "sync-large": large.sync,
    "sync": exchange.sync,
    "validate": lists.validation,
    "harvest": exchange.harvest,
    "harvest-known": exchange.harvest_known,
    "feed": lists.feed,
    "listing": lists.listing,
}
_MOST_MEMORY = 200.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found; `memory` in MiB by process."""

    rows: list[Row]
    memory: dict[str, float]


def run(sizes: Sizes, names: Sequence[str], console: Console) -> Result:
    """These figures, in a directory that is removed afterwards."""
    rows: list[Row] = []
    directory = Path(tempfile.mkdtemp(prefix="inventory-bench-", dir=os.environ.get("INVENTORY_BENCH_DIR")))
    try:
        with federation(directory) as (ready, service):
            bench = Bench.of(directory, ready, sizes, service)
            with raw_peer(bench) as peer, bench.meter.sampling():
                bench.peer = peer
                for row in (row for name in names for row in FIGURES[name](bench)):
                    rows.append(row)
                    console.print(f"{row.name}: {row.figure:,.0f} {row.unit}, {row.ratio:.2f} of {row.limit_name}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return Result(sorted(rows, key=lambda row: int(row.work)), bench.meter.peaks)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little work, one round: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
    parser.add_argument(
        "--only", default=",".join(FIGURES), metavar="NAME,…", help="some figures (default: %(default)s)"
    )
    arguments = parser.parse_args()
    asked = set(arguments.only.split(","))
    if unknown := asked - FIGURES.keys():
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; there are {', '.join(FIGURES)}")
    console = Console(stderr=True)
    result = run(QUICK if arguments.quick else FULL, [name for name in FIGURES if name in asked], console)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(result)))  # noqa: T201  # the result
        return
    for table in tables(result):
        Console().print(table)


def tables(result: Result) -> Iterator[Table]:
    """Figures beside their limits; the memory of each process."""
    figures = Table(
        *("#", "figure", "measured", "limit", "limit measured", "ratio", "target", "", "service", "database"),
        title="Figures beside limits of the same run; processor milliseconds of one operation",
    )
    for row in result.rows:
        figures.add_row(
            row.work,
            row.name,
            f"{row.figure:,.0f} {row.unit}",
            row.limit_name,
            f"{row.limit:,.0f} {row.unit}",
            f"{row.ratio:.2f}",
            row.target,
            "met" if row.is_met else "missed",
            f"{row.service_ms:,.3f}",
            f"{row.database_ms:,.3f}",
        )
    yield figures
    memory = Table(*("process", "MiB", "target", ""), title="18: the most memory that a process had (its share, PSS)")
    for name, peak in sorted(result.memory.items()):
        memory.add_row(name, f"{peak:,.0f}", f"≤ {_MOST_MEMORY:.0f}", "met" if peak <= _MOST_MEMORY else "missed")
    yield memory


if __name__ == "__main__":
    main()
