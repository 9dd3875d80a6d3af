"""What is better left alone for a while, as far as this process knows."""

from __future__ import annotations

import threading
import time


class Shunned:
    """Names that failed within the last so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def add(self, name: str) -> None:
        now = time.monotonic()
        with self._lock:
            self._until = {known: until for known, until in self._until.items() if until > now}
            self._until[name] = now + self._seconds

    def names(self) -> set[str]:
        now = time.monotonic()
        with self._lock:
            return {name for name, until in self._until.items() if until > now}
