"""Watches the listing of an inventory for what should arrive there, and takes the time it needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from harvest.demo.peer import Digests, Peer, PeerError

_SHORTEST_PAUSE = 0.05
# Looking must not become the load that is measured: listings take at most a third of the time.
_PAUSE_PER_LOOK = 2.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A file that is listed as it was sent; the lag counts from the answer to its PUT until it was seen."""

    uri: str
    size: int
    lag: float


class Arrivals:
    """Looks in a thread of its own for as long as the block lasts."""

    def __init__(self, peer: Peer, namespaces: list[str], stopping: threading.Event) -> None:
        self._peer = peer
        self._namespaces = namespaces
        self._stopping = stopping
        self._changed = threading.Condition()
        self._waiting: dict[str, tuple[Digests, float]] = {}
        self._arrived: list[Arrival] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch-{peer.name}", daemon=True)
        self.last_error = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def expect(self, uri: str, digests: Digests) -> None:
        """From now on wait for this content under this URI, if it is one of the namespaces."""
        if uri.startswith(tuple(self._namespaces)):
            with self._changed:
                self._waiting[uri] = (digests, time.monotonic())

    def missing(self) -> list[str]:
        """What is expected and has not been seen."""
        with self._changed:
            return sorted(self._waiting)

    def wait(self, patience: float) -> Iterator[Arrival]:
        """What has arrived and what arrives, until nothing is missing or nothing has come for `patience` seconds."""
        idle_since = time.monotonic()
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._arrived or not self._waiting, timeout=0.2)
                news, self._arrived = self._arrived, []
                is_complete = not self._waiting
            yield from news
            idle_since = time.monotonic() if news else idle_since
            if is_complete or time.monotonic() - idle_since > patience:
                return

    def _watch(self) -> None:
        while not self._closing.is_set() and not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._look()
            except PeerError as error:
                self.last_error = str(error)
            self._closing.wait(max(_SHORTEST_PAUSE, _PAUSE_PER_LOOK * (time.monotonic() - began)))

    def _look(self) -> None:
        for namespace in self._namespaces:
            if not any(uri.startswith(namespace) for uri in self.missing()):
                continue
            for listed in self._peer.listing(namespace):
                with self._changed:
                    digests, since = self._waiting.get(listed.uri, (None, 0.0))
                    if digests and (listed.checksum, listed.length) == (digests.checksum, digests.length):
                        del self._waiting[listed.uri]
                        self._arrived.append(Arrival(listed.uri, listed.length, time.monotonic() - since))
                        self._changed.notify_all()
