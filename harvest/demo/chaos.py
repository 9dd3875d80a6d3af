"""`manage.py demo --chaos`: whatever can die dies, whatever can be cut is cut, bits rot; and the federation heals, each time.

After each act it is waited, on conditions, until the invariants hold again: every service is ready; global, alpha and beta list exactly
what was acknowledged; what was touched is read back, byte for byte, from both sites and through the global. How long that took is shown.

One thing is never done: harm to both copies of one file at once. Nobody could mend that; a federation keeps as many copies as it is told to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harvest.demo import groups
from harvest.demo.board import Board, Step
from harvest.demo.driver import StoppedError
from harvest.demo.federation import ALPHA, BETA, GLOBAL, Federation, unreadiness
from harvest.demo.peer import Digests, Listed, Peer, PeerError

_FILES = 12
_HEAL_SECONDS = 180.0
_LOOK_SECONDS = 0.1
_SILENT_SECONDS = 3.0
_KINDS = ("web", "celery", "listen", "dramatiq")
_SERVERS = {"PostgreSQL": Path("postgres/postmaster.pid"), "Redis": Path("redis/redis.pid")}


@dataclass(frozen=True, slots=True)
class Act:
    """One evil deed: its name, what it does (which must itself end), and which files it concerns beside those that are written."""

    title: str
    perform: Callable[[], None]
    concerns: list[str] = field(default_factory=list)


class Chaos:
    """One run over a federation that is ready; what fails is on the board."""

    def __init__(
        self,
        federation: Federation,
        namespace: str,
        board: Board,
        say: Callable[[str], None],
        stopping: threading.Event,
    ) -> None:
        urls = {inventory.name: inventory.url for inventory in federation.inventories}
        self._peers = {name: Peer(name, url, federation.secrets.token) for name, url in urls.items()}
        self._directories = {inventory.name: inventory.directory for inventory in federation.inventories}
        self._federation = federation
        self._namespace = f"{namespace}chaos/{time.time_ns():x}/"
        self._board = board
        self._say = say
        self._stopping = stopping
        self._expected: dict[str, bytes] = {}
        self._number = 0

    def run(self) -> None:
        """All acts, one after the other, each healed before the next. Raises StoppedError."""
        with self._board.step("chaos: files to do harm to, at both sites") as step:
            for number in range(_FILES):
                self._write(f"{self._namespace}{number}")
            self._heal(step, "the first files", list(self._expected))
        for act in self._acts():
            with self._board.step(act.title) as step:
                self._do(step, act)
        with self._board.step("chaos: all files read back from everybody, byte for byte") as step:
            for uri in self._expected:
                self._check_content(step, uri)

    def _acts(self) -> Iterator[Act]:
        for name in (ALPHA, BETA, GLOBAL):
            for kind in _KINDS:
                if f"{name}-{kind}" in self._federation.groups():
                    yield Act(f"kill -9 {name}-{kind}", lambda service=f"{name}-{kind}": self._kill(service))  # type: ignore[misc]  # bound now
            for server, pid_file in _SERVERS.items():
                path = self._directories[name] / "servers" / pid_file
                yield Act(f"kill -9 {server} of {name}", lambda path=path: self._kill_server(path))  # type: ignore[misc]  # bound now
        for name in (ALPHA, GLOBAL):
            yield Act(
                f"{name} is silent for {_SILENT_SECONDS:.0f} s: connections are taken, and nobody answers",
                lambda name=name: self._silence(name),  # type: ignore[misc]  # bound now
            )
        # A file of its own for each site: never both copies of one.
        for name, number in ((ALPHA, 0), (BETA, 1)):
            uri = f"{self._namespace}{number}"
            yield Act(
                f"a bit flips in a file at {name}; scrub is told to look",
                lambda name=name, uri=uri: self._rot(name, uri),  # type: ignore[misc]  # bound now
                [uri],
            )

    # --- acts

    def _do(self, step: Step, act: Act) -> None:
        """The act while somebody writes, then healing."""
        written = self._choose()
        writer = threading.Thread(target=self._change, args=(step, written), daemon=True)
        began = time.monotonic()
        try:
            writer.start()
            act.perform()
        except (OSError, PeerError, ValueError, KeyError) as error:
            self._board.failed(step, f"the act itself: {error!r}")
        finally:
            writer.join()
        self._heal(step, act.title, written + act.concerns, began)

    def _kill(self, service: str) -> None:
        """And all it has started; done when the supervisor has put another in its place."""
        killed = self._federation.groups()[service]
        groups.kill(killed)
        self._until(lambda: self._federation.groups().get(service) != killed, f"{service} was not restarted")

    def _kill_server(self, pid_file: Path) -> None:
        before = pid_file.read_text().split()[0]
        os.kill(int(before), signal.SIGKILL)
        self._until(
            lambda: pid_file.exists() and pid_file.read_text().split()[:1] not in ([], [before]), "not restarted"
        )

    def _silence(self, name: str) -> None:
        """A stopped process still takes connections: worse than one that is gone."""
        stopped = groups.living_members(self._federation.groups()[f"{name}-web"])
        try:
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            self._stopping.wait(_SILENT_SECONDS)
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _rot(self, name: str, uri: str) -> None:
        """One bit on disk; done when the copy was found bad, and so is out of service or already mended."""
        path = self._stored_at(name, uri)
        with path.open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
        self._until(lambda: self._found_bad(name, uri, path), f"scrub of {name} does not find the flipped bit of {uri}")

    def _found_bad(self, name: str, uri: str, path: Path) -> bool:
        self._peers[name].scrub([uri])
        return self._stored_at(name, uri) != path or uri not in self._listing(self._peers[name])

    def _stored_at(self, name: str, uri: str) -> Path:
        """The newest object of this uri in a site's store, by the facts beside it."""
        found: list[tuple[str, Path]] = []
        for facts in (self._directories[name] / "storage" / "objects").rglob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                record = json.loads(facts.read_text().splitlines()[0])
                if record["facts"]["uri"] == uri:
                    found.append((record["written_at"], facts.with_suffix("")))
        if not found:
            raise FileNotFoundError(f"{name} has no object of {uri}")
        return max(found)[1]

    # --- writes, each remembered once it is acknowledged

    def _choose(self) -> list[str]:
        """One file that is replaced and one that is new; those that rot are left alone."""
        self._number += 1
        replaced = f"{self._namespace}{2 + self._number % (_FILES - 2)}"
        return [replaced, f"{self._namespace}new/{self._number}"]

    def _change(self, step: Step, uris: list[str]) -> None:
        try:
            for uri in uris:
                self._write(uri)
        except (PeerError, StoppedError) as error:
            self._board.failed(step, f"alpha takes no write of {uris}: {error}")

    def _write(self, uri: str) -> None:
        """Again until it is acknowledged: a put that was cut is old or new, and the same content put again is the same file."""
        content = b"%s %d " % (uri.encode(), time.time_ns()) + os.urandom(20_000)
        digests = Digests.of(io.BytesIO(content))
        deadline = time.monotonic() + _HEAL_SECONDS
        while True:
            try:
                self._peers[ALPHA].put(uri, io.BytesIO(content), digests)
                self._expected[uri] = content
                return
            except PeerError as error:
                if not error.passes or time.monotonic() > deadline:
                    raise
            if self._stopping.wait(_LOOK_SECONDS):
                raise StoppedError

    # --- healing

    def _heal(self, step: Step, title: str, touched: list[str], began: float | None = None) -> None:
        started = time.monotonic() if began is None else began
        try:
            self._until(lambda: not self._wounds(), "the federation does not heal")
        except TimeoutError as error:
            self._board.failed(step, f"{title}: {error}: {'; '.join(self._wounds())}")
            return
        healed = time.monotonic() - started
        step.lags.append(healed)
        step.note = f"healed after {healed:.1f} s"
        self._board.passed(step)
        for uri in touched:
            self._check_content(step, uri)

    def _wounds(self) -> list[str]:
        """What does not hold yet."""
        found = [f"{name}: {reason}" for name, peer in self._peers.items() if (reason := unreadiness(peer.url))]
        if found:
            return found
        wanted = {uri: Digests.of(io.BytesIO(content)).checksum for uri, content in self._expected.items()}
        try:
            listings = {name: self._listing(peer) for name, peer in self._peers.items()}
        except PeerError as error:
            return [str(error)]
        for name, listing in listings.items():
            if {uri: listed.checksum for uri, listed in listing.items()} != wanted:
                found.append(f"{name} lists something else than what was acknowledged")
        if len({frozenset((uri, listed.artifact_id) for uri, listed in one.items()) for one in listings.values()}) > 1:
            found.append("they do not agree on ids")
        return found

    def _listing(self, peer: Peer) -> dict[str, Listed]:
        return {listed.uri: listed for listed in peer.listing(self._namespace)}

    def _check_content(self, step: Step, uri: str) -> None:
        for peer in self._peers.values():
            try:
                with peer.opened(uri) as answer:
                    held = answer.read() == self._expected[uri]
            except PeerError as error:
                self._board.failed(step, f"{uri} at {peer.name}: {error}")
            else:
                self._board.check(step, held=held, what=f"{uri} at {peer.name} is not what was acknowledged")

    def _until(self, condition: Callable[[], bool], complaint: str) -> None:
        """Raises TimeoutError, StoppedError."""
        deadline = time.monotonic() + _HEAL_SECONDS
        while True:
            with contextlib.suppress(PeerError, OSError):
                if condition():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{complaint} within {_HEAL_SECONDS:.0f} s")
            if self._stopping.wait(_LOOK_SECONDS):
                raise StoppedError
