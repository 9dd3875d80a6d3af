"""Put transactions of the object store: each append is a key of its own, the record is a small object replaced whole.

    transactions/<transaction id>/state.json      the record (`records.TransactionState`)
    transactions/<transaction id>/<segment id>    the bytes of one append

The record is only ever replaced over the version that was read (If-Match): of two appends at once one is refused. Keys
that the record does not name do not count; they go with the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from operator import itemgetter

from datamodel.errors import (
    InventoryError,
    StateConflictError,
    StorageError,
    StoredObjectMissingError,
    TransactionNotFoundError,
)
from site_service.storage.bucket import Bucket, ListedKey
from site_service.storage.contract import ContentFacts, ContentSource, ExpectedContent, PutTransactionStatus
from site_service.storage.digests import BLOCK_SIZE, DigestPlan, MeasuredContent, MultiHasher, RunningDigests
from site_service.storage.objectupload import MIN_PART, KeyWriter, MultipartUpload
from site_service.storage.records import (
    DamagedRecordError,
    Segment,
    TransactionState,
    decode_transaction,
    encode_transaction,
    is_storage_id,
    new_storage_id,
    new_transaction_id,
)

_ROOT = "transactions/"
_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class _Version:
    """The record of a transaction as it was read."""

    transaction_id: str
    state: TransactionState
    tag: str


class ObjectTransactions:
    """All put transactions of a bucket. Raises as the store contract says."""

    def __init__(self, bucket: Bucket, plan: DigestPlan, part_size: int) -> None:
        self._bucket = bucket
        self._plan = plan
        self._part_size = part_size
        self._running = RunningDigests()

    def begin(self, facts: ContentFacts) -> PutTransactionStatus:
        transaction_id = new_transaction_id()
        state = TransactionState(facts, self._plan.hasher(None).hexdigests())
        self._bucket.put(_key(transaction_id, _STATE), encode_transaction(state))
        return state.status(transaction_id)

    def append(
        self, transaction_id: str, content: ContentSource, expected: ExpectedContent | None
    ) -> PutTransactionStatus:
        """The bytes under a new key, then the record that names it: until then nothing has happened."""
        version = self._load_open(transaction_id)
        key = _key(transaction_id, new_storage_id())
        with self._hasher(version, expected) as hasher:
            measured = MeasuredContent(content, expected, hasher)
            self._write_segment(key, measured)
            end = version.state.length + measured.result.length
            segment = Segment(end, self._plan.select(hasher.hexdigests()), key)
        state = replace(version.state, segments=(*version.state.segments, segment))
        try:
            self._record(version, state)
        except (StateConflictError, TransactionNotFoundError):
            # Surely not recorded. After any other failure it may be: then the bytes must stay.
            self._bucket.delete(key)
            raise
        self._running.keep(transaction_id, hasher)
        return state.status(transaction_id)

    def revert(self, transaction_id: str) -> PutTransactionStatus:
        """The record first, then the bytes that it names no more."""
        version = self._load_open(transaction_id)
        if not version.state.segments:
            raise StateConflictError("this put transaction holds no append to revert")
        *kept, last = version.state.segments
        state = replace(version.state, segments=tuple(kept))
        self._record(version, state)
        with suppress(StorageError):
            self._bucket.delete(last.key)
        return state.status(transaction_id)

    def status(self, transaction_id: str) -> PutTransactionStatus:
        return self._load(transaction_id).state.status(transaction_id)

    def close(self, transaction_id: str) -> TransactionState:
        """Let nobody append or revert any more; closing a closed one again is how a killed commit goes on."""
        version = self._load(transaction_id)
        if not version.state.is_closed:
            self._record(version, replace(version.state, is_closed=True))
        return version.state

    def publish(self, state: TransactionState, key: str) -> None:
        """Make its bytes the content of `key`: copied inside the object store if the segments are long enough as parts."""
        segments = [segment for segment in _with_lengths(state) if segment[1]]
        if len(segments) > 1 and all(length >= MIN_PART for _, length in segments[:-1]):
            with MultipartUpload(self._bucket, key) as upload:
                for source, length in segments:
                    upload.copy(source, length)
                upload.complete(state.length)
            return
        with closing(self._plan.hasher(None)) as hasher, KeyWriter(self._bucket, key, self._part_size) as writer:
            expected = ExpectedContent(state.length, dict(state.checksums))
            measured = MeasuredContent(_Blocks(self._read(state)), expected, hasher)
            writer.add_all(measured)
            writer.publish(state.length)

    def drop(self, transaction_id: str) -> None:
        """The record goes first: what is left over then is swept."""
        if not is_storage_id(transaction_id):
            return
        self._running.forget(transaction_id)
        self._bucket.delete(_key(transaction_id, _STATE))
        for listed in self._bucket.list(_key(transaction_id, "")):
            self._bucket.delete(listed.key)

    def stale(self, older_than: datetime) -> list[str]:
        """Ids whose keys were all written before."""
        return [name for name, listed in self._groups() if _has_state(listed) and _is_older(listed, older_than)]

    def sweep(self, older_than: datetime) -> int:
        """Drop what has no record: dropped half, or appended to a dropped transaction."""
        groups = ((name, listed) for name, listed in self._groups() if not _has_state(listed))
        leftovers = [name for name, listed in groups if _is_older(listed, older_than)]
        for name in leftovers:
            self.drop(name)
        return len(leftovers)

    def _write_segment(self, key: str, measured: MeasuredContent) -> None:
        with KeyWriter(self._bucket, key, self._part_size) as writer:
            writer.add_all(measured)
            writer.publish(measured.result.length)

    def _load(self, transaction_id: str) -> _Version:
        found = self._bucket.get(_key(transaction_id, _STATE)) if is_storage_id(transaction_id) else None
        if found is None:
            raise TransactionNotFoundError("no such put transaction", transaction_id=transaction_id)
        record, tag = found
        try:
            return _Version(transaction_id, decode_transaction(record), tag)
        except DamagedRecordError as error:
            raise StoredObjectMissingError(f"the record of this put transaction is damaged: {error}") from error

    def _load_open(self, transaction_id: str) -> _Version:
        version = self._load(transaction_id)
        if version.state.is_closed:
            raise StateConflictError("this put transaction is being committed")
        return version

    def _record(self, version: _Version, state: TransactionState) -> None:
        """Replace the record. A refusal or lost answer is no failure if the record is ours: the client library repeats puts."""
        key = _key(version.transaction_id, _STATE)
        try:
            self._bucket.put(key, encode_transaction(state), replacing=version.tag)
        except InventoryError:
            if self._load(version.transaction_id).state != state:
                raise

    @contextmanager
    def _hasher(self, version: _Version, expected: ExpectedContent | None) -> Iterator[MultiHasher]:
        """A hasher that has seen the recorded bytes: kept in this process, or made by reading them again."""
        fresh = self._plan.hasher(expected)
        with closing(self._running.resume(version.transaction_id, version.state, fresh)) as hasher:
            if hasher.length < version.state.length:
                for block in self._read(version.state):
                    hasher.update(block)
            yield hasher

    def _read(self, state: TransactionState) -> Iterator[bytes]:
        for key, length in _with_lengths(state):
            opened = self._bucket.open(key)
            if opened is None or opened.total_length != length:
                raise StoredObjectMissingError("a segment of this put transaction is gone")
            with closing(opened.body) as body:
                while block := body.read(BLOCK_SIZE):
                    yield block

    def _groups(self) -> Iterator[tuple[str, list[ListedKey]]]:
        listed = ((key.key.removeprefix(_ROOT).partition("/")[0], key) for key in self._bucket.list(_ROOT))
        for name, group in groupby(listed, itemgetter(0)):
            yield name, [key for _, key in group]


class _Blocks:
    """Blocks as a content source."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks

    def read(self, size: int, /) -> bytes:
        del size  # The blocks are of the size that everybody asks for.
        return next(self._blocks, b"")


def _key(transaction_id: str, name: str) -> str:
    return f"{_ROOT}{transaction_id}/{name}"


def _with_lengths(state: TransactionState) -> list[tuple[str, int]]:
    starts = (0, *(segment.end for segment in state.segments))
    return [(segment.key, segment.end - start) for segment, start in zip(state.segments, starts, strict=False)]


def _has_state(listed: Iterable[ListedKey]) -> bool:
    return any(key.key.endswith(_STATE) for key in listed)


def _is_older(listed: Iterable[ListedKey], moment: datetime) -> bool:
    return all(key.modified_at < moment for key in listed)
