"""What processes cost: processor seconds of services and databases, and their proportional share of memory, from /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

_TICKS = os.sysconf("SC_CLK_TCK")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor milliseconds of one operation, in our services and in their databases."""

    service_ms: float
    database_ms: float


@dataclass(frozen=True, slots=True)
class _Process:
    name: str
    parent: int
    ticks: int


class Meter:
    """Watches everything that descends from `services`, and the servers of `databases` (pids of postmasters)."""

    def __init__(self, services: list[int], databases: list[int]) -> None:
        self.services = services
        self._databases = databases
        # The most that a process had at any time, in MiB, by its name.
        self.peaks: dict[str, float] = {}

    def cost(self, act: Callable[[], _Result], operations: int) -> tuple[_Result, Cost]:
        """What `act` returns, and what each of its operations cost."""
        before = self._seconds()
        result = act()
        after = self._seconds()
        service, database = (1000 * (late - early) / operations for early, late in zip(before, after, strict=True))
        return result, Cost(service, database)

    @contextmanager
    def sampling(self, seconds: float = 5.0) -> Iterator[None]:
        """Memory is looked at so often."""
        stop = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stop, seconds), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _seconds(self) -> tuple[float, float]:
        known = _processes()
        return _seconds_of(known, self.services), _seconds_of(known, self._databases)

    def _sample(self, stop: threading.Event, seconds: float) -> None:
        while not stop.wait(seconds):
            known = _processes()
            for pid in chain.from_iterable(_descendants(known, root) for root in tuple(self.services)):
                with suppress(OSError):
                    name = known[pid].name
                    self.peaks[name] = max(self.peaks.get(name, 0.0), _share(pid))


def processor_seconds(root: int) -> float:
    """What a process and all that descends from it have taken so far."""
    return _seconds_of(_processes(), [root])


def largest_share(root: int) -> float:
    """MiB of the largest among a process and all that descends from it: its share (PSS)."""
    return max(map(_share, _descendants(_processes(), root)))


def _processes() -> dict[int, _Process]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # It may have ended meanwhile; its parent has its time then.
            with suppress(OSError):
                found[int(entry.name)] = _parsed((entry / "stat").read_text())
    return found


def _seconds_of(known: dict[int, _Process], roots: Iterable[int]) -> float:
    return sum(known[pid].ticks for root in roots for pid in _descendants(known, root)) / _TICKS


def _parsed(stat: str) -> _Process:
    """The name is in parentheses, and may have some; times are its own and those of children that have ended."""
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    return _Process(head.partition("(")[2], int(fields[1]), sum(map(int, fields[11:15])))


def _descendants(known: dict[int, _Process], root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, process in known.items():
        children.setdefault(process.parent, []).append(pid)
    found = [root] if root in known else []
    for pid in found:
        found += children.get(pid, [])
    return found


def _share(pid: int) -> float:
    """MiB, pages that several processes have counted in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
