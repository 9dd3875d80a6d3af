"""Content of any length into one key of a bucket with flat memory; nothing is visible before `publish`."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from types import TracebackType
from typing import Self

from datamodel.errors import StorageError, StorageUnavailableError
from site_service.storage.bucket import Bucket
from site_service.storage.contract import ByteRange

MIN_PART = 5 * 1024 * 1024
MAX_PARTS = 10_000
# Copies happen inside the object store while we wait for one answer: small enough to answer within the read timeout.
_COPY_SIZE = 256 * 1024 * 1024


class MultipartUpload:
    """One multipart upload: aborted on leaving the context unless it was completed."""

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._upload_id = bucket.begin_upload(key)
        self._tags: list[str] = []
        self._is_complete = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_complete:
            with suppress(StorageError):
                self._bucket.abort_upload(self._key, self._upload_id)

    def add(self, content: bytes) -> None:
        """The next part."""
        tag = self._bucket.upload_part(self._key, self._upload_id, len(self._tags) + 1, content)
        self._tags.append(tag)

    def copy(self, source: str, length: int) -> None:
        """All of another key as the next parts, of about equal size (a short rest would be below the least part)."""
        count = -(-length // _COPY_SIZE)
        edges = [length * index // count for index in range(count + 1)]
        for start, end in pairwise(edges):
            number, byte_range = len(self._tags) + 1, ByteRange(start, end - start)
            self._tags.append(self._bucket.copy_part(self._key, self._upload_id, number, source, byte_range))

    def complete(self, length: int) -> None:
        """Make it visible. An answer that was lost is no failure if the whole object is there."""
        try:
            self._bucket.complete_upload(self._key, self._upload_id, self._tags)
        except StorageError:
            if self._bucket.length(self._key) != length:
                raise
        self._is_complete = True
        require_length(self._bucket, self._key, length)


class KeyWriter:
    """Collects parts and uploads one while the next is being read; short content is a single put.

    Holds at most two parts in memory. Leaving the context before `publish` leaves nothing in the bucket.
    """

    def __init__(self, bucket: Bucket, key: str, part_size: int) -> None:
        self._bucket = bucket
        self._key = key
        self._part_size = part_size
        self._blocks: list[bytes] = []
        self._held = 0
        self._upload: MultipartUpload | None = None
        self._thread = ThreadPoolExecutor(1, "part-upload")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if self._upload:
            self._upload.__exit__(kind, error, trace)

    def add_all(self, blocks: Iterable[bytes]) -> None:
        for block in blocks:
            self._add(block)

    def publish(self, length: int) -> None:
        """Make all of it visible at once; `length` is what must be there then."""
        if self._upload is None:
            self._bucket.put(self._key, b"".join(self._blocks))
            return
        if self._held:
            self._flush(self._upload)
        self._settle()
        self._upload.complete(length)

    def _add(self, block: bytes) -> None:
        """A part goes when more than a part is there: content of exactly one part is still a single put."""
        if self._held == self._part_size:
            self._upload = self._upload or MultipartUpload(self._bucket, self._key)
            self._flush(self._upload)
        room = self._part_size - self._held
        self._blocks.append(block[:room])
        self._held += min(len(block), room)
        if len(block) > room:
            self._add(block[room:])

    def _flush(self, upload: MultipartUpload) -> None:
        """The part before must be gone before this one is put together, so that no third part is in memory."""
        self._settle()
        part = b"".join(self._blocks)
        self._blocks, self._held = [], 0
        self._pending = self._thread.submit(upload.add, part)

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending:
            pending.result()


def require_length(bucket: Bucket, key: str, length: int) -> None:
    """Raise `StorageUnavailableError` (and take the object away) unless it has that length."""
    found = bucket.length(key)
    if found != length:
        bucket.delete(key)
        raise StorageUnavailableError(f"the object store kept {found} of {length} bytes")
