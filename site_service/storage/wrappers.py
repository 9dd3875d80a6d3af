"""Stores around stores: the same contract with one rule added."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NoReturn

from datamodel.errors import ReadOnlyError
from site_service.storage.contract import (
    ArtifactStore,
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


class ReadOnlyStore:
    """Reads pass; whatever would change the store raises `ReadOnlyError` (a disk being moved, a site being retired)."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    @property
    def capabilities(self) -> StoreCapabilities:
        return self._store.capabilities

    def open(
        self,
        storage_id: str,
        *,
        expected_length: int,
        byte_range: ByteRange | None = None,
        drop_behind: bool = False,
    ) -> Readable:
        return self._store.open(
            storage_id, expected_length=expected_length, byte_range=byte_range, drop_behind=drop_behind
        )

    def stat(self, storage_id: str) -> StoredObject | InvalidObject:
        return self._store.stat(storage_id)

    def iterate(self, bucket_prefix: str = "") -> Iterator[StoredObject | InvalidObject]:
        return self._store.iterate(bucket_prefix)

    def listing(self, bucket_prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        return self._store.listing(bucket_prefix)

    def status(self, transaction_id: str) -> PutTransactionStatus:
        return self._store.status(transaction_id)

    def stale_transactions(self, older_than: datetime) -> list[str]:
        return self._store.stale_transactions(older_than)

    def free_space(self) -> FreeSpace:
        return self._store.free_space()

    def write(self, content: ContentSource, facts: ContentFacts, expected: ExpectedContent | None = None) -> NoReturn:
        del content, facts, expected
        _refuse()

    def write_all(self, writes: Sequence[Write]) -> NoReturn:
        del writes
        _refuse()

    def set_facts(self, storage_id: str, facts: ContentFacts) -> NoReturn:
        del storage_id, facts
        _refuse()

    def remove(self, storage_id: str) -> NoReturn:
        del storage_id
        _refuse()

    def begin(self, facts: ContentFacts) -> NoReturn:
        del facts
        _refuse()

    def append(self, transaction_id: str, content: ContentSource, expected: ExpectedContent | None = None) -> NoReturn:
        del transaction_id, content, expected
        _refuse()

    def revert(self, transaction_id: str) -> NoReturn:
        del transaction_id
        _refuse()

    def commit(self, transaction_id: str, facts: ContentFacts) -> NoReturn:
        del transaction_id, facts
        _refuse()

    def abort(self, transaction_id: str) -> NoReturn:
        del transaction_id
        _refuse()

    def sweep_temporary(self, older_than: datetime) -> NoReturn:
        del older_than
        _refuse()


def _refuse() -> NoReturn:
    raise ReadOnlyError("the store is read-only now")
