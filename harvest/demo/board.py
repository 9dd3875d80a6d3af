"""What a run has shown so far: steps with counts, bytes, lags and rates, checks that held and checks that failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median


@dataclass(slots=True)
class Step:
    """One thing that the demo shows, as far as it has come."""

    title: str
    total: int = 0
    done: int = 0
    size: int = 0
    failed: int = 0
    lags: list[float] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    note: str = ""

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began if self.began else 0.0

    def count_text(self) -> str:
        return f"{self.done}/{self.total}" if self.total and self.done != self.total else str(self.done)

    def lag_text(self) -> str:
        """Half of them within the first, all within the second."""
        return f"{median(self.lags):.2f} / {max(self.lags):.2f} s" if self.lags else ""

    def rate_text(self) -> str:
        if self.seconds <= 0 or not self.done:
            return ""
        per_second = f"{self.done / self.seconds:.0f}/s"
        return f"{per_second}, {size_text(self.size / self.seconds)}/s" if self.size else per_second


def size_text(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class Board:
    """The steps in order, and the checks; written by the driver's threads, read by the console."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.steps: list[Step] = []
        self.checks = 0
        self.failures: list[str] = []

    @contextmanager
    def step(self, title: str, total: int = 0) -> Iterator[Step]:
        """A step that begins now and ends with the block."""
        step = Step(title, total, began=time.monotonic())
        self.steps.append(step)
        try:
            yield step
        finally:
            step.ended = time.monotonic()

    def passed(self, step: Step, size: int = 0) -> None:
        """A check of this step held; `size` bytes were moved for it."""
        with self._lock:
            self.checks += 1
            step.done += 1
            step.size += size

    def failed(self, step: Step, what: str) -> None:
        """A check of this step did not hold; `what` says what was expected and what was found."""
        with self._lock:
            self.checks += 1
            step.failed += 1
            self.failures.append(f"{step.title}: {what}")

    def check(self, step: Step, *, held: bool, what: str, size: int = 0) -> None:
        if held:
            self.passed(step, size)
        else:
            self.failed(step, what)
