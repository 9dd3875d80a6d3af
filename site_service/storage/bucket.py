"""What the object store needs of a bucket; `objectstore.S3Bucket` is the real one. Keys are relative to its prefix.

Every method raises `StorageUnavailableError` or `StorageFullError`; what is missing is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from site_service.storage.contract import ByteRange, Readable


@dataclass(frozen=True, slots=True)
class ListedKey:
    """One line of a listing."""

    key: str
    length: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class OpenedKey:
    """A body being read, and the length of the whole content whatever range was asked."""

    body: Readable
    total_length: int


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """A multipart upload that was neither completed nor aborted; when a part of it last arrived."""

    key: str
    upload_id: str
    touched_at: datetime


class Bucket(Protocol):
    """Whole-object puts are atomic, and what was written is read at once (S3 since 2020, Ceph always)."""

    def put(self, key: str, content: bytes, *, replacing: str | None = None) -> str:
        """Store and return the entity tag. With `replacing`, only over the object of that tag: else `StateConflictError`."""
        ...

    def get(self, key: str) -> tuple[bytes, str] | None:
        """A small object and its entity tag."""
        ...

    def open(self, key: str, byte_range: ByteRange | None = None) -> OpenedKey | None:
        """Raises `StoredObjectMissingError` when the object ends before the range."""
        ...

    def length(self, key: str) -> int | None: ...

    def delete(self, key: str) -> None:
        """Deleting what is not there is success."""
        ...

    def list(self, prefix: str) -> Iterator[ListedKey]:
        """In binary order of the keys; complete, or raising."""
        ...

    def begin_upload(self, key: str) -> str: ...

    def upload_part(self, key: str, upload_id: str, number: int, content: bytes) -> str: ...

    def copy_part(self, key: str, upload_id: str, number: int, source: str, byte_range: ByteRange) -> str: ...

    def complete_upload(self, key: str, upload_id: str, tags: Sequence[str]) -> None: ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Aborting what has ended is success."""
        ...

    def pending_uploads(self) -> Iterator[PendingUpload]: ...
