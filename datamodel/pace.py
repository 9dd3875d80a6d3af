"""Peers that are too slow: how long a request's headers, its body and the reading of its answer may keep a thread.

`Pace` is the rule; `PacedSocket` keeps it on a connection of the web server. Only time spent waiting for the peer counts.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, Self, TypeVar

from prometheus_client import Counter

from datamodel.counters import registry

_BLOCK = 8 * 1024 * 1024
_Result = TypeVar("_Result")
_NO_SENDFILE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK})

slow_peers = Counter(
    "inventory_slow_peers",
    "Connections that were ended because the peer was too slow: with its header, its body, or in taking the answer",
    ["what"],
    registry=registry,
)


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """`head_seconds` for the whole header; `idle_seconds` without a byte; over so long not below `bytes_per_second` (0: any)."""

    head_seconds: float
    idle_seconds: float
    bytes_per_second: int


class Pace:
    """One direction of one connection."""

    def __init__(self, limits: PaceLimits) -> None:
        self._window = limits.idle_seconds
        self._least = limits.bytes_per_second * limits.idle_seconds
        self.restart()

    def restart(self) -> None:
        """What follows has nothing to do with what was."""
        self._waited = 0.0
        self._moved = 0

    def is_kept(self, moved: int, waited: float) -> bool:
        """Whether the peer is fast enough still, after so many more bytes for which was waited so long."""
        self._moved += moved
        self._waited += waited
        if self._waited < self._window:
            return True
        is_enough = self._moved >= self._least
        self.restart()
        return is_enough


class PacedSocket(socket.socket):
    """A connection whose peer has to keep pace. It never blocks for ever: `setblocking(True)` means the idle limit.

    Too slow with a header or an answer, it is reset; too slow with a body, `recv` raises `TimeoutError`, and there can be an answer.
    """

    _limits: PaceLimits
    _away: Callable[[], AbstractContextManager[None]]
    _receiving: Pace
    _sending: Pace
    _head_until: float | None
    _patience: float

    @classmethod
    def taking(
        cls,
        connected: socket.socket,
        limits: PaceLimits,
        away: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Self:
        """In place of `connected`, which is of no use afterwards; each wait for the peer is inside `away`."""
        paced = cls(connected.family, connected.type, connected.proto, connected.detach())
        paced._limits = limits
        paced._away = away
        paced._receiving, paced._sending = Pace(limits), Pace(limits)
        paced._head_until = None
        # It never blocks by itself: who waits does so below, where that is seen.
        socket.socket.setblocking(paced, False)
        paced.setblocking(True)
        return paced

    def expect_head(self) -> None:
        """A new request begins: its header has so long, however it is dripped."""
        self._head_until = time.monotonic() + self._limits.head_seconds
        self._sending.restart()

    def expect_body(self) -> None:
        """The header is there."""
        self._head_until = None
        self._receiving.restart()

    def setblocking(self, flag: bool, /) -> None:  # noqa: FBT001  # as sockets have it
        self._patience = self._limits.idle_seconds if flag else 0.0

    def settimeout(self, value: float | None, /) -> None:
        self._patience = self._limits.idle_seconds if value is None else value

    def gettimeout(self) -> float:
        return self._patience

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        if self._head_until is not None:
            return self._receive_head(self._head_until, bufsize, flags)
        began = time.monotonic()
        block = self._when_ready(select.POLLIN, partial(super().recv, bufsize, flags))
        if not self._receiving.is_kept(len(block), time.monotonic() - began):
            slow_peers.labels("body").inc()
            raise TimeoutError("the body comes too slowly")
        return block

    def _receive_head(self, until: float, bufsize: int, flags: int) -> bytes:
        before = self._patience
        try:
            if before:
                self._patience = max(until - time.monotonic(), 0.001)
            return self._when_ready(select.POLLIN, partial(super().recv, bufsize, flags))
        except TimeoutError:
            raise _too_slow("header") from None
        finally:
            self._patience = before

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self._paced(partial(self._send_some, rest, flags)) :]

    def _send_some(self, data: memoryview, flags: int) -> int:
        return self._when_ready(select.POLLOUT, partial(super().send, data, flags))

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As the standard library's, without copying where the system can; each wait for the reader counts.

        A file that has a method `passed` is told up to where it was sent.
        """
        end = os.fstat(file.fileno()).st_size if count is None else offset + count
        at = offset
        passed: Callable[[int], None] | None = getattr(file, "passed", None)
        while at < end:
            try:
                sent = self._paced(partial(self._send_from, file, at, min(end - at, _BLOCK)))
            except OSError as error:
                if at == offset and error.errno in _NO_SENDFILE:
                    return self._send_copied(file, offset, end)
                raise
            if not sent:
                break
            at += sent
            if passed:
                passed(at)
        return at - offset

    def _send_from(self, file: IO[bytes], at: int, size: int) -> int:
        return self._when_ready(select.POLLOUT, partial(os.sendfile, self.fileno(), file.fileno(), at, size))

    def _send_copied(self, file: IO[bytes], offset: int, end: int) -> int:
        file.seek(offset)
        at = offset
        while at < end and (block := file.read(min(end - at, 256 * 1024))):
            self.sendall(block)
            at += len(block)
        return at - offset

    def _when_ready(self, event: int, call: Callable[[], _Result]) -> _Result:
        """What the call returns once it need not block. Raises `TimeoutError`; `BlockingIOError` if there is no patience at all."""
        while True:
            try:
                return call()
            except BlockingIOError:
                if not self._patience:
                    raise
            poller = select.poll()
            poller.register(self, event)
            with self._away():
                if not poller.poll(self._patience * 1000):
                    raise TimeoutError

    def _paced(self, send: Callable[[], int]) -> int:
        began = time.monotonic()
        try:
            sent = send()
        except TimeoutError:
            raise _too_slow("answer") from None
        if not self._sending.is_kept(sent, time.monotonic() - began):
            raise _too_slow("answer")
        return sent


def _too_slow(what: str) -> ConnectionResetError:
    slow_peers.labels(what).inc()
    return ConnectionResetError(errno.ECONNRESET, f"the peer is too slow: {what}")
