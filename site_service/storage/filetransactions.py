"""Put transactions of the POSIX store: one directory each, with the bytes, the recorded state and a lock file.

<transaction id>/content      all bytes appended so far; what lies beyond the recorded length never counts
<transaction id>/state.json   the record (`records.TransactionState`), replaced whole after the bytes are durable
<transaction id>/lock         held (flock) by whoever changes it; the kernel frees it when the process dies
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from datamodel.errors import (
    StateConflictError,
    StorageError,
    StorageUnavailableError,
    StoredObjectMissingError,
    TransactionNotFoundError,
)
from site_service.storage.contract import ContentFacts, ContentSource, ExpectedContent, PutTransactionStatus
from site_service.storage.digests import BLOCK_SIZE, DigestPlan, MeasuredContent, MultiHasher, RunningDigests
from site_service.storage.disk import Disk
from site_service.storage.records import (
    DamagedRecordError,
    Segment,
    TransactionState,
    decode_transaction,
    encode_transaction,
    is_storage_id,
    new_transaction_id,
)

_STATE, _CONTENT, _LOCK = "state.json", "content", "lock"


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A put transaction while its lock is held."""

    transaction_id: str
    directory: Path
    state: TransactionState

    @property
    def content(self) -> Path:
        return self.directory / _CONTENT


class FileTransactions:
    """All put transactions below one directory. Raises as the store contract says."""

    def __init__(self, disk: Disk, root: Path, plan: DigestPlan, on_drop: Callable[[str], None]) -> None:
        """`on_drop` removes what a killed commit of that id may have left elsewhere."""
        self._disk = disk
        self._on_drop = on_drop
        self._root = root
        self._plan = plan
        self._running = RunningDigests()

    def begin(self, facts: ContentFacts) -> PutTransactionStatus:
        """The state comes last: a directory without one was never begun and is swept."""
        transaction_id = new_transaction_id()
        directory = self._root / transaction_id
        state = TransactionState(facts, self._plan.hasher(None).hexdigests())
        self._disk.make_directory(directory)
        self._disk.write_new(directory / _LOCK, b"")
        self._disk.write_new(directory / _CONTENT, b"")
        self._save(directory, state)
        self._disk.sync_directory(self._root)
        return state.status(transaction_id)

    def append(
        self, transaction_id: str, content: ContentSource, expected: ExpectedContent | None
    ) -> PutTransactionStatus:
        """Bytes, sync, then the record: until the record is replaced nothing has happened."""
        with self.changing(transaction_id) as transaction, self._hasher(transaction, expected) as hasher:
            end = transaction.state.length + self._append_bytes(transaction, MeasuredContent(content, expected, hasher))
            segment = Segment(end, self._plan.select(hasher.hexdigests()))
            state = replace(transaction.state, segments=(*transaction.state.segments, segment))
            self._save(transaction.directory, state)
        self._running.keep(transaction_id, hasher)
        return state.status(transaction_id)

    def revert(self, transaction_id: str) -> PutTransactionStatus:
        """The record first: bytes beyond it do not count, bytes missing below it would be a loss."""
        with self.changing(transaction_id) as transaction:
            if not transaction.state.segments:
                raise StateConflictError("this put transaction holds no append to revert")
            state = replace(transaction.state, segments=transaction.state.segments[:-1])
            self._save(transaction.directory, state)
            self.cut(replace(transaction, state=state))
        return state.status(transaction_id)

    def status(self, transaction_id: str) -> PutTransactionStatus:
        return self._load(transaction_id).status(transaction_id)

    def abort(self, transaction_id: str) -> None:
        if not is_storage_id(transaction_id):
            return
        with self._disk.locked(self._root / transaction_id / _LOCK) as is_there:
            if is_there:
                self.drop(transaction_id)
            else:
                self._require_root()

    def drop(self, transaction_id: str) -> None:
        """Forget it durably (the record goes first), then free its bytes. The lock must be held."""
        directory = self._root / transaction_id
        self._running.forget(transaction_id)
        self._disk.unlink(directory / _STATE)
        self._disk.sync_directory(directory)
        self._on_drop(transaction_id)
        for name in self._disk.names(directory):
            self._disk.unlink(directory / name)
        self._disk.remove_directory(directory)

    def stale(self, older_than: datetime) -> list[str]:
        """Ids whose record and bytes were last touched before."""
        return [name for name in self._untouched_since(older_than) if self._disk.status(self._root / name / _STATE)]

    def sweep(self, older_than: datetime) -> int:
        """Remove directories that hold no record: begun or dropped half."""
        leftovers = [
            name for name in self._untouched_since(older_than) if not self._disk.status(self._root / name / _STATE)
        ]
        for name in leftovers:
            self.drop(name)
        return len(leftovers)

    @contextmanager
    def changing(self, transaction_id: str) -> Iterator[OpenTransaction]:
        """Hold its lock. Raises `TransactionNotFoundError`, `StateConflictError`."""
        self._known(transaction_id)
        directory = self._root / transaction_id
        with self._disk.locked(directory / _LOCK) as is_there:
            if not is_there:
                raise self._not_found(transaction_id)
            yield OpenTransaction(transaction_id, directory, self._load(transaction_id))

    def cut(self, transaction: OpenTransaction) -> None:
        """Drop what a killed append left beyond the recorded length."""
        descriptor = self._open_at_end(transaction)
        self._disk.close(descriptor)

    def _append_bytes(self, transaction: OpenTransaction, measured: MeasuredContent) -> int:
        descriptor = self._open_at_end(transaction)
        try:
            self._disk.write_all(descriptor, measured, transaction.state.length)
            self._disk.sync(descriptor)
            return measured.result.length
        except BaseException:
            # Only to free the space at once: the record still says the old length, and that is what counts.
            with suppress(StorageError):
                self._disk.truncate(descriptor, transaction.state.length)
            raise
        finally:
            self._disk.close(descriptor)

    def _open_at_end(self, transaction: OpenTransaction) -> int:
        descriptor = self._disk.open(transaction.content, os.O_RDWR)
        if descriptor is None:
            raise StoredObjectMissingError("the bytes of this put transaction are gone")
        if self._disk.size(descriptor) < transaction.state.length:
            self._disk.close(descriptor)
            raise StoredObjectMissingError("the put transaction holds fewer bytes than were recorded")
        self._disk.truncate(descriptor, transaction.state.length)
        return descriptor

    @contextmanager
    def _hasher(self, transaction: OpenTransaction, expected: ExpectedContent | None) -> Iterator[MultiHasher]:
        """A hasher that has seen the recorded bytes: kept in this process, or made by reading them again."""
        fresh = self._plan.hasher(expected)
        with closing(self._running.resume(transaction.transaction_id, transaction.state, fresh)) as hasher:
            if hasher.length < transaction.state.length:
                self._reread(transaction, hasher)
            yield hasher

    def _reread(self, transaction: OpenTransaction, hasher: MultiHasher) -> None:
        descriptor = self._disk.open(transaction.content)
        if descriptor is None:
            raise StoredObjectMissingError("the bytes of this put transaction are gone")
        with self._disk.reader(descriptor, 0, transaction.state.length) as stored:
            while block := stored.read(BLOCK_SIZE):
                hasher.update(block)

    def _load(self, transaction_id: str) -> TransactionState:
        self._known(transaction_id)
        record = self._disk.read(self._root / transaction_id / _STATE)
        if record is None:
            raise self._not_found(transaction_id)
        try:
            return decode_transaction(record)
        except DamagedRecordError as error:
            raise StoredObjectMissingError(f"the record of this put transaction is damaged: {error}") from error

    def _save(self, directory: Path, state: TransactionState) -> None:
        self._disk.replace(directory / _STATE, encode_transaction(state), through=directory / "state.new")

    def _known(self, transaction_id: str) -> None:
        if not is_storage_id(transaction_id):
            raise self._not_found(transaction_id)

    def _untouched_since(self, moment: datetime) -> list[str]:
        return [name for name in self._disk.names(self._root) if self._touched_at(name) < moment.timestamp()]

    def _touched_at(self, name: str) -> float:
        directory = self._root / name
        seen = (self._disk.status(path) for path in (directory, directory / _STATE, directory / _CONTENT))
        return max((status.st_mtime for status in seen if status), default=0.0)

    def _not_found(self, transaction_id: str) -> TransactionNotFoundError:
        self._require_root()
        return TransactionNotFoundError("no such put transaction", transaction_id=transaction_id)

    def _require_root(self) -> None:
        if self._disk.status(self._root) is None:
            raise StorageUnavailableError("the put transactions have vanished: is the disk mounted?")
