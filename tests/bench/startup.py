"""`make bench-startup`: how long each process of a site and of a global takes from its command to being ready, started by itself.

The inventories are those of the demo, whose own processes are not running; their PostgreSQL and Redis are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3
from rich.console import Console
from rich.table import Table

from datamodel import embedded
from datamodel.processes import wait_until
from tests.bench.costs import largest_share, processor_seconds
from tests.bench.load import PROJECT
from tests.bench.running import FULL, Bench, federation

_PATIENCE_SECONDS = 120.0
_PACKAGES = {"alpha": "site_service", "global": "global_inventory"}
_ALONE = ("--without-mingle", "--without-gossip", "--without-heartbeat")
_LISTENS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'inventory-news'"


@dataclass(frozen=True, slots=True)
class Program:
    """What is run, and how one sees that it is ready: given its log."""

    name: str
    argv: tuple[str, ...]
    is_ready: Callable[[Path], bool]


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds to ready and those of the processor, of all its processes; MiB of its largest (PSS); `is_cold`: files not in memory."""

    name: str
    is_cold: bool
    seconds: float
    processor_seconds: float
    memory: float


def programs(bench: Bench, inventory: str) -> Iterator[Program]:
    """As the README of the project has them."""
    package, url = _PACKAGES[inventory], bench.alpha if inventory == "alpha" else bench.hub
    scripts = str(Path(sys.executable).parent)

    def answers(_: Path) -> bool:
        try:
            return urllib3.request("GET", f"{url}/readyz", retries=False, timeout=10).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    yield Program(f"{inventory}: serve", (sys.executable, "manage.py", "serve"), answers)
    yield Program(
        f"{inventory}: listen",
        (sys.executable, "manage.py", "listen"),
        lambda _: bench.count(inventory, _LISTENS) > 0,
    )
    schedule = str(bench.directory / f"{inventory}-schedule")
    celery = (f"{scripts}/celery", "-A", package, "worker", "-B", *_ALONE, "-s", schedule)
    yield Program(f"{inventory}: celery -B", celery, lambda log: " ready." in log.read_text())
    if inventory == "alpha":
        dramatiq = (f"{scripts}/dramatiq", "site_service.broker", "--processes", "1")
        yield Program(f"{inventory}: dramatiq", dramatiq, lambda log: "ready for action" in log.read_text())


def started(bench: Bench, inventory: str, program: Program, *, is_cold: bool) -> Start:
    """One start; what was started is ended."""
    if is_cold:
        _forget_files()
    log = bench.directory / "startup.log"
    began = time.perf_counter()
    with (
        log.open("wb") as written,
        subprocess.Popen(
            program.argv,
            cwd=PROJECT,
            env=os.environ | bench.variables(inventory),
            stdout=written,
            stderr=written,
            start_new_session=True,
        ) as process,
    ):
        try:
            wait_until(lambda: program.is_ready(log), _PATIENCE_SECONDS, f"{program.name}: {log.read_text()[-2000:]}")
            seconds = time.perf_counter() - began
            return Start(program.name, is_cold, seconds, processor_seconds(process.pid), largest_share(process.pid))
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                _kill_group(process.pid)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _forget_files() -> None:
    """Nothing of our libraries and programs is in memory, as far as nobody else has it open."""
    for root in (Path(sys.prefix), PROJECT):
        for path in root.rglob("*"):
            if path.is_file() and path.suffix in {".pyc", ".py", ".so", ".json", ".txt"}:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def inventories(directory: Path) -> Iterator[Bench]:
    """Alpha and a global that nobody serves."""
    with federation(directory) as (ready, service):
        bench = Bench.of(directory, ready, FULL, service)
    with ExitStack() as stack:
        for name in _PACKAGES:
            servers = directory / name / "servers"
            embedded.start(servers)
            stack.callback(embedded.stop, servers)
        yield bench


def run(rounds: int, kinds: Sequence[bool], console: Console) -> list[Start]:
    """Each start so often, all in turn; kinds: warm, cold."""
    found: dict[tuple[str, bool], list[Start]] = {}
    directory = Path(tempfile.mkdtemp(prefix="inventory-bench-", dir=os.environ.get("INVENTORY_BENCH_DIR")))
    try:
        with inventories(directory) as bench:
            for _ in range(rounds):
                for inventory in _PACKAGES:
                    for program in programs(bench, inventory):
                        for is_cold in kinds:
                            start = started(bench, inventory, program, is_cold=is_cold)
                            console.print(f"{start.name}, {'cold' if is_cold else 'warm'}: {start.seconds:.2f} s")
                            found.setdefault((start.name, is_cold), []).append(start)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return [_median(starts) for starts in found.values()]


def _median(starts: Sequence[Start]) -> Start:
    numbers = ((start.seconds, start.processor_seconds, start.memory) for start in starts)
    return Start(starts[0].name, starts[0].is_cold, *map(statistics.median, zip(*numbers, strict=True)))


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="make bench-startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="starts of each (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="also with files that are not in memory")
    parser.add_argument("--json", action="store_true", help="the result as one JSON list on stdout")
    arguments = parser.parse_args()
    starts = run(arguments.rounds, [False, True] if arguments.cold else [False], Console(stderr=True))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(start) for start in starts]))  # noqa: T201  # the result
        return
    names = ("process", "files", "seconds", "processor seconds", "MiB")
    table = Table(*names, title="From the command to ready, medians; memory of the largest process (PSS)")
    for start in starts:
        is_cold = "cold" if start.is_cold else "warm"
        numbers = f"{start.seconds:.2f}", f"{start.processor_seconds:.2f}", f"{start.memory:.0f}"
        table.add_row(start.name, is_cold, *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
