"""One artifact's bytes from several sources: ranged, resumed at the same offset elsewhere, never appended wrongly.

Every answer is held against the artifact before its first byte is used: status, range, total length, digest headers and
artifact id. Redirects are not followed. The digests of the bytes are the store's to verify.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import SplitResult, urlsplit

import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.response import BaseHTTPResponse

from datamodel import outbound
from datamodel.checksums import Checksum, parse_digest_header, parse_structured_digests
from datamodel.errors import (
    InvalidChecksumError,
    RemoteError,
    RemoteProtocolError,
    RemoteRefusedError,
    RemoteUnavailableError,
)
from datamodel.logs import mask_tokens
from site_service.file_sync.rules import Source, Wanted

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)\Z")
_DISCARD_BLOCK = 1024 * 1024
# Pauses before all sources that failed are asked again, for a download that has already brought something: a site that
# restarts must not cost the first hundred gigabytes.
_PAUSES = (1.0, 4.0, 10.0)
_PROGRESS = 16 * 1024 * 1024
_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a source may be silent, and how slow it may be on average over a window, before the next one is tried."""

    connect_seconds: float
    read_seconds: float
    min_bytes_per_second: int
    window_seconds: float = 30.0

    @classmethod
    def configured(cls) -> Self:
        return cls(
            connect_seconds=min(10.0, settings.INVENTORY_REMOTE_TIMEOUT_SECONDS),
            read_seconds=settings.INVENTORY_SYNC_READ_TIMEOUT_SECONDS,
            min_bytes_per_second=settings.INVENTORY_SYNC_MIN_BYTES_PER_SECOND,
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A source that did not deliver, and why."""

    source: Source
    error: RemoteError


class Download:
    """A `ContentSource` (see the storage contract) over ranked sources.

    `read` raises the error of the last source when none is left: `RemoteUnavailableError` when some may work later, else
    `RemoteRefusedError` or `RemoteProtocolError`. `contributors` are the sources whose bytes were taken.
    """

    def __init__(
        self,
        wanted: Wanted,
        sources: Sequence[Source],
        limits: Limits,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wanted = wanted
        self._limits = limits
        self._sleep = sleep
        self._left = list(sources)
        self._again: list[Source] = []
        self._pauses = iter(_PAUSES)
        self._paused_at = 0
        self._stream: Stream | None = None
        self.offset = 0
        self.contributors: list[Source] = []
        self.failures: list[Failure] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @property
    def tried(self) -> list[str]:
        """The sites that were asked, in order."""
        names = [failure.source.site for failure in self.failures]
        return [*names, *([self._stream.source.site] if self._stream else [])]

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" once all bytes of the artifact have come."""
        missing = self._wanted.content_length - self.offset
        while missing:
            stream = self._stream or self._next_stream()
            try:
                block = stream.read(min(size, missing))
            except RemoteError as error:
                self._fail(stream.source, error)
                continue
            if self.contributors[-1:] != [stream.source]:
                self.contributors.append(stream.source)
            self.offset += len(block)
            return block
        return b""

    def _next_stream(self) -> Stream:
        while True:
            source = self._next_source()
            try:
                self._stream = Stream.open(source, self._wanted, self.offset, self._limits)
            except RemoteError as error:
                self._fail(source, error)
            else:
                return self._stream

    def _next_source(self) -> Source:
        if not self._left:
            pause = self._pause() if self.offset and self._again else None
            if pause is None:
                raise self._verdict()
            self._sleep(pause)
            self._left, self._again = self._again, []
        return self._left.pop(0)

    def _pause(self) -> float | None:
        if self.offset - self._paused_at >= _PROGRESS:
            self._pauses = iter(_PAUSES)
        self._paused_at = self.offset
        return next(self._pauses, None)

    def _fail(self, source: Source, error: RemoteError) -> None:
        self._close()
        self.failures.append(Failure(source, error))
        if error.retryable:
            self._again.append(source)

    def _verdict(self) -> RemoteError:
        """The most hopeful failure stands for all."""
        if not self.failures:
            return RemoteUnavailableError(f"no source for {self._wanted.uri}")
        hopeful = [failure.error for failure in self.failures if failure.error.retryable]
        return hopeful[-1] if hopeful else self.failures[-1].error

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class Stream:
    """The body of one answer of one source, from the byte that was asked for; it is read as fast as `limits` ask, or given up."""

    def __init__(self, source: Source, response: BaseHTTPResponse, limits: Limits) -> None:
        self.source = source
        self._response = response
        self._limits = limits
        self._waited = 0.0
        self._arrived = 0

    @classmethod
    def open(cls, source: Source, wanted: Wanted, offset: int, limits: Limits) -> Self:
        """Ask for everything from `offset`. Raises `RemoteError` when the answer is not that of the artifact."""
        response = _get(source, offset, limits)
        try:
            start = _start_of_body(source, response, wanted, offset)
            check_identity(source, response.headers, wanted)
            stream = cls(source, response, limits)
            stream._discard(offset - start)
        except RemoteError:
            response.close()
            raise
        return stream

    def read(self, size: int) -> bytes:
        """At least one byte. Raises `RemoteUnavailableError` when the source is cut, silent or too slow."""
        self._watch()
        started = time.monotonic()
        try:
            block = self._response.read1(size)
        except HTTPError as error:
            raise _unavailable(self.source, f"cut: {error}") from error
        if not block:
            raise _unavailable(self.source, "ended before the artifact was complete")
        self._arrived += len(block)
        self._waited += time.monotonic() - started
        return block

    def is_over(self) -> bool:
        """Whether nothing follows. Raises `RemoteUnavailableError` when it is cut here."""
        try:
            return not self._response.read1(1)
        except HTTPError as error:
            raise _unavailable(self.source, f"cut: {error}") from error

    def close(self) -> None:
        # A body that was read to its end has already given its connection back to the pool.
        self._response.close()

    def _discard(self, size: int) -> None:
        while size:
            size -= len(self.read(min(size, _DISCARD_BLOCK)))

    def _watch(self) -> None:
        """Only waiting counts: a slow disk here is not the source's fault."""
        if self._waited >= self._limits.window_seconds:
            if self._arrived < self._limits.min_bytes_per_second * self._waited:
                raise _unavailable(self.source, f"too slow: {self._arrived} bytes in {self._waited:.0f} s")
            self._waited, self._arrived = 0.0, 0


@functools.cache
def _pools() -> urllib3.PoolManager:
    return outbound.pool_manager(num_pools=64, maxsize=settings.INVENTORY_SYNC_THREADS)


def _get(source: Source, offset: int, limits: Limits) -> BaseHTTPResponse:
    parts, _ = _address(source)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    # Each copy is read once: neither a proxy nor the source's memory need keep it for others.
    headers = {"Cache-Control": "no-store"} | ({"Range": f"bytes={offset}-"} if offset else {})
    return _ask(source, "GET", path, limits, headers=headers)


def post(source: Source, path: str, document: object, limits: Limits) -> tuple[BaseHTTPResponse, Stream]:
    """The answer to a JSON document that is sent to another path of the source's own address, of whatever status, and its body.

    Raises `RemoteUnavailableError`, `RemoteProtocolError`.
    """
    headers = {"Content-Type": "application/json"}
    response = _ask(source, "POST", path, limits, headers=headers, body=json.dumps(document).encode())
    return response, Stream(source, response, limits)


def _ask(
    source: Source, method: str, path: str, limits: Limits, *, headers: Mapping[str, str], body: bytes | None = None
) -> BaseHTTPResponse:
    parts, port = _address(source)
    try:
        # Below the manager's own `request`, which would normalize the path: a uri's `//` and `/../` are part of its name.
        return (
            _pools()
            .connection_from_host(parts.hostname, port, parts.scheme)
            .urlopen(
                method,
                path,
                body=body,
                headers={"Accept-Encoding": "identity", "User-Agent": "storage-inventory", **headers},
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=limits.connect_seconds, read=limits.read_seconds),
                preload_content=False,
                decode_content=False,
            )
        )
    except InvalidHeader as error:
        raise _nonsense(source, str(error)) from error
    except HTTPError as error:
        raise _unavailable(source, str(error)) from error


def _address(source: Source) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(source.url)
        if parts.scheme in {"http", "https"} and parts.hostname:
            return parts, parts.port
    except ValueError as error:
        raise _nonsense(source, f"its URL is malformed: {error}") from error
    raise _nonsense(source, "its URL is not http or https")


def _start_of_body(source: Source, response: BaseHTTPResponse, wanted: Wanted, offset: int) -> int:
    """At which byte of the artifact the body begins: `offset`, or 0 when the source ignored the range."""
    length = response.headers.get("Content-Length")
    match response.status:
        case HTTPStatus.OK:
            if length is not None and length.strip() != str(wanted.content_length):
                raise differs(source, f"has {length} bytes, not {wanted.content_length}")
            return 0
        case HTTPStatus.PARTIAL_CONTENT if offset:
            found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            expected = (offset, wanted.content_length - 1, wanted.content_length)
            if found is None or tuple(map(int, found.groups())) != expected:
                raise differs(source, f"answers with the range {response.headers.get('Content-Range')!r}")
            return offset
    raise by_status(source, response.status)


def by_status(source: Source, status: int) -> RemoteError:
    """What a status that brings no bytes says of its source."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _BUSY:
        return _unavailable(source, f"answered {status}")
    if status >= HTTPStatus.BAD_REQUEST:
        return RemoteRefusedError(f"{source.site} answered {status}", site=source.site)
    return _nonsense(source, f"answered {status}")


def check_identity(source: Source, headers: Mapping[str, str], wanted: Wanted) -> None:
    """Whether an answer speaks of the artifact; `headers` are found by names in lower case. Raises `RemoteProtocolError`."""
    known = {checksum.algorithm: checksum for checksum in wanted.checksums}
    for declared in _declared(headers):
        if (mine := known.get(declared.algorithm)) is not None and not mine.matches(declared):
            raise differs(source, f"declares {declared}, not {mine}")
    identity = headers.get("x-artifact-id")
    if identity is not None and identity.strip().lower() != str(wanted.artifact_id):
        raise differs(source, f"has artifact {identity}, not {wanted.artifact_id}")


def _declared(headers: Mapping[str, str]) -> Iterator[Checksum]:
    """The digests that the answer declares of the whole artifact; malformed ones say nothing (the bytes are hashed anyway)."""
    parsers: tuple[tuple[str, Callable[[str], list[Checksum]]], ...] = (
        ("digest", lambda header: [parse_digest_header(header)]),
        ("repr-digest", parse_structured_digests),
    )
    for name, parse in parsers:
        try:
            yield from parse(headers[name]) if name in headers else []
        except InvalidChecksumError:
            continue


def _unavailable(source: Source, detail: str) -> RemoteUnavailableError:
    return RemoteUnavailableError(f"{source.site}: {mask_tokens(detail)}", site=source.site)


def differs(source: Source, detail: str) -> RemoteProtocolError:
    """It answers something else than it was asked for."""
    return RemoteProtocolError(f"{source.site} {detail}", site=source.site)


def _nonsense(source: Source, detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{source.site}: {detail}", site=source.site)
