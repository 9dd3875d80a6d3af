"""The embedded PostgreSQL and Redis of each inventory: started together, watched, started again when they die."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datamodel import embedded
from datamodel.embedded import EmbeddedError
from harvest.demo.supervisor import Report

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0


class Servers:
    """One pair per directory. They are daemons with records of their own: a killed demo leaves them running, for the next."""

    def __init__(self, directories: Iterable[Path], report: Report) -> None:
        self._directories = list(directories)
        self._report = report
        self._ending = threading.Event()
        self._watchers: list[threading.Thread] = []

    def start(self, directory: Path) -> None:
        """Start this pair and watch it. Raises EmbeddedError."""
        embedded.start(directory)
        watcher = threading.Thread(
            target=self._watch, args=(directory,), name=f"watch-{directory.parent.name}", daemon=True
        )
        self._watchers.append(watcher)
        watcher.start()

    def stop(self) -> None:
        """Stop all, running or not. Raises EmbeddedError."""
        self._ending.set()
        for watcher in self._watchers:
            watcher.join()
        with ThreadPoolExecutor(len(self._directories)) as executor:
            list(executor.map(embedded.stop, self._directories))

    def _watch(self, directory: Path) -> None:
        name = directory.parent.name
        while not self._ending.wait(_LOOK_SECONDS):
            try:
                if embedded.status(directory) is None:
                    self._report(f"PostgreSQL or Redis of {name} died; starting it again")
                    embedded.start(directory)
                    self._report(f"PostgreSQL and Redis of {name} run again")
            except EmbeddedError as error:
                self._report(f"PostgreSQL or Redis of {name}: {error}")
                self._ending.wait(_PATIENCE_SECONDS)
