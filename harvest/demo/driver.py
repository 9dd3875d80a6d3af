"""The demo's main job: real files through the whole federation, over HTTP, every step checked."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from datamodel.uris import Namespace
from harvest.demo import sources
from harvest.demo.arrivals import Arrivals
from harvest.demo.board import Board, Step
from harvest.demo.peer import Digests, Peer, PeerError, Stored, same_content
from harvest.demo.sources import Source, Sources

_Item = TypeVar("_Item")

_IN_FLIGHT = 4
_TRIES = 7
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.01
_PROBES = 5
_AGAIN = 10
_FOLDER, _SPECIAL_FOLDER = Path("files"), Path("special")


class StoppedError(Exception):
    """The demo was told to stop before the checks were complete."""


@dataclass(slots=True)
class Sent:
    """A file that alpha has taken."""

    source: Source
    digests: Digests
    stored: Stored


@dataclass(frozen=True, slots=True)
class Route:
    """Whom the files travel through, and which namespaces they are in."""

    alpha: Peer
    beta: Peer
    all_sites: Peer
    kept: str
    later: str
    everything: str


class Driver:
    """One run; `say` takes lines for the person who watches, `stopping` ends the run early.

    What has not come for `patience` seconds does not come.
    """

    def __init__(
        self,
        route: Route,
        board: Board,
        say: Callable[[str], None],
        stopping: threading.Event,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._route = route
        self._board = board
        self._say = say
        self._stopping = stopping
        self._patience = patience
        self._sent: dict[str, Sent] = {}

    def run(self, root: Path, names: Iterable[Path], scratch: Path) -> None:
        """Send the files and follow them. Raises StoppedError, PeerError, DemoError or OSError when it cannot go on; checks
        that fail are on the board.
        """
        found = self._gather(root, names, scratch)
        self._narrow()
        early = self._listed_at_beta(self._route.later)
        with (
            Arrivals(self._route.all_sites, [self._route.kept, self._route.later], self._stopping) as at_global,
            Arrivals(self._route.beta, [self._route.kept], self._stopping) as at_beta,
        ):
            self._put_all(found.files, (at_global, at_beta))
            self._await("known to the global", at_global)
            self._await(f"pulled by beta, whose policy wants {self._route.kept}", at_beta)
        self._read_back("read back through the global", self._route.all_sites, list(self._sent.values()))
        self._put_again(list(self._sent.values())[:_AGAIN])
        self._replace_and_delete()
        self._widen(early)
        self._probe()

    # --- the files

    def _gather(self, root: Path, names: Iterable[Path], scratch: Path) -> Sources:
        kept, later = Namespace.parse(self._route.kept), Namespace.parse(self._route.later)
        with self._board.step("files found") as step:
            scratch.mkdir(exist_ok=True)
            given = sources.gather(root, names, _FOLDER, kept, later)
            special = sources.gather(scratch, sources.make_special(scratch), _SPECIAL_FOLDER, kept, later)
            found = Sources(given.files + special.files, given.left_out + special.left_out)
            step.done = step.total = len(found.files)
            step.size = sum(source.size for source in found.files)
            step.note = f"{len(special.files)} with difficult names; {len(found.left_out)} left out"
        for left_out in found.left_out:
            self._say(f"left out: {left_out}")
        return found

    def _narrow(self) -> None:
        """An earlier run in this directory has left beta wanting everything."""
        self._persist(lambda: self._route.beta.want(self._route.kept))
        self._persist(lambda: self._route.beta.forget(self._route.everything))

    def _put_all(self, files: Sequence[Source], watchers: Sequence[Arrivals]) -> None:
        with self._board.step("PUT to alpha with digests", len(files)) as step:
            self._each(files, lambda source: self._put_one(step, source, watchers))

    def _put_one(self, step: Step, source: Source, watchers: Sequence[Arrivals]) -> None:
        uri = source.uri.value
        try:
            with source.path.open("rb") as file:
                digests = Digests.of(file)
                stored = self._persist(lambda: self._put(uri, file, digests))
        except (PeerError, OSError) as error:
            self._board.failed(step, f"expected {str(source.path)!r} to be stored: {error}")
            return
        self._sent[uri] = Sent(source, digests, stored)
        self._board.passed(step, digests.length)
        for watcher in watchers:
            watcher.expect(uri, digests)

    def _put(self, uri: str, file: BinaryIO, digests: Digests) -> Stored:
        file.seek(0)
        return self._route.alpha.put(uri, file, digests)

    # --- what becomes of them

    def _await(self, title: str, arrivals: Arrivals) -> None:
        with self._board.step(title) as step:
            for arrival in arrivals.wait(self._patience):
                self._board.passed(step, arrival.size)
                step.lags.append(arrival.lag)
            self._look_up()
            for uri in arrivals.missing():
                what = f"expected {uri} within {self._patience:.0f} s of the last arrival {arrivals.last_error}"
                self._board.failed(step, what)

    def _read_back(self, title: str, peer: Peer, sent: Sequence[Sent]) -> None:
        with self._board.step(f"{title}, compared byte for byte", len(sent)) as step:
            self._each(sent, lambda one: self._read_one(step, peer, one))

    def _read_one(self, step: Step, peer: Peer, sent: Sent) -> None:
        uri = sent.source.uri.value
        try:
            same = self._persist(lambda: self._compare(peer, uri, sent.source.path, sent.stored.position))
        except (PeerError, OSError) as error:
            self._board.failed(step, f"expected the content of {uri}: {error}")
            return
        self._board.check(
            step,
            held=same,
            what=f"{uri} at {peer.name} differs from {str(sent.source.path)!r}",
            size=sent.digests.length,
        )

    def _compare(self, peer: Peer, uri: str, path: Path, position: str = "") -> bool:
        with peer.opened(uri, position) as answer, path.open("rb") as file:
            return same_content(answer, file)

    def _put_again(self, some: Sequence[Sent]) -> None:
        with self._board.step("the same content put again changes nothing", len(some)) as step:
            for sent in some:
                stored = self._again(step, sent)
                same = stored is not None and stored.artifact_id == sent.stored.artifact_id
                self._board.check(
                    step, held=same, what=f"expected {sent.source.uri} to keep id {sent.stored.artifact_id}"
                )

    def _again(self, step: Step, sent: Sent) -> Stored | None:
        try:
            with sent.source.path.open("rb") as file:
                return self._persist(lambda: self._put(sent.source.uri.value, file, sent.digests))
        except (PeerError, OSError) as error:
            self._board.failed(step, str(error))
            return None

    # --- changes

    def _replace_and_delete(self) -> None:
        """Two of our own files: one is replaced, one is deleted, and both arrive everywhere."""
        ours = f"{self._route.kept}{_SPECIAL_FOLDER}/"
        two = [sent for uri, sent in sorted(self._sent.items()) if uri.startswith(ours)][:2]
        if len(two) < 2:
            self._board.failures.append(f"nothing could be replaced or deleted: alpha did not take the files of {ours}")
            return
        replaced, deleted = two
        with self._board.step("one file replaced, at alpha, beta and the global") as step:
            self._guarded(step, lambda: self._replace(step, replaced))
        with self._board.step("one file deleted, at alpha, beta and the global") as step:
            self._guarded(step, lambda: self._delete(step, deleted))

    def _replace(self, step: Step, sent: Sent) -> None:
        uri = sent.source.uri.value
        content = b"replaced at %d\n" % time.time_ns()
        digests = Digests.of(io.BytesIO(content))
        stored = self._persist(lambda: self._put(uri, io.BytesIO(content), digests))
        replaced_at = time.monotonic()
        del self._sent[uri]
        self._board.check(step, held=stored.artifact_id != sent.stored.artifact_id, what=f"expected a new id for {uri}")
        # Whoever shows the position of its write must never be answered from the past, not even the first time.
        seen = self._read(self._route.all_sites, uri, stored.position)
        self._board.check(
            step, held=seen == content, what=f"expected the new content of {uri} through the global at once"
        )
        for peer in self._everybody():
            self._expect_content(step, peer, uri, content)
            step.lags.append(time.monotonic() - replaced_at)

    def _expect_content(self, step: Step, peer: Peer, uri: str, content: bytes) -> None:
        checksum = Digests.of(io.BytesIO(content)).checksum
        new = self._until(lambda: self._read(peer, uri) == content)
        self._board.check(step, held=new, what=f"expected the new content of {uri} at {peer.name}", size=len(content))
        listed = self._until(lambda: self._checksum(peer, uri) == checksum)
        self._board.check(step, held=listed, what=f"expected {peer.name} to list {uri} with {checksum}")

    def _delete(self, step: Step, sent: Sent) -> None:
        uri = sent.source.uri.value
        stored = self._persist(lambda: self._route.alpha.delete(uri))
        deleted_at = time.monotonic()
        del self._sent[uri]
        status = self._route.all_sites.status_of(uri, stored.position)
        self._board.check(
            step, held=status == 404, what=f"expected 404 for {uri} at the global at once, found {status}"
        )
        for peer in self._everybody():
            self._expect_nothing(step, peer, uri)
            step.lags.append(time.monotonic() - deleted_at)

    def _expect_nothing(self, step: Step, peer: Peer, uri: str) -> None:
        gone = self._until(lambda: peer.status_of(uri) == 404)
        self._board.check(step, held=gone, what=f"expected 404 for {uri} at {peer.name}")
        unlisted = self._until(lambda: self._checksum(peer, uri) is None)
        self._board.check(step, held=unlisted, what=f"expected {peer.name} to list {uri} no more")

    def _everybody(self) -> tuple[Peer, ...]:
        return self._route.alpha, self._route.beta, self._route.all_sites

    def _widen(self, early: set[str]) -> None:
        """Beta now wants everything: what it has let pass so far must come too, and be the same to the last byte."""
        route = self._route
        past = [sent for uri, sent in self._sent.items() if uri.startswith(route.later)]
        with self._board.step(f"{route.later} is not at beta, which does not want it yet", len(past)) as step:
            here = self._listed_at_beta(route.later)
            for sent in past:
                uri = sent.source.uri.value
                self._board.check(step, held=uri not in here or uri in early, what=f"expected {uri} not to be at beta")
            step.note = f"{len(early)} from an earlier run" if early else ""
        with Arrivals(route.beta, [route.later], self._stopping) as arrivals:
            self._persist(lambda: route.beta.want(route.everything))
            for sent in past:
                arrivals.expect(sent.source.uri.value, sent.digests)
            self._await(f"pulled by beta, whose policy now wants {route.everything}", arrivals)
        self._read_back("the past read from beta", route.beta, past)

    def _probe(self) -> None:
        """Small changes in an idle federation, one after the other: how long until the global knows."""
        uri = f"{self._route.kept}probe/change"
        with self._board.step("a change on an idle machine, known to the global", _PROBES) as step:
            for _ in range(_PROBES):
                self._guarded(step, lambda: self._probe_once(step, uri))

    def _probe_once(self, step: Step, uri: str) -> None:
        content = b"%d\n" % time.time_ns()
        digests = Digests.of(io.BytesIO(content))
        self._persist(lambda: self._put(uri, io.BytesIO(content), digests))
        put_at = time.monotonic()
        known = self._until(lambda: self._checksum(self._route.all_sites, uri) == digests.checksum)
        step.lags.append(time.monotonic() - put_at)
        self._board.check(step, held=known, what=f"expected the global to know {uri} with {digests.checksum}")

    # --- means

    def _read(self, peer: Peer, uri: str, position: str = "") -> bytes:
        with peer.opened(uri, position) as answer:
            return answer.read()

    def _checksum(self, peer: Peer, uri: str) -> str | None:
        found = peer.look_up(uri)
        return found.checksum if found else None

    def _listed_at_beta(self, namespace: str) -> set[str]:
        return {listed.uri for listed in self._persist(lambda: list(self._route.beta.listing(namespace)))}

    def _each(self, items: Sequence[_Item], act: Callable[[_Item], None]) -> None:
        """Several at a time. Raises StoppedError."""

        def unless_stopped(item: _Item) -> None:
            if not self._stopping.is_set():
                act(item)

        with ThreadPoolExecutor(_IN_FLIGHT) as executor:
            list(executor.map(unless_stopped, items))
        self._look_up()

    def _look_up(self) -> None:
        if self._stopping.is_set():
            raise StoppedError

    def _persist(self, ask: Callable[[], _Item]) -> _Item:
        """Ask again what may pass: a service that is restarted, a lost race. Raises PeerError."""
        for attempt in range(_TRIES):
            try:
                return ask()
            except PeerError as error:
                if not error.passes or attempt == _TRIES - 1 or self._stopping.wait(0.2 * 2**attempt):
                    raise
        raise AssertionError

    def _until(self, condition: Callable[[], bool]) -> bool:
        """Look until it holds; False if it does not in time."""
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline and not self._stopping.wait(_LOOK_SECONDS):
            with contextlib.suppress(PeerError):
                if condition():
                    return True
        self._look_up()
        return False

    def _guarded(self, step: Step, act: Callable[[], None]) -> None:
        """A step that breaks is a check that failed. Raises StoppedError."""
        try:
            act()
        except PeerError as error:
            self._look_up()
            self._board.failed(step, str(error))
