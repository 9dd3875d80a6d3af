"""Small files that come ahead of their turn, many in one answer of one source: `POST /batch` of a site (`files/batch.py`).

Nothing is lost by it: what did not come, or not as its artifact says, is not there, and is asked for alone when its turn comes.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from datamodel.errors import RemoteError, RemoteUnavailableError
from site_service.file_sync import download
from site_service.file_sync.download import Failure, Limits, Stream
from site_service.file_sync.rules import Source, Wanted
from site_service.file_sync.shunned import Shunned

logger = logging.getLogger("inventory.sync")

SMALL_BYTES = 64 * 1024
_MOST_FILES = 256
# What is held in memory at a time, by each thread of a worker.
_MOST_BYTES = 4 * 1024 * 1024
_HEAD_BYTES = 16 * 1024
_BLOCK = 64 * 1024
_SIGNED = re.compile(r"(https?://[^/?#]+(?:/[^?#]*?)?)/(files/[^/:?#]+/[^?#]+)\Z")
_BOUNDARY = re.compile(r"multipart/mixed\s*;\s*boundary=\"?([0-9A-Za-z'()+_,./:=?-]{1,70})\"?\s*\Z", re.IGNORECASE)
_STATUS = re.compile(r"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?\Z")
_LENGTH = re.compile(r"[0-9]{1,18}\Z")
# Sites of another release, or other services, have no such door: they are asked for one file at a time.
_without_door = Shunned(600.0)

Choice = tuple[Wanted, Source]


@dataclass(frozen=True, slots=True)
class Came:
    """All bytes of a file, as far as headers tell, and the site that gave them."""

    content: bytes
    site: str


@dataclass(slots=True)
class _Trip:
    """One answer: what it is asked for, and the facts of its END line."""

    door: str
    wanted: dict[str, Wanted]
    source: Source
    started: float = field(default_factory=time.monotonic)
    refused: Counter[int] = field(default_factory=Counter)


class Prefetched:
    """What has come for one batch and waits for its turn; each file is asked for once in this way."""

    def __init__(self, limits: Limits, beat: Callable[[], None]) -> None:
        self._limits = limits
        self._beat = beat
        self._asked: set[uuid.UUID] = set()
        self._came: dict[uuid.UUID, Came] = {}

    def may_ask(self, wanted: Wanted, source: Source) -> bool:
        """Whether it is small, was not asked for yet, and the source is thought to have the door."""
        # An empty file needs no request at all.
        is_small = 0 < wanted.content_length <= SMALL_BYTES
        if not is_small or wanted.artifact_id in self._asked:
            return False
        signed = _SIGNED.match(source.url)
        return signed is not None and signed[1] not in _without_door.names()

    def take(self, wanted: Wanted) -> Came | None:
        """Its bytes, once; None if they have to be asked for."""
        return self._came.pop(wanted.artifact_id, None)

    def fetch(self, choices: Sequence[Choice]) -> tuple[list[Failure], list[Source]]:
        """Ask for the first of `choices` and for those after it that its source has, too, within bounds.

        Returns the source as one that could not be reached, or as one that gave something, as a download tells of its own.
        Raises what the heartbeat raises.
        """
        trip = self._planned(choices)
        if len(trip.wanted) < 2:
            return [], []
        self._asked.update(wanted.artifact_id for wanted in trip.wanted.values())
        failures: list[Failure] = []
        before = len(self._came)
        try:
            self._receive(trip)
        except RemoteError as error:
            if not isinstance(error, RemoteUnavailableError):
                _without_door.add(trip.door)
            failures.append(Failure(trip.source, error))
        came = len(self._came) - before
        _log(trip, came, failures)
        return failures, [trip.source] if came else []

    def _planned(self, choices: Sequence[Choice]) -> _Trip:
        door, source = "", choices[0][1]
        chosen: dict[str, Wanted] = {}
        size = 0
        for wanted, offered in choices:
            signed = _SIGNED.match(offered.url)
            if signed is None or not self.may_ask(wanted, offered) or signed[1] != (door or signed[1]):
                continue
            if len(chosen) == _MOST_FILES or size + wanted.content_length > _MOST_BYTES:
                break
            door = signed[1]
            size += wanted.content_length
            chosen[signed[2]] = wanted
        return _Trip(door, chosen, source)

    def _receive(self, trip: _Trip) -> None:
        path = f"{urlsplit(trip.door).path}/batch"
        answer, stream = download.post(trip.source, path, {"urls": list(trip.wanted)}, self._limits)
        try:
            if answer.status == HTTPStatus.NOT_IMPLEMENTED:
                raise download.differs(trip.source, "has no such door")
            if answer.status != HTTPStatus.OK:
                raise download.by_status(trip.source, answer.status)
            boundary = _BOUNDARY.match(answer.headers.get("Content-Type", ""))
            if boundary is None:
                raise download.differs(trip.source, "does not answer with multipart/mixed")
            parts = _Parts(stream, boundary[1].encode(), self._beat)
            for wanted in trip.wanted.values():
                self._keep(trip, wanted, parts.read())
            parts.end()
        finally:
            stream.close()

    def _keep(self, trip: _Trip, wanted: Wanted, part: _Part) -> None:
        """Held against the artifact as the answer to a GET is."""
        if part.status != HTTPStatus.OK or len(part.content) != wanted.content_length:
            trip.refused[part.status] += 1
            return
        try:
            download.check_identity(trip.source, part.headers, wanted)
        except RemoteError:
            trip.refused[part.status] += 1
            return
        self._came[wanted.artifact_id] = Came(part.content, trip.source.site)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a GET of one file would have been answered; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes


class _Parts:
    """A `multipart/mixed` body of `application/http` messages with lengths, read one by one and never more than is allowed.

    Raises `RemoteUnavailableError` where it is cut, `RemoteProtocolError` where it is something else.
    """

    def __init__(self, stream: Stream, boundary: bytes, beat: Callable[[], None]) -> None:
        self._stream = stream
        self._delimiter = b"--" + boundary
        self._beat = beat
        self._held = bytearray()

    def read(self) -> _Part:
        """The next part."""
        head = self._until(b"\r\n\r\n").removeprefix(b"\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        kind = _fields(lines).get("content-type", "").partition(";")[0].strip().lower()
        if first.encode("latin-1") != self._delimiter or kind != "application/http":
            raise self._nonsense("a part is not where it should be")
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = _fields(lines)
        status, length = _STATUS.match(first), _LENGTH.match(headers.get("content-length", ""))
        if status is None or length is None or int(length[0]) > SMALL_BYTES:
            raise self._nonsense("a part has no status, no length, or is too large")
        return _Part(int(status[1]), headers, self._exactly(int(length[0])))

    def end(self) -> None:
        """After the last part; the connection may be used again then."""
        if (
            self._exactly(len(self._delimiter) + 6) != b"\r\n" + self._delimiter + b"--\r\n"
            or not self._stream.is_over()
        ):
            raise self._nonsense("something follows the last part")

    def _until(self, mark: bytes) -> bytes:
        while (place := self._held.find(mark, 0, _HEAD_BYTES)) < 0:
            if len(self._held) >= _HEAD_BYTES:
                raise self._nonsense("a part has too many headers")
            self._more()
        found = self._taken(place)
        self._taken(len(mark))
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            self._more()
        return self._taken(size)

    def _more(self) -> None:
        self._beat()
        self._held += self._stream.read(_BLOCK)

    def _taken(self, size: int) -> bytes:
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    def _nonsense(self, detail: str) -> RemoteError:
        return download.differs(self._stream.source, f"answers many files wrongly: {detail}")


def _fields(lines: Sequence[str]) -> dict[str, str]:
    return dict(_pairs(lines))


def _pairs(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        name, _, value = line.partition(":")
        yield name.strip().lower(), value.strip()


def _log(trip: _Trip, came: int, failures: Sequence[Failure]) -> None:
    facts = {
        "site": trip.source.site,
        "files": len(trip.wanted),
        "came": came,
        "refused": ",".join(f"{status}:{count}" for status, count in sorted(trip.refused.items())) or None,
        "seconds": f"{time.monotonic() - trip.started:.3f}",
        "result": "failed" if failures else "ok",
        "reason": failures[0].error.code if failures else None,
        "detail": failures[0].error.detail if failures else None,
    }
    logger.log(logging.WARNING if failures else logging.INFO, "END event=prefetch", extra={"facts": facts})
