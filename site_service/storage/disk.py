"""The system calls of the POSIX store, each with its failure named; nothing here knows what an object is.

One class, so that tests can break any single step (`tests/faults.py`).
"""

from __future__ import annotations

import errno
import fcntl
import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from datamodel.errors import StateConflictError, StorageFullError, StorageUnavailableError, StoredObjectMissingError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

P = ParamSpec("P")
R = TypeVar("R")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_SIZE = 1024 * 1024
_RECORD_SIZE = 4096
_WINDOW = 8 * 1024 * 1024
# How far before a window is looked once more for what could not be dropped yet: it was not on the disk, or not sent.
_BEHIND = 4 * _WINDOW


class storage_failures:  # noqa: N801  # read as what it does: `with`, or on top of a function
    """Turn an OSError into `StorageFullError` or `StorageUnavailableError`; never wrap reading of a source in it.

    No generator: of the twenty calls that a small file takes, each would make one.
    """

    __slots__ = ("_action",)

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        """Nothing has happened yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise _named(error, self._action) from error

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        action = self._action

        @functools.wraps(function)
        def named(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except OSError as error:
                raise _named(error, action) from error

        return named


def _named(error: OSError, action: str) -> StorageFullError | StorageUnavailableError:
    reason = os.strerror(error.errno) if error.errno else "unknown"
    if error.errno in _FULL:
        return StorageFullError(f"the store is full: could not {action}: {reason}")
    return StorageUnavailableError(f"the store could not {action}: {reason}")


class StoredFile(io.FileIO):
    """An open object, limited to the asked range; a real file at the position of its first byte (sendfile works).

    `read` raises `StorageUnavailableError` when the disk fails and `StoredObjectMissingError` when the file ends early.
    """

    def __init__(self, descriptor: int, start: int, length: int, *, drop_behind: bool = False) -> None:
        super().__init__(descriptor, "rb")
        self._remaining = length
        self._end = start + length
        self._told = start
        self._drops_behind = drop_behind and length > _BEHIND and not _is_cached(descriptor, start + length // 2)
        if start:
            self.seek(start)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(_READ_SIZE), b""))
        wanted = min(size, self._remaining)
        with storage_failures("read"):
            block = super().read(wanted) or b""
        self._advance(len(block), wanted)
        return block

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        with memoryview(buffer).cast("B") as view, view[: self._remaining] as part:
            with storage_failures("read"):
                count = super().readinto(part) or 0
            self._advance(count, len(part))
            return count

    def _advance(self, count: int, wanted: int) -> None:
        if wanted and not count:
            raise StoredObjectMissingError(f"the object ends {self._remaining} bytes early")
        self._remaining -= count
        self.passed(self._end - self._remaining)

    def passed(self, position: int) -> None:
        """All before this byte has been read, or sent without reading it here (`sendfile`)."""
        if self._drops_behind and position - self._told >= _WINDOW:
            self._told = position
            # It is an advice: what a file system does not know of it is no failure.
            with suppress(OSError):
                _let_go(self.fileno(), position)


class Disk:
    """System calls; each raises only `StorageFullError` or `StorageUnavailableError`.

    Where a missing name is an ordinary answer it is None or False.
    """

    @storage_failures("create a file")
    def create(self, path: Path) -> int | None:
        """A new file's descriptor; None when its directory is missing. A file of that name is a failure."""
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except FileNotFoundError:
            return None

    @storage_failures("open a file")
    def open(self, path: Path | str, flags: int = os.O_RDONLY, directory: int | None = None) -> int | None:
        """None when it is missing; `directory` is where a relative path begins."""
        try:
            return os.open(path, flags | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            return None

    @storage_failures("open a file")
    def reader(self, descriptor: int, start: int, length: int, *, drop_behind: bool = False) -> StoredFile:
        """Takes the descriptor over."""
        return StoredFile(descriptor, start, length, drop_behind=drop_behind)

    @storage_failures("write")
    def write(self, descriptor: int, block: bytes) -> None:
        """All of the block: one system call may take less (2 GiB limit, signals)."""
        written = os.write(descriptor, block)
        with memoryview(block) as view:
            while written < len(block):
                written += os.write(descriptor, view[written:])

    def write_all(self, descriptor: int, blocks: Iterable[bytes], position: int = 0) -> None:
        """Every block from `position` on; the disk starts early, so that the final sync has little left to wait for.

        What is on the disk leaves memory while the rest is written: a large file does not push out what is read often, and the
        same pages are used again (on virtual machines several times faster than new ones: README).
        Not inside `storage_failures`: errors of the iterator are not the disk's.
        """
        started = position
        for block in blocks:
            self.write(descriptor, block)
            position += len(block)
            del block
            if position - started >= _WINDOW:
                self.let_go(descriptor, position)
                started = position

    @storage_failures("write")
    def let_go(self, descriptor: int, position: int) -> None:
        """Start writing what was written last before `position`, and drop from memory what is on the disk already."""
        _let_go(descriptor, position)

    @storage_failures("sync a file")
    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def sync_all(self, descriptors: Sequence[int]) -> None:
        """Sync several files; the disk is told of all of them before the first is waited for."""
        for descriptor in descriptors[1:]:
            # What is not on the disk yet is queued for it by this advice; where it fails, the sync tells.
            with suppress(OSError):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for descriptor in descriptors:
            self.sync(descriptor)

    @storage_failures("close a file")
    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    @storage_failures("measure a file")
    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    @storage_failures("truncate a file")
    def truncate(self, descriptor: int, length: int) -> None:
        """Cut to `length` and stand at its end."""
        os.ftruncate(descriptor, length)
        os.lseek(descriptor, length, os.SEEK_SET)

    @storage_failures("rename a file")
    def rename(self, source: Path, target: Path) -> bool:
        """Whether there was such a source (in an existing target directory)."""
        try:
            source.rename(target)
        except FileNotFoundError:
            return False
        return True

    @storage_failures("remove a file")
    def unlink(self, path: Path) -> bool:
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    @storage_failures("sync a directory")
    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @storage_failures("make a directory")
    def make_directory(self, path: Path) -> None:
        """Make it if it is not there; its parent must be (an unmounted disk must not be built anew)."""
        path.mkdir(mode=0o750, exist_ok=True)

    @storage_failures("remove a directory")
    def remove_directory(self, path: Path) -> None:
        path.rmdir()

    @storage_failures("list a directory")
    def names(self, path: Path) -> list[str]:
        """Every name in it, in C order; a missing directory is a failure, never an empty one."""
        names = os.listdir(path)  # noqa: PTH208  # a `Path` for each of them is what a listing would spend its time on
        return sorted(names) if "".join(names).isascii() else sorted(names, key=os.fsencode)

    @contextmanager
    def directory(self, path: Path) -> Iterator[int]:
        """Its descriptor, so that names in it are found without the way there; a missing one is a failure."""
        descriptor = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if descriptor is None:
            raise StorageUnavailableError("a directory of the store has vanished")
        try:
            yield descriptor
        finally:
            self.close(descriptor)

    def read(self, path: Path | str) -> bytes | None:
        """All of a small file."""
        descriptor = self.open(path)
        return self.read_open(descriptor) if descriptor is not None else None

    def read_open(self, descriptor: int) -> bytes:
        """All of a small file, which is then closed. Called for each object of a listing."""
        try:
            try:
                content = block = os.read(descriptor, _RECORD_SIZE)
                while len(block) == _RECORD_SIZE:
                    block = os.read(descriptor, _RECORD_SIZE)
                    content += block
                return content
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _named(error, "read a file") from error

    @contextmanager
    def opened_ahead(self, names: Iterable[str], directory: int) -> Iterator[dict[str, int]]:
        """These small files, open, as far as they can be: a disk that knows of many gives them in the time of a few.

        Waits for none. Who reads one takes it out; the others are closed. Who needs one that is missing here opens it, and is told why.
        """
        opened: dict[str, int] = {}
        try:
            for name in names:
                try:
                    opened[name] = descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
                    os.posix_fadvise(descriptor, 0, _RECORD_SIZE, os.POSIX_FADV_WILLNEED)
                except OSError:
                    continue
            yield opened
        finally:
            for descriptor in opened.values():
                self.close(descriptor)

    def status(self, path: Path | str, directory: int | None = None) -> os.stat_result | None:
        """None when it is missing; `directory` is where a relative path begins."""
        try:
            return os.stat(path, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _named(error, "look at a file") from error

    @storage_failures("measure the file system")
    def space(self, path: Path) -> os.statvfs_result:
        return os.statvfs(path)

    def write_new(self, path: Path, content: bytes) -> bool:
        """A small durable file (its directory not yet synced); False when its directory is missing."""
        descriptor = self.create(path)
        if descriptor is None:
            return False
        try:
            self.write(descriptor, content)
            self.sync(descriptor)
        finally:
            self.close(descriptor)
        return True

    def replace(self, path: Path, content: bytes, through: Path) -> None:
        """Replace a small file whole and durably, by way of the name `through`; raises when a directory is missing."""
        self.unlink(through)
        if not (self.write_new(through, content) and self.rename(through, path)):
            raise StorageUnavailableError("a directory of the store has vanished")
        self.sync_directory(path.parent)

    @contextmanager
    def locked(self, path: Path) -> Iterator[bool]:
        """Hold the lock file exclusively; yields False when it is missing. Raises `StateConflictError` when it is held."""
        descriptor = self.open(path, os.O_RDWR)
        if descriptor is None:
            yield False
            return
        try:
            _lock(descriptor)
            yield True
        finally:
            self.close(descriptor)


def _let_go(descriptor: int, position: int) -> None:
    """Clean pages before `position` leave memory; dirty ones do not, they are queued for writing, and leave next time."""
    start = max(position - _BEHIND - _WINDOW, 0)
    os.posix_fadvise(descriptor, start, position - start, os.POSIX_FADV_DONTNEED)


def _is_cached(descriptor: int, position: int) -> bool:
    """Whether this byte can be had without the disk; True where the file system does not say."""
    try:
        return bool(os.preadv(descriptor, [bytearray(1)], position, os.RWF_NOWAIT))
    except OSError as error:
        return error.errno != errno.EAGAIN


@storage_failures("lock a file")
def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateConflictError("another request is writing to this put transaction") from None
