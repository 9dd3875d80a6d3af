"""One run of `manage.py demo` from the first lock to the last process."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harvest.demo import sources
from harvest.demo.board import Board
from harvest.demo.chaos import Chaos
from harvest.demo.console import Display
from harvest.demo.driver import Driver, Route, StoppedError
from harvest.demo.federation import (
    ADMIN_USER,
    ALPHA,
    BETA,
    EVERYTHING,
    FREE_BYTES,
    GLOBAL,
    KEPT,
    LATER,
    PROJECT,
    Federation,
    free_bytes,
    usual_inventories,
)
from harvest.demo.peer import Peer, PeerError
from harvest.demo.records import LOCK, DemoError, locked

_FAILURES_SHOWN = 50
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for; `directory` is absolute."""

    directory: Path
    port: int
    files: Path | None
    stop_afterwards: bool
    ingest: bool
    tell_json: bool
    chaos: bool = False


class Demonstration:
    """Set `stopping` (from a signal handler, say) to end it early."""

    def __init__(self, options: Options) -> None:
        self.stopping = threading.Event()
        self._options = options
        self._display = Display(sys.stderr if options.tell_json else sys.stdout)
        self._board = Board()

    def run(self) -> bool:
        """Start, send, wait and stop; whether all was done that was asked for and every check held.

        Raises DemoError, EmbeddedError, TimeoutError or OSError; nothing is left running then either.
        """
        self._refuse_impossible()
        with locked(self._options.directory), self._federation() as federation:
            began = time.monotonic()
            federation.start(self.stopping)
            self._display.say(f"ready in {time.monotonic() - began:.1f} s")
            self._tell(federation)
            all_held = self._show(federation)
            if not self._options.stop_afterwards and not self.stopping.is_set():
                self._display.say("running until Ctrl-C or SIGTERM")
                self._await_end()
        return all_held

    def _await_end(self) -> None:
        while not self.stopping.wait(_LOOK_SECONDS):
            if not (self._options.directory / LOCK).exists():
                raise DemoError(f"{self._options.directory} was removed while the demo ran")

    def _refuse_impossible(self) -> None:
        directory, files = self._options.directory, self._options.files
        if files is not None and not files.is_dir():
            raise DemoError(f"there is no directory {files} to take files from")
        if not directory.parent.is_dir():
            raise DemoError(f"there is no directory {directory.parent} to keep {directory.name} in")
        directory.mkdir(exist_ok=True)
        if (free := free_bytes(directory)) < FREE_BYTES:
            raise DemoError(
                f"the disk of {directory} has {free // 1024**2} MB left and the demo needs {FREE_BYTES // 1024**2} MB: "
                "make room or choose another --dir"
            )

    @contextmanager
    def _federation(self) -> Iterator[Federation]:
        directory = self._options.directory
        federation = Federation(directory, usual_inventories(directory, self._options.port), self._display.say)
        try:
            yield federation
        finally:
            self.stopping.set()
            self._display.say("stopping")
            federation.stop()
            self._display.say("everything has stopped")

    def _show(self, federation: Federation) -> bool:
        """What was asked for, step by step; whether all of it was done and held."""
        if not (self._options.ingest or self._options.chaos):
            return not self.stopping.is_set()
        self._display.show(self._board)
        try:
            if self._options.ingest:
                self._ingest(federation)
            if self._options.chaos:
                Chaos(federation, KEPT, self._board, self._display.say, self.stopping).run()
        except StoppedError:
            self._display.say("stopped before the checks were complete")
            return False
        except PeerError as error:
            self._board.failures.append(str(error))
        finally:
            self._display.close()
        self._conclude()
        return not self._board.failures

    def _ingest(self, federation: Federation) -> None:
        names = (
            sources.files_below(self._options.files, self._options.directory)
            if self._options.files
            else sources.files_tracked(PROJECT, self._options.directory)
        )
        driver = Driver(self._route(federation), self._board, self._display.say, self.stopping)
        driver.run(self._options.files or PROJECT, names, self._options.directory / "scratch")

    def _route(self, federation: Federation) -> Route:
        urls = {inventory.name: inventory.url for inventory in federation.inventories}
        peers = {name: Peer(name, url, federation.secrets.token) for name, url in urls.items()}
        return Route(peers[ALPHA], peers[BETA], peers[GLOBAL], KEPT, LATER, EVERYTHING)

    def _conclude(self) -> None:
        failures, checks = self._board.failures, self._board.checks
        self._display.say(f"{checks} checks, {len(failures)} failed" if failures else f"all {checks} checks held")
        for failure in failures[:_FAILURES_SHOWN]:
            self._display.say(f"  failed: {failure}")
        if len(failures) > _FAILURES_SHOWN:
            self._display.say(f"  … and {len(failures) - _FAILURES_SHOWN} more")

    def _tell(self, federation: Federation) -> None:
        urls = {inventory.name: inventory.url for inventory in federation.inventories}
        known = federation.secrets
        if self._options.tell_json:
            facts = {"token": known.token, "admin_user": ADMIN_USER, "admin_password": known.admin_password}
            sys.stdout.write(json.dumps(urls | facts) + "\n")
            sys.stdout.flush()
        for name, url in urls.items():
            self._display.say(f"{name:7} {url}/   admin {url}/admin/   API docs {url}/docs")
        self._display.say(f"admin user {ADMIN_USER}, password {known.admin_password}")
        alpha = next(inventory for inventory in federation.inventories if inventory.name == ALPHA)
        self._display.say(
            f"commands, here for {ALPHA}: . {shlex.quote(str(alpha.variables))}; {sys.executable} manage.py token list"
        )
