"""The embedded PostgreSQL and Redis of each inventory: started together, watched, started again when they die."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datamodel import embedded
from datamodel.clusters import EmbeddedError
from harvest.demo.supervisor import Report

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0


class Servers:
    """One pair per directory. They are daemons with records of their own: a killed demo leaves them running, for the next."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._watches: dict[Path, tuple[threading.Thread, threading.Event]] = {}

    def create(self, directories: Sequence[Path]) -> None:
        """Make the databases of these pairs, as far as they are new, at the cost of one. Raises EmbeddedError."""
        embedded.create(directories)

    def start(self, directory: Path) -> None:
        """Start this pair and watch it. Raises EmbeddedError."""
        embedded.start(directory)
        ending = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(directory, ending), daemon=True)
        with self._lock:
            self._watches[directory] = (watcher, ending)
        watcher.start()

    def stop(self, directories: Sequence[Path]) -> None:
        """Stop these pairs together, running or not. Raises EmbeddedError."""
        with self._lock:
            watches = [self._watches.pop(directory) for directory in directories if directory in self._watches]
        for _, ending in watches:
            ending.set()
        for watcher, _ in watches:
            watcher.join()
        with ThreadPoolExecutor(len(directories)) as executor:
            list(executor.map(embedded.stop, directories))

    def _watch(self, directory: Path, ending: threading.Event) -> None:
        name = directory.parent.name
        while not ending.wait(_LOOK_SECONDS):
            if not directory.is_dir():
                # Somebody has removed the data: new servers would be empty ones.
                self._report(f"PostgreSQL and Redis of {name} are watched no more: {directory} is gone")
                return
            try:
                if embedded.status(directory) is None:
                    self._report(f"PostgreSQL or Redis of {name} died; starting it again")
                    embedded.start(directory)
                    self._report(f"PostgreSQL and Redis of {name} run again")
            except EmbeddedError as error:
                self._report(f"PostgreSQL or Redis of {name}: {error}")
                ending.wait(_PATIENCE_SECONDS)
