"""The body of a request as a source of content: read from the server's own stream, counted, and never half for whole.

Django's request stream silently reads a chunked body as empty, so it is not used (house, decision 3).
"""

from __future__ import annotations

import hashlib
import socket
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
_BLOCK = 64 * 1024
_HASHES = {"sha-1": "sha1", "sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class RequestBody:
    """A `ContentSource` over `wsgi.input`.

    Raises `ShortBodyError` when the sender was cut (connection lost, chunk framing broken, fewer bytes than declared) or
    silent for `timeout` seconds, and `ContentTooLargeError` beyond `limit`. An error is final: after it the server's stream
    may pretend a clean end, so it is raised again.
    """

    def __init__(self, environ: Mapping[str, Any], *, length: int | None, limit: int, timeout: float) -> None:
        self._stream: _Stream = environ["wsgi.input"]
        self._socket: socket.socket | None = environ.get("gunicorn.socket")
        self._length = length
        self._limit = limit
        self._timeout = timeout
        self._failure: InventoryError | None = None
        self.received = 0

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
        wanted = size if self._length is None else min(size, self._length - self.received)
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
