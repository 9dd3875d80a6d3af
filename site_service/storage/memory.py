"""A store in memory, under the same contract: for tests and rehearsals. It forgets everything with the process."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from datamodel.errors import (
    CallerError,
    RangeNotSatisfiableError,
    StateConflictError,
    StoredObjectMissingError,
    TransactionNotFoundError,
)
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
from site_service.storage.records import (
    Segment,
    TransactionState,
    encode_object,
    judged,
    new_storage_id,
    new_transaction_id,
    now,
)

_BUCKET_DIGITS = 3


@dataclass(slots=True)
class _Transaction:
    """An open put transaction."""

    state: TransactionState
    lock: threading.Lock
    touched_at: datetime
    content: bytes = b""


class MemoryStore:
    """An `ArtifactStore` for tests; safe for threads."""

    def __init__(self, *, content_algorithm: str = "md5", sha256: bool = True) -> None:
        self._plan = DigestPlan(content_algorithm, sha256)
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[StoredObject, bytes]] = {}
        self._transactions: dict[str, _Transaction] = {}

    @property
    def capabilities(self) -> StoreCapabilities:
        return StoreCapabilities(is_local=False, min_segment=1, max_segment=None, max_length=None)

    def write(
        self, content: ContentSource, facts: ContentFacts, expected: ExpectedContent | None = None
    ) -> StoredObject:
        with closing(self._plan.hasher(expected)) as hasher:
            measured = MeasuredContent(content, expected, hasher)
            held = b"".join(measured)
            return self._keep(new_storage_id(), held, measured.result.checksums, facts)

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
        asked = byte_range or ByteRange(0, expected_length)
        if asked.start < 0 or asked.start + asked.length > expected_length:
            raise RangeNotSatisfiableError("the range lies outside the content", length=expected_length)
        _, content = self._find(storage_id)
        if len(content) != expected_length:
            raise StoredObjectMissingError(f"object {storage_id} has {len(content)} bytes, not {expected_length}")
        return io.BytesIO(content[asked.start : asked.start + asked.length])

    def stat(self, storage_id: str) -> StoredObject | InvalidObject:
        return self._find(storage_id)[0]

    def set_facts(self, storage_id: str, facts: ContentFacts) -> None:
        with self._lock:
            stored, content = self._find(storage_id)
            self._objects[storage_id] = (replace(stored, facts=facts), content)

    def remove(self, storage_id: str) -> None:
        with self._lock:
            self._objects.pop(storage_id, None)

    def iterate(self, bucket_prefix: str = "") -> Iterator[StoredObject | InvalidObject]:
        return map(judged, self._listed(bucket_prefix))

    def listing(self, bucket_prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        return with_end(self._listed(bucket_prefix))

    def begin(self, facts: ContentFacts) -> PutTransactionStatus:
        transaction_id = new_transaction_id()
        state = TransactionState(facts, self._plan.hasher(None).hexdigests())
        self._transactions[transaction_id] = _Transaction(state, threading.Lock(), now())
        return state.status(transaction_id)

    def append(
        self, transaction_id: str, content: ContentSource, expected: ExpectedContent | None = None
    ) -> PutTransactionStatus:
        with self._changing(transaction_id) as transaction, closing(self._plan.hasher(expected)) as hasher:
            if transaction.content:
                hasher.update(transaction.content)
            held = transaction.content + b"".join(MeasuredContent(content, expected, hasher))
            segment = Segment(len(held), self._plan.select(hasher.hexdigests()))
            transaction.content = held
            transaction.state = replace(transaction.state, segments=(*transaction.state.segments, segment))
            return transaction.state.status(transaction_id)

    def revert(self, transaction_id: str) -> PutTransactionStatus:
        with self._changing(transaction_id) as transaction:
            if not transaction.state.segments:
                raise StateConflictError("this put transaction holds no append to revert")
            transaction.state = replace(transaction.state, segments=transaction.state.segments[:-1])
            transaction.content = transaction.content[: transaction.state.length]
            return transaction.state.status(transaction_id)

    def status(self, transaction_id: str) -> PutTransactionStatus:
        return self._open(transaction_id).state.status(transaction_id)

    def commit(self, transaction_id: str, facts: ContentFacts) -> StoredObject:
        with self._changing(transaction_id) as transaction:
            stored = self._keep(transaction_id, transaction.content, transaction.state.checksums, facts)
            del self._transactions[transaction_id]
            return stored

    def abort(self, transaction_id: str) -> None:
        if transaction_id in self._transactions:
            with self._changing(transaction_id):
                del self._transactions[transaction_id]

    def stale_transactions(self, older_than: datetime) -> list[str]:
        return [key for key, transaction in self._transactions.items() if transaction.touched_at < older_than]

    def sweep_temporary(self, older_than: datetime) -> int:
        del older_than  # Nothing is ever left over here.
        return 0

    def free_space(self) -> FreeSpace:
        return FreeSpace(total=None, free=None)

    def damage(self, storage_id: str, content: bytes) -> None:
        """For tests: replace the bytes without anybody noticing."""
        stored, _ = self._find(storage_id)
        self._objects[storage_id] = (stored, content)

    def _listed(self, bucket_prefix: str) -> Iterator[ListedObject]:
        with self._lock:
            listed = sorted((stored.storage_bucket, key) for key, (stored, _) in self._objects.items())
        for bucket, storage_id in listed:
            held = self._objects.get(storage_id)
            if held and bucket.startswith(bucket_prefix):
                yield ListedObject(bucket, storage_id, held[0].length, encode_object(held[0]))

    def _keep(self, storage_id: str, content: bytes, checksums: dict[str, str], facts: ContentFacts) -> StoredObject:
        bucket = storage_id[:_BUCKET_DIGITS]
        stored = StoredObject(storage_id, bucket, len(content), self._plan.select(checksums), facts, now())
        with self._lock:
            self._objects[storage_id] = (stored, content)
        return stored

    def _find(self, storage_id: str) -> tuple[StoredObject, bytes]:
        try:
            return self._objects[storage_id]
        except KeyError:
            raise StoredObjectMissingError("the store has no such object", storage_id=storage_id) from None

    def _open(self, transaction_id: str) -> _Transaction:
        try:
            return self._transactions[transaction_id]
        except KeyError:
            raise TransactionNotFoundError("no such put transaction", transaction_id=transaction_id) from None

    @contextmanager
    def _changing(self, transaction_id: str) -> Iterator[_Transaction]:
        transaction = self._open(transaction_id)
        if not transaction.lock.acquire(blocking=False):
            raise StateConflictError("another request is writing to this put transaction")
        try:
            yield transaction
            transaction.touched_at = now()
        finally:
            transaction.lock.release()
