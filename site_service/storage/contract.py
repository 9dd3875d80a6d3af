"""The contract of an artifact store: every promise is in the comments; `tests/conformance` proves each store by it.

A store knows bytes and the few facts needed to rebuild a lost inventory (`ContentFacts`). It knows no database rows,
no HTTP, no policy. Storage ids are opaque, chosen by the store, and never used again for other content.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from datamodel.errors import CallerError


class ContentSource(Protocol):
    """Where content comes from: up to `size` bytes at a time, b"" at the true end.

    Raises `ShortBodyError` (or another `CallerError` / `RemoteError`) when the sender was cut; a store lets such errors
    pass unchanged after it has removed what it had written.
    """

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `start`, both within the content (`length` > 0)."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class ExpectedContent:
    """What was declared about content before it arrived; None means not declared.

    `checksums` are `{algorithm: lower-case hex}` of the algorithms md5, sha-1, sha-256, sha-384, sha-512.
    """

    length: int | None = None
    checksums: dict[str, str] | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class ContentFacts:
    """What the store keeps beside the bytes so that it alone can rebuild the inventory.

    `artifact_id` is chosen before writing. `content_last_modified` is null until known: the row decides it.
    """

    artifact_id: uuid.UUID
    uri: str
    content_type: str | None = None
    content_encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One of several contents that are stored together."""

    content: ContentSource
    facts: ContentFacts
    expected: ExpectedContent | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One durable object: its place, its measured content and the facts kept with it.

    `storage_bucket` orders and shards listings (hex digits); `checksums` always holds the store's configured content
    algorithm and, if switched on, sha-256, as `{algorithm: lower-case hex}` over all bytes. `written_at` is UTC,
    truncated to milliseconds.
    """

    storage_id: str
    storage_bucket: str
    length: int
    checksums: dict[str, str]
    facts: ContentFacts
    written_at: datetime


@dataclass(frozen=True, slots=True)
class InvalidObject:
    """Something in the store whose facts cannot be read: reported by `iterate`, never skipped in silence."""

    storage_id: str
    storage_bucket: str
    reason: str


class ListedObject(NamedTuple):
    """An object as a listing meets it: its place, the measured length of its bytes, and its record as it was read, not yet judged.

    The record is for `records` to read or to compare; None when there is none.
    """

    storage_bucket: str
    storage_id: str
    length: int
    record: bytes | None


@dataclass(frozen=True, slots=True)
class ListingEnd:
    """The last word of a `listing`: it was complete, and `count` objects were listed before it."""

    count: int


@dataclass(frozen=True, slots=True)
class PutTransactionStatus:
    """What a put transaction holds: `length` bytes with `checksums` over all of them; the uri it was begun for."""

    transaction_id: str
    uri: str
    length: int
    checksums: dict[str, str]


@dataclass(frozen=True, slots=True)
class StoreCapabilities:
    """What callers may rely on beyond the contract; sizes are bytes, None means no limit.

    `is_local` says that `open` yields real files of this machine (so that sendfile works).
    """

    is_local: bool
    min_segment: int
    max_segment: int | None
    max_length: int | None


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """Bytes; None where the back end does not tell."""

    total: int | None
    free: int | None


class Readable(Protocol):
    """An open object positioned at the start of the asked range; ends after it. Closing is idempotent."""

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


class ArtifactStore(Protocol):
    """See each method; all are safe to call from several threads and processes at once.

    Failures are `StorageUnavailableError` (try again), `StorageFullError`, `StoredObjectMissingError`, or the source's own
    error. Nothing else leaks out (no OSError, no botocore error). An id that no store could have made is simply not there.
    """

    @property
    def capabilities(self) -> StoreCapabilities: ...

    def write(
        self, content: ContentSource, facts: ContentFacts, expected: ExpectedContent | None = None
    ) -> StoredObject:
        """Read `content` to its end; store it durably and whole, or not at all.

        Memory stays flat whatever the length. When this returns, the bytes survive a power cut (POSIX: temporary file,
        hash while writing, fsync, rename, fsync of the directory). Raises `ShortBodyError` when fewer bytes came than
        `expected.length`, `LengthMismatchError` when more, `ChecksumMismatchError`, `ContentTooLargeError` as soon as
        `max_length` is passed, `InvalidChecksumError` for an algorithm that is not one of the five, `StorageFullError`; then
        nothing of it is listed or kept.
        Zero bytes are stored like any others (the caller decides whether they are welcome).
        """
        ...

    def write_all(self, writes: Sequence[Write]) -> list[StoredObject | CallerError]:
        """`write` of each, in their order; they become durable together, which takes a fraction of the time where they are small.

        A `CallerError` (content that is not what was declared, or whose sender was cut) stands in its place and hinders no other.
        Any other failure, the store's or a source's own, is raised; then none of them is kept. All may be held open at once.
        """
        ...

    def open(
        self,
        storage_id: str,
        *,
        expected_length: int,
        byte_range: ByteRange | None = None,
        drop_behind: bool = False,
    ) -> Readable:
        """Open for reading; checks before the first byte that the object exists and has `expected_length` bytes.

        A POSIX store yields a real file at the position of the first asked byte (has `fileno`: sendfile works if the count
        is given). With `drop_behind`, for who reads once, what was read does not stay in the system's memory unless the content
        was there before: a hint, which stores without such memory ignore. Raises `StoredObjectMissingError`,
        `RangeNotSatisfiableError` for a range beyond `expected_length`. A reader whose object turns out shorter raises while
        reading; it never ends early.
        """
        ...

    def stat(self, storage_id: str) -> StoredObject | InvalidObject:
        """The recorded facts (bytes are not re-read). Raises `StoredObjectMissingError`."""
        ...

    def set_facts(self, storage_id: str, facts: ContentFacts) -> None:
        """Replace the facts kept with the bytes (metadata update, re-attachment to another artifact id).

        Raises `StoredObjectMissingError`, also when the present facts cannot be read (their digests would be lost).
        """
        ...

    def remove(self, storage_id: str) -> None:
        """Remove for ever; removing what is not there is success."""
        ...

    def iterate(self, bucket_prefix: str = "") -> Iterator[StoredObject | InvalidObject]:
        """All objects whose storage bucket starts with the prefix, sorted by (storage_bucket, storage_id), C order.

        Complete or raising: an iterator that ends without an error has yielded everything that was there for the whole
        time. Temporary files and open put transactions are not listed.
        """
        ...

    def listing(self, bucket_prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        """What `iterate` would judge, before it is judged (`records.judged` does), with the proof of its end as the last item: said
        by the store itself, after it has looked once more whether it is still there. Who acts on absence reads this through
        `listings.proven`, which believes no other end.
        """
        ...

    def begin(self, facts: ContentFacts) -> PutTransactionStatus:
        """Begin a put transaction; it survives a restart of the service."""
        ...

    def append(
        self, transaction_id: str, content: ContentSource, expected: ExpectedContent | None = None
    ) -> PutTransactionStatus:
        """Add all of `content` at the end, durably; on any failure the transaction is as before the call.

        `expected` speaks of this segment's length only (`length`, `max_length`); its checksums speak of all bytes so far.
        Raises `TransactionNotFoundError`; `StateConflictError` when another request is writing to it (a store without locks
        says so only when the content has been read). `StorageUnavailableError` may come after the append was recorded: whoever
        repeats it asks for `status` first.
        """
        ...

    def revert(self, transaction_id: str) -> PutTransactionStatus:
        """Undo the last append, as often as there are appends. Raises `StateConflictError` when there is none to undo."""
        ...

    def status(self, transaction_id: str) -> PutTransactionStatus:
        """Raises `TransactionNotFoundError`."""
        ...

    def commit(self, transaction_id: str, facts: ContentFacts) -> StoredObject:
        """Make its bytes an object, like `write` does, with these facts (artifact id and uri included).

        The storage id is the transaction id. A commit that failed or was killed half way is finished by calling it again;
        once it has returned the transaction is not found any more.
        """
        ...

    def abort(self, transaction_id: str) -> None:
        """Drop it and its bytes; aborting what is not there is success. A published object is never taken away.

        May raise `StateConflictError` while another request is writing to it.
        """
        ...

    def stale_transactions(self, older_than: datetime) -> list[str]:
        """Ids of put transactions not touched since then."""
        ...

    def sweep_temporary(self, older_than: datetime) -> int:
        """Remove temporary leftovers of crashed writes not touched since then; returns how many."""
        ...

    def free_space(self) -> FreeSpace: ...
