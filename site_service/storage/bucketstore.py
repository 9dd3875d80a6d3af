"""An artifact store in a bucket: which key holds what, and in which order the keys are written.

    objects/abc/<id>         the bytes; the first three hex digits of the id are the storage bucket
    objects/abc/<id>.json    the facts (`records`), written before the bytes become visible
    transactions/<id>/…      put transactions (`objecttransactions`)

Both keys of an object are neighbours in the one listing that S3 sorts. Facts are no object metadata, because digests are
known only when the last byte has gone, and because metadata can only be changed by copying the object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby, islice

from datamodel.errors import (
    CallerError,
    NotConfiguredError,
    RangeNotSatisfiableError,
    StorageError,
    StoredObjectMissingError,
)
from site_service.storage.bucket import Bucket, ListedKey
from site_service.storage.contract import (
    ByteRange,
    ContentFacts,
    ContentSource,
    ExpectedContent,
    FreeSpace,
    InvalidObject,
    ListedObject,
    ListingEnd,
    PutTransactionStatus,
    Readable,
    StoreCapabilities,
    StoredObject,
    Write,
)
from site_service.storage.digests import DigestPlan, MeasuredContent
from site_service.storage.groups import one_by_one
from site_service.storage.listings import with_end
from site_service.storage.objecttransactions import ObjectTransactions
from site_service.storage.objectupload import MAX_PARTS, MIN_PART, KeyWriter
from site_service.storage.records import (
    TransactionState,
    encode_object,
    is_storage_id,
    judged,
    new_storage_id,
    now,
)

DEFAULT_PART_SIZE = 16 * 1024 * 1024
_BUCKET_DIGITS = 3
_ROOT = "objects/"
_FACTS_SUFFIX = ".json"
_LARGEST_OBJECT = 5 << 40
_FACTS_AT_ONCE = 64
_FACTS_THREADS = 8


@dataclass(frozen=True, slots=True)
class _ListedObject:
    """Keys of one id as listed: its bytes, its facts, or both."""

    storage_id: str
    content: ListedKey | None
    facts: ListedKey | None


class BucketStore:
    """An `ArtifactStore` over any `Bucket`. Raises `NotConfiguredError` for a part size below 5 MiB."""

    def __init__(self, bucket: Bucket, *, content_algorithm: str, sha256: bool, part_size: int) -> None:
        if part_size < MIN_PART:
            raise NotConfiguredError(f"the part size must be at least {MIN_PART} bytes")
        self._bucket = bucket
        self._part_size = part_size
        self._plan = DigestPlan(content_algorithm, sha256)
        self._transactions = ObjectTransactions(bucket, self._plan, part_size)

    @property
    def capabilities(self) -> StoreCapabilities:
        """Shorter segments are taken too, but a commit must then send all bytes again instead of copying in place."""
        longest = min(self._part_size * MAX_PARTS, _LARGEST_OBJECT)
        return StoreCapabilities(is_local=False, min_segment=MIN_PART, max_segment=longest, max_length=longest)

    def write(
        self, content: ContentSource, facts: ContentFacts, expected: ExpectedContent | None = None
    ) -> StoredObject:
        """See the contract; also raises `ContentTooLargeError` beyond `capabilities.max_length`."""
        storage_id = new_storage_id()
        with ExitStack() as undo, closing(self._plan.hasher(expected)) as hasher:
            undo.callback(self._discard, storage_id)
            measured = MeasuredContent(content, self._limited(expected), hasher)
            with KeyWriter(self._bucket, _content_key(storage_id), self._part_size) as writer:
                writer.add_all(measured)
                stored = self._stored(storage_id, measured.result.length, measured.result.checksums, facts)
                self._bucket.put(_facts_key(storage_id), encode_object(stored))
                writer.publish(stored.length)
            undo.pop_all()
        return stored

    def write_all(self, writes: Sequence[Write]) -> list[StoredObject | CallerError]:
        return one_by_one(self, writes)

    def open(
        self,
        storage_id: str,
        *,
        expected_length: int,
        byte_range: ByteRange | None = None,
        drop_behind: bool = False,
    ) -> Readable:
        del drop_behind
        if byte_range and (byte_range.start < 0 or byte_range.start + byte_range.length > expected_length):
            raise RangeNotSatisfiableError("the range lies outside the content", length=expected_length)
        opened = self._bucket.open(_content_key(storage_id), byte_range) if is_storage_id(storage_id) else None
        if opened is None:
            raise _missing(storage_id)
        if opened.total_length != expected_length:
            opened.body.close()
            raise StoredObjectMissingError(
                f"object {storage_id} has {opened.total_length} bytes, not {expected_length}", storage_id=storage_id
            )
        return opened.body

    def stat(self, storage_id: str) -> StoredObject | InvalidObject:
        length = self._bucket.length(_content_key(storage_id)) if is_storage_id(storage_id) else None
        found = self._read_record(storage_id, length) if length is not None else None
        if found is None:
            raise _missing(storage_id)
        return judged(found)

    def set_facts(self, storage_id: str, facts: ContentFacts) -> None:
        """Raises `StoredObjectMissingError` also when the present facts cannot be read."""
        present = self.stat(storage_id)
        if isinstance(present, InvalidObject):
            raise StoredObjectMissingError(f"object {storage_id}: {present.reason}", storage_id=storage_id)
        self._bucket.put(_facts_key(storage_id), encode_object(replace(present, facts=facts)))

    def remove(self, storage_id: str) -> None:
        """Bytes first: facts alone are never listed, and swept."""
        if is_storage_id(storage_id):
            self._bucket.delete(_content_key(storage_id))
            self._bucket.delete(_facts_key(storage_id))

    def iterate(self, bucket_prefix: str = "") -> Iterator[StoredObject | InvalidObject]:
        return map(judged, self._with_records(bucket_prefix))

    def listing(self, bucket_prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        return with_end(self._with_records(bucket_prefix))

    def begin(self, facts: ContentFacts) -> PutTransactionStatus:
        return self._transactions.begin(facts)

    def append(
        self, transaction_id: str, content: ContentSource, expected: ExpectedContent | None = None
    ) -> PutTransactionStatus:
        return self._transactions.append(transaction_id, content, self._limited(expected))

    def revert(self, transaction_id: str) -> PutTransactionStatus:
        return self._transactions.revert(transaction_id)

    def status(self, transaction_id: str) -> PutTransactionStatus:
        return self._transactions.status(transaction_id)

    def commit(self, transaction_id: str, facts: ContentFacts) -> StoredObject:
        """The storage id is the transaction's: a commit that was killed half way is finished by committing again."""
        state = self._transactions.close(transaction_id)
        stored = self._stored(transaction_id, state.length, state.checksums, facts)
        self._bucket.put(_facts_key(transaction_id), encode_object(stored))
        self._publish(transaction_id, state)
        self._transactions.drop(transaction_id)
        return stored

    def abort(self, transaction_id: str) -> None:
        self._transactions.drop(transaction_id)

    def stale_transactions(self, older_than: datetime) -> list[str]:
        return self._transactions.stale(older_than)

    def sweep_temporary(self, older_than: datetime) -> int:
        """Abort forgotten uploads, remove facts without bytes and what is left of put transactions; lists the bucket."""
        swept = 0
        for upload in self._bucket.pending_uploads():
            if upload.touched_at < older_than:
                self._bucket.abort_upload(upload.key, upload.upload_id)
                swept += 1
        for listed in self._listed(""):
            if listed.content is None and listed.facts and listed.facts.modified_at < older_than:
                self._bucket.delete(listed.facts.key)
                swept += 1
        return swept + self._transactions.sweep(older_than)

    def free_space(self) -> FreeSpace:
        return FreeSpace(total=None, free=None)

    def _limited(self, expected: ExpectedContent | None) -> ExpectedContent:
        limits = (expected.max_length if expected else None, self.capabilities.max_length)
        lowest = min(limit for limit in limits if limit is not None)
        return replace(expected or ExpectedContent(), max_length=lowest)

    def _stored(self, storage_id: str, length: int, checksums: dict[str, str], facts: ContentFacts) -> StoredObject:
        kept = self._plan.select(checksums)
        return StoredObject(storage_id, storage_id[:_BUCKET_DIGITS], length, kept, facts, now())

    def _publish(self, transaction_id: str, state: TransactionState) -> None:
        """Another process may have done it, or do it at this moment and take the segments away: who commits may have asked twice."""
        key = _content_key(transaction_id)
        if self._bucket.length(key) == state.length:
            return
        try:
            self._transactions.publish(state, key)
        except StorageError:
            if self._bucket.length(key) != state.length:
                raise

    def _discard(self, storage_id: str) -> None:
        """Undo a failed write; what cannot be removed now is found by the sweep."""
        with suppress(StorageError):
            self.remove(storage_id)

    def _listed(self, bucket_prefix: str) -> Iterator[_ListedObject]:
        """Keys of one id are neighbours: an id has no other as its prefix, and both keys begin with it."""
        for storage_id, group in groupby(self._bucket.list(_ROOT + bucket_prefix), _storage_id):
            keys = {listed.key.endswith(_FACTS_SUFFIX): listed for listed in group}
            yield _ListedObject(storage_id, content=keys.get(False), facts=keys.get(True))

    def _with_records(self, bucket_prefix: str) -> Iterator[ListedObject | InvalidObject]:
        """One listing, and one small read per object, a few of them at once."""
        listed = self._listed(bucket_prefix)
        with ThreadPoolExecutor(_FACTS_THREADS, "facts") as pool:
            while batch := list(islice(listed, _FACTS_AT_ONCE)):
                yield from (found for found in pool.map(self._with_record, batch) if found)

    def _with_record(self, listed: _ListedObject) -> ListedObject | InvalidObject | None:
        if listed.content is None:
            return None
        bucket = listed.content.key.removeprefix(_ROOT).partition("/")[0]
        if not is_storage_id(listed.storage_id):
            return InvalidObject(listed.storage_id, bucket, "no object of this store has such a name")
        return self._read_record(listed.storage_id, listed.content.length)

    def _read_record(self, storage_id: str, length: int) -> ListedObject | None:
        """None when the object is gone by now."""
        found = self._bucket.get(_facts_key(storage_id))
        if found is None and self._bucket.length(_content_key(storage_id)) is None:
            return None
        return ListedObject(storage_id[:_BUCKET_DIGITS], storage_id, length, found and found[0])


def _content_key(storage_id: str) -> str:
    return f"{_ROOT}{storage_id[:_BUCKET_DIGITS]}/{storage_id}"


def _facts_key(storage_id: str) -> str:
    return _content_key(storage_id) + _FACTS_SUFFIX


def _storage_id(listed: ListedKey) -> str:
    return listed.key.rpartition("/")[2].removesuffix(_FACTS_SUFFIX)


def _missing(storage_id: str) -> StoredObjectMissingError:
    return StoredObjectMissingError("the store has no such object", storage_id=storage_id)
