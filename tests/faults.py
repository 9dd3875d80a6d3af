"""Things that break, as wrappers: sources that stop, disks that fill, listings that end early, processes that die."""

from __future__ import annotations

import errno
import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from site_service.storage.contract import (
    ArtifactStore,
    ContentSource,
    InvalidObject,
    ListedObject,
    ListingEnd,
    StoredObject,
)
from site_service.storage.disk import Disk, storage_failures

_PATTERN = hashlib.sha512(b"pattern").digest() * 16384


class Crash(BaseException):
    """The process died here; nothing after it runs."""


class GeneratedSource:
    """`length` bytes made up while reading, so that long content needs no memory."""

    def __init__(self, length: int) -> None:
        self._left = length

    def read(self, size: int, /) -> bytes:
        block = _PATTERN[: min(size, self._left, len(_PATTERN))]
        self._left -= len(block)
        return block


class CrumblySource:
    """Content that arrives a few bytes at a time."""

    def __init__(self, content: bytes, crumb: int = 7) -> None:
        self._stream = io.BytesIO(content)
        self._crumb = crumb

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._crumb))


class SlowSource:
    """Waits before each block."""

    def __init__(self, content: ContentSource, seconds: float) -> None:
        self._content = content
        self._seconds = seconds

    def read(self, size: int, /) -> bytes:
        time.sleep(self._seconds)
        return self._content.read(size)


class BreakingSource:
    """Gives its bytes, then raises instead of ending."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        self._stream = io.BytesIO(content)
        self._error = error

    def read(self, size: int, /) -> bytes:
        if block := self._stream.read(size):
            return block
        raise self._error


class WatchedSource:
    """Calls `look` once, after the first block was taken and before the end."""

    def __init__(self, content: bytes, look: Callable[[], None]) -> None:
        self._stream = io.BytesIO(content)
        self._look: Callable[[], None] | None = look

    def read(self, size: int, /) -> bytes:
        block = self._stream.read(size)
        if not block and self._look:
            look, self._look = self._look, None
            look()
        return block


class HeldSource:
    """Says that it was asked, then waits for permission to end: a writer that is in the middle for as long as needed."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)
        self.reached = threading.Event()
        self.released = threading.Event()

    def read(self, size: int, /) -> bytes:
        block = self._stream.read(size)
        if not block:
            self.reached.set()
            if not self.released.wait(30):
                raise TimeoutError("nobody released the source")
        return block


def flip_bit(path: Path, offset: int) -> None:
    """Rot: one bit of a file differs, its length does not."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


class FullDisk(Disk):
    """Has room for `room` bytes."""

    def __init__(self, room: int) -> None:
        self._room = room

    @storage_failures("write")
    def write(self, descriptor: int, block: bytes) -> None:
        self._room -= len(block)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "no space")
        super().write(descriptor, block)


class BrokenListDisk(Disk):
    """Directory listings work `times` times, then the disk is gone."""

    def __init__(self, times: int) -> None:
        self._times = times

    @storage_failures("list a directory")
    def names(self, path: Path) -> list[str]:
        self._times -= 1
        if self._times < 0:
            raise OSError(errno.EIO, "gone")
        return super().names(path)


class CutListing:
    """A store whose listings stop after `keep` objects without saying so, as a lost connection does."""

    def __init__(self, store: ArtifactStore, keep: int) -> None:
        self._store = store
        self._keep = keep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def iterate(self, bucket_prefix: str = "") -> Iterator[StoredObject | InvalidObject]:
        return islice(self._store.iterate(bucket_prefix), self._keep)

    def listing(self, bucket_prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        return islice(self._store.listing(bucket_prefix), self._keep)


class LossyListing(CutListing):
    """A store whose listings lose the object number `keep` and go on."""

    def listing(self, bucket_prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        for number, one in enumerate(self._store.listing(bucket_prefix)):
            if number != self._keep or isinstance(one, ListingEnd):
                yield one


class RecordingDisk(Disk):
    """Remembers what was done to which name, in order."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self._names: dict[int, str] = {}

    def create(self, path: Path) -> int | None:
        descriptor = super().create(path)
        if descriptor is not None:
            self._names[descriptor] = path.name
        return descriptor

    def write(self, descriptor: int, block: bytes) -> None:
        self.steps.append(("write", self._names[descriptor]))
        super().write(descriptor, block)

    def sync(self, descriptor: int) -> None:
        self.steps.append(("sync", self._names[descriptor]))
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> bool:
        self.steps.append(("rename", target.name))
        return super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self.steps.append(("sync directory", path.name))
        super().sync_directory(path)


class FailingDisk(Disk):
    """Step number `step` (from 0) that changes anything fails with this error, and if it `stays` so do all after it."""

    def __init__(self, step: int, code: int, *, stays: bool) -> None:
        self._left = step
        self._code = code
        self._stays = stays
        self.failed: list[str] = []

    def _pass(self, name: str) -> None:
        self._left -= 1
        if self._left == -1 or (self._left < 0 and self._stays):
            self.failed.append(name)
            with storage_failures(name):
                raise OSError(self._code, "the disk says no")


class CrashingDisk(Disk):
    """The process dies before step number `step` (from 0) that changes anything; afterwards nothing changes any more."""

    def __init__(self, step: int) -> None:
        self._left = step
        self.has_crashed = False

    def _pass(self) -> None:
        self._left -= 1
        if self._left < 0:
            self.has_crashed = True
            raise Crash


def _dying(method: Callable[..., Any]) -> Callable[..., Any]:
    def step(disk: CrashingDisk, *arguments: Any) -> Any:
        disk._pass()
        return method(disk, *arguments)

    return step


CHANGES = (
    "create",
    "write",
    "sync",
    "truncate",
    "rename",
    "unlink",
    "sync_directory",
    "make_directory",
    "remove_directory",
)


def _failing(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def step(disk: FailingDisk, *arguments: Any) -> Any:
        disk._pass(name)
        return method(disk, *arguments)

    return step


for _name in CHANGES:
    setattr(CrashingDisk, _name, _dying(getattr(Disk, _name)))
    setattr(FailingDisk, _name, _failing(_name, getattr(Disk, _name)))
