"""Reading stored bytes as slowly as asked and past the page cache, and saying whether they are what they should be."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass

from datamodel.errors import StoredObjectMissingError
from site_service.scrub import rules
from site_service.scrub.rules import FILE_COST, Finding
from site_service.storage.contract import ArtifactStore, Readable
from site_service.storage.digests import MultiHasher

BLOCK_SIZE = 1024 * 1024
_DROP_SIZE = 8 * BLOCK_SIZE
_NAP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Expected:
    """What the bytes at a place should be; `checksums` are `{algorithm: lower-case hex}`."""

    storage_id: str
    length: int
    checksums: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`finding` None: the bytes are good. `detail` says what was found instead of what."""

    finding: Finding | None
    detail: str = ""


class Pace:
    """Sleeps as long as needed to stay within a bandwidth; what was not used in the past is not made up for.

    `beat` is called while bytes are read and between naps (a lease is renewed there). Short naps, because a worker that is
    told to stop hears it only between them.
    """

    def __init__(
        self,
        *,
        beat: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._beat = beat
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()

    def spend(self, count: int, bytes_per_second: int) -> None:
        """So many bytes were read; 0 bytes per second is no limit."""
        self._beat()
        if not bytes_per_second:
            return
        self._free_at = max(self._free_at, self._clock()) + count / bytes_per_second
        while (left := self._free_at - self._clock()) > 0:
            self._sleep(min(left, _NAP_SECONDS))
            self._beat()


def examine(store: ArtifactStore, expected: Expected, *, pace: Pace, bytes_per_second: int) -> Verdict:
    """Read one object to its end and judge it. Raises `StorageUnavailableError` when the store cannot tell."""
    try:
        measured = _measured(store, expected, pace, bytes_per_second)
    except StoredObjectMissingError as error:
        return _absence(store, expected, error)
    wrong = rules.differing(expected.checksums, measured)
    if not wrong:
        return Verdict(None)
    words = [f"its {name} is {measured[name]}, not {expected.checksums[name]}" for name in wrong]
    return Verdict(Finding.DIGEST, "; ".join(words))


def look(store: ArtifactStore, expected: Expected) -> Verdict:
    """Whether an object is there with its length, without reading it. Raises `StorageUnavailableError`."""
    try:
        store.open(expected.storage_id, expected_length=expected.length).close()
    except StoredObjectMissingError as error:
        return _absence(store, expected, error)
    return Verdict(None)


def _absence(store: ArtifactStore, expected: Expected, error: StoredObjectMissingError) -> Verdict:
    """Not there at all, or there with another length."""
    try:
        store.stat(expected.storage_id)
    except StoredObjectMissingError:
        return Verdict(Finding.MISSING, error.detail)
    return Verdict(Finding.LENGTH, error.detail)


def _measured(store: ArtifactStore, expected: Expected, pace: Pace, bytes_per_second: int) -> dict[str, str]:
    content = store.open(expected.storage_id, expected_length=expected.length)
    with closing(content), closing(MultiHasher(expected.checksums)) as hasher:
        cache = _PageCache(content) if store.capabilities.is_local else None
        pace.spend(FILE_COST, bytes_per_second)
        while block := content.read(BLOCK_SIZE):
            hasher.update(block)
            if cache is not None:
                cache.passed(len(block))
            pace.spend(len(block), bytes_per_second)
        if cache is not None:
            cache.end()
        return hasher.hexdigests()


class _PageCache:
    """Bytes come from the device, not from memory: what is cached of the file is dropped before, and what was read, after.

    Content that users read at this time loses its place in the cache: the price of looking at the disk. An advice that the
    file system does not know is no failure.
    """

    def __init__(self, content: Readable) -> None:
        self._descriptor: int = content.fileno()  # type: ignore[attr-defined]  # a real file, says the contract
        self._dropped = 0
        self._read = 0
        self._drop(0, 0)

    def passed(self, count: int) -> None:
        self._read += count
        if self._read - self._dropped >= _DROP_SIZE:
            self.end()
            self._dropped = self._read

    def end(self) -> None:
        self._drop(self._dropped, self._read - self._dropped)

    def _drop(self, start: int, length: int) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_DONTNEED)
