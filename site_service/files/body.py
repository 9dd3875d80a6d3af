"""The body of a request as a source of content: read from the server's own stream, counted, and never half for whole.

Django's request stream silently reads a chunked body as empty, so it is not used (house, decision 3).
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import socket
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from gunicorn.http.errors import ParseException

from datamodel.errors import (
    ChecksumMismatchError,
    ContentTooLargeError,
    EmptyContentError,
    InventoryError,
    ShortBodyError,
)
from site_service.storage.contract import ContentSource

_DRAIN_BYTES = 8 * 1024 * 1024
_DRAIN_SECONDS = 2.0
# What is waited for at once, and so the most that a slow sender makes us hold.
_BLOCK = 64 * 1024
# What all senders of this process together may make us hold in larger blocks.
_LARGE_BLOCKS_BYTES = 32 * 1024 * 1024
_HASHES = {"sha-1": "sha1", "sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Budget:
    """Bytes that may be held at a time; whoever gets none does with a small block."""

    def __init__(self, size: int) -> None:
        self._lock = threading.Lock()
        self._left = size

    def take(self, size: int) -> bool:
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._left += size


_budget = Budget(_LARGE_BLOCKS_BYTES)


class RequestBody:
    """A `ContentSource` over `wsgi.input`.

    Raises `ShortBodyError` when the sender was cut (connection lost, chunk framing broken, fewer bytes than declared) or
    silent for `timeout` seconds, and `ContentTooLargeError` beyond `limit`. An error is final: after it the server's stream
    may pretend a clean end, so it is raised again.

    A block may be shorter than asked for: more than 64 KiB are read only if they are there already and the process's budget
    allows it, so that no slow sender fills a large block while we wait.
    """

    def __init__(self, environ: Mapping[str, Any], *, length: int | None, limit: int, timeout: float) -> None:
        self._stream: _Stream = environ["wsgi.input"]
        self._socket: socket.socket | None = environ.get("gunicorn.socket")
        self._length = length
        self._limit = limit
        self._timeout = timeout
        self._failure: InventoryError | None = None
        self._held = 0
        self.received = 0

    def __del__(self) -> None:
        self._let_go()

    def read(self, size: int, /) -> bytes:
        if self._failure is not None:
            raise self._failure
        try:
            return self._read(size)
        except InventoryError as error:
            self._failure = error
            raise

    def discard(self) -> None:
        """Take in what is still being sent, within bounds, so that the sender sees our answer and not a reset connection."""
        if isinstance(self._failure, ShortBodyError):
            return
        self._failure = None
        self._timeout = _DRAIN_SECONDS
        self._limit = self.received + _DRAIN_BYTES
        deadline = time.monotonic() + _DRAIN_SECONDS
        try:
            while time.monotonic() < deadline and self.read(_BLOCK):
                pass
        except InventoryError:
            return

    def _read(self, size: int) -> bytes:
        self._let_go()
        wanted = size if self._length is None else min(size, self._length - self.received)
        wanted = min(wanted, self._at_once(wanted))
        block = self._receive(wanted) if wanted > 0 else b""
        self.received += len(block)
        if self.received > self._limit:
            raise content_too_large(self._limit)
        if wanted and not block and self._length is not None:
            raise ShortBodyError(
                f"the body ended after {self.received} of {self._length} bytes; nothing was stored",
                received=self.received,
            )
        return block

    def _at_once(self, size: int) -> int:
        """How much to ask for: what is there, if there is room for it, and at least a small block."""
        if self._socket is None or size <= _BLOCK:
            return size
        waiting = array.array("i", [0])
        fcntl.ioctl(self._socket, termios.FIONREAD, waiting)
        there = min(size, waiting[0])
        if there <= _BLOCK or not _budget.take(there):
            return _BLOCK
        self._held = there
        return there

    def _let_go(self) -> None:
        """The block before this one is done with."""
        if self._held:
            _budget.give_back(self._held)
            self._held = 0

    def _receive(self, size: int) -> bytes:
        with self._patience():
            try:
                return self._stream.read(size)
            except TimeoutError as error:
                raise ShortBodyError(f"nothing came for {self._timeout:.0f} seconds; nothing was stored") from error
            except (OSError, ParseException) as error:
                raise ShortBodyError(f"the body was cut after {self.received} bytes; nothing was stored") from error

    @contextmanager
    def _patience(self) -> Iterator[None]:
        if self._socket is None:
            yield
            return
        before = self._socket.gettimeout()
        self._socket.settimeout(self._timeout)
        try:
            yield
        finally:
            self._socket.settimeout(before)


class DigestedBody:
    """A source that must have these digests of its own: one segment of a put transaction. Raises at its end."""

    def __init__(self, source: ContentSource, declared: Mapping[str, str]) -> None:
        self._source = source
        self._declared = declared
        self._hashes = {name: hashlib.new(_HASHES.get(name, name), usedforsecurity=False) for name in declared}

    def read(self, size: int, /) -> bytes:
        block = self._source.read(size)
        for running in self._hashes.values():
            running.update(block)
        if not block and size:
            self._verify()
        return block

    def _verify(self) -> None:
        for name, running in self._hashes.items():
            if running.hexdigest() != self._declared[name]:
                raise ChecksumMismatchError(f"the {name} of this body is not the one declared; nothing was stored")


class RefusingEmpty:
    """A source that must not be empty: raises `EmptyContentError` at its end if nothing came."""

    def __init__(self, source: ContentSource, detail: str) -> None:
        self._source = source
        self._detail = detail
        self._is_empty = True

    def read(self, size: int, /) -> bytes:
        block = self._source.read(size)
        if block:
            self._is_empty = False
        elif self._is_empty:
            raise EmptyContentError(self._detail)
        return block


def content_too_large(limit: int) -> ContentTooLargeError:
    """The detail starts with the limit, as OpenCADC clients read it."""
    return ContentTooLargeError(f"{limit} bytes are the most that one file may have here", limit=limit)
