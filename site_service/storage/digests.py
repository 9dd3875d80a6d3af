"""Digests, counted and verified in one pass: every store measures content here, so every store keeps the same promises.

What is not here: where the bytes go. A store iterates `MeasuredContent` and asks for `result` at the end.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from datamodel.errors import (
    ChecksumMismatchError,
    ContentTooLargeError,
    InvalidChecksumError,
    LengthMismatchError,
    ShortBodyError,
)
from site_service.storage.contract import ContentSource, ExpectedContent
from site_service.storage.records import TransactionState

BLOCK_SIZE = 1024 * 1024
"""Bytes asked of a source at a time; also the unit handed to the helper thread."""


class _Digest(Protocol):
    """What hashlib's objects have in common."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> _Digest: ...


_ALGORITHMS: Mapping[str, Callable[[], _Digest]] = {
    # MD5 and SHA-1 are names for content here, not security: a build in FIPS mode must still give them.
    "md5": partial(hashlib.md5, usedforsecurity=False),
    "sha-1": partial(hashlib.sha1, usedforsecurity=False),
    "sha-256": hashlib.sha256,
    "sha-384": hashlib.sha384,
    "sha-512": hashlib.sha512,
}

_HELPED_FROM = 8 * BLOCK_SIZE
_HELPER_QUEUE_BLOCKS = 4
# One core hashes while another reads and writes. More helpers than spare cores make eight concurrent uploads slower
# (measured: README), so whoever finds no free slot hashes inline.
_helper_slots = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))


def new_digest(algorithm: str) -> _Digest:
    """An empty digest; raises `InvalidChecksumError` for an unknown algorithm."""
    try:
        return _ALGORITHMS[algorithm]()
    except KeyError:
        raise InvalidChecksumError(f"unknown digest algorithm {algorithm!r}") from None


class _Helper:
    """A thread that feeds one digest; holds one of the process's helper slots until `close`."""

    def __init__(self, digest: _Digest) -> None:
        self._digest = digest
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_HELPER_QUEUE_BLOCKS)
        self._thread = threading.Thread(target=self._run, name="digest-helper", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._digest.update(block)
            self._blocks.task_done()

    def put(self, block: bytes) -> None:
        self._blocks.put(block)

    def drain(self) -> None:
        """Return when every block handed over is in the digest."""
        self._blocks.join()

    def close(self) -> None:
        self._blocks.put(None)
        self._thread.join()
        _helper_slots.release()


class MultiHasher:
    """Several digests over the same bytes; long content gets a helper thread for the first algorithm if one is free.

    Not for use by two threads at once. `close` when done with long content (idempotent; digests stay readable).
    """

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._digests = {name: new_digest(name) for name in algorithms}
        self._helper: _Helper | None = None
        self.length = 0

    @property
    def algorithms(self) -> frozenset[str]:
        return frozenset(self._digests)

    def update(self, block: bytes) -> None:
        """Take the next bytes into every digest."""
        first, *others = self._digests.values()
        if self._helper is None:
            first.update(block)
        else:
            self._helper.put(block)
        for digest in others:
            digest.update(block)
        self.length += len(block)
        if self._helper is None and self.length >= _HELPED_FROM and _helper_slots.acquire(blocking=False):
            self._helper = _Helper(first)

    def hexdigests(self) -> dict[str, str]:
        """`{algorithm: lower-case hex}` over all bytes so far."""
        self._drain()
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def copy(self) -> MultiHasher:
        """An independent hasher that has seen the same bytes."""
        self._drain()
        twin = MultiHasher(())
        twin._digests = {name: digest.copy() for name, digest in self._digests.items()}
        twin.length = self.length
        return twin

    def close(self) -> None:
        """Give the helper thread back."""
        if self._helper is not None:
            self._helper.close()
            self._helper = None

    def _drain(self) -> None:
        if self._helper is not None:
            self._helper.drain()


@dataclass(frozen=True, slots=True)
class Measured:
    """What was really read: `length` bytes of this content, and the checksums of everything hashed."""

    length: int
    checksums: dict[str, str]


class MeasuredContent:
    """Iterates blocks of a source, hashing, counting and finally verifying them.

    The iterator raises `LengthMismatchError` or `ContentTooLargeError` as soon as a byte is too many, and at the end
    `ShortBodyError` or `ChecksumMismatchError`; errors of the source pass unchanged. Only when it ended without an error is
    `result` available. `hasher` may already hold earlier bytes: checksums speak of those too, lengths do not.
    """

    def __init__(self, content: ContentSource, expected: ExpectedContent | None, hasher: MultiHasher) -> None:
        self._content = content
        self._expected = expected or ExpectedContent()
        self._hasher = hasher
        self._length = 0
        self._result: Measured | None = None

    def __iter__(self) -> Iterator[bytes]:
        self._refuse_excess(self._expected.length or 0)
        while block := self._content.read(BLOCK_SIZE):
            self._length += len(block)
            self._refuse_excess(self._length)
            self._hasher.update(block)
            yield block
            # A large block must not be kept while a slow sender is waited for.
            del block
        self._result = self._verified()

    @property
    def result(self) -> Measured:
        """The verified measurement; a programming error before the iterator has ended."""
        if self._result is None:
            raise RuntimeError("the content has not been read to its end")
        return self._result

    def _refuse_excess(self, length: int) -> None:
        limit, declared = self._expected.max_length, self._expected.length
        if limit is not None and length > limit:
            raise ContentTooLargeError(f"the content is longer than {limit} bytes", max_length=limit)
        if declared is not None and length > declared:
            raise LengthMismatchError(f"more than the declared {declared} bytes arrived", declared=declared)

    def _verified(self) -> Measured:
        declared = self._expected.length
        if declared is not None and self._length < declared:
            raise ShortBodyError(
                f"{self._length} of {declared} bytes arrived", declared=declared, received=self._length
            )
        checksums = self._hasher.hexdigests()
        verify_checksums(checksums, self._expected.checksums or {})
        return Measured(self._length, checksums)


def verify_checksums(measured: Mapping[str, str], declared: Mapping[str, str]) -> None:
    """Raise `ChecksumMismatchError` unless every declared checksum equals the measured one of its algorithm."""
    for algorithm, hexadecimal in declared.items():
        if not hmac.compare_digest(measured[algorithm].encode(), hexadecimal.encode()):
            raise ChecksumMismatchError(
                f"the content's {algorithm} is {measured[algorithm]}, declared was {hexadecimal}", algorithm=algorithm
            )


@dataclass(frozen=True, slots=True)
class DigestPlan:
    """Which digests a store keeps: the configured content algorithm first, and sha-256 unless switched off."""

    content_algorithm: str = "md5"
    sha256: bool = True

    def __post_init__(self) -> None:
        new_digest(self.content_algorithm)

    @property
    def kept(self) -> tuple[str, ...]:
        wanted = (self.content_algorithm, "sha-256") if self.sha256 else (self.content_algorithm,)
        return tuple(dict.fromkeys(wanted))

    def hasher(self, expected: ExpectedContent | None) -> MultiHasher:
        """A hasher of the kept and the declared algorithms; raises `InvalidChecksumError` for an unknown one."""
        declared = (expected.checksums or {}) if expected else {}
        return MultiHasher(dict.fromkeys((*self.kept, *declared)))

    def select(self, checksums: Mapping[str, str]) -> dict[str, str]:
        """Only what is kept."""
        return {algorithm: checksums[algorithm] for algorithm in self.kept}


class RunningDigests:
    """Hashers of open put transactions, kept in this process so that the next append need not read all bytes again.

    hashlib cannot save its state: another process, or a restart, re-reads what is stored. Bounded; safe for threads.
    """

    _LIMIT = 256

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hashers: OrderedDict[str, MultiHasher] = OrderedDict()

    def resume(self, transaction_id: str, state: TransactionState, fresh: MultiHasher) -> MultiHasher:
        """A copy of the hasher that has seen exactly the recorded bytes if it is here, else `fresh`.

        Lengths alone would not do: another process may have reverted and appended as many other bytes.
        """
        with self._lock:
            hasher = self._hashers.get(transaction_id)
            if hasher is None or hasher.length != state.length or not fresh.algorithms <= hasher.algorithms:
                return fresh
            return hasher.copy() if state.checksums.items() <= hasher.hexdigests().items() else fresh

    def keep(self, transaction_id: str, hasher: MultiHasher) -> None:
        with self._lock:
            self._hashers[transaction_id] = hasher
            self._hashers.move_to_end(transaction_id)
            if len(self._hashers) > self._LIMIT:
                self._hashers.popitem(last=False)

    def forget(self, transaction_id: str) -> None:
        with self._lock:
            self._hashers.pop(transaction_id, None)
