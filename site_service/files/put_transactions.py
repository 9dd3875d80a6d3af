"""Writes in several requests (reference 2.7, its defects mended): begin, append, revert, commit, abort.

The store keeps the bytes; a row keeps what was declared. Declared digests speak of the whole content: they are verified as soon as
the declared total is reached, and at commit. A row without bytes, or bytes without a row, is no put transaction, and is swept.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection

from datamodel.errors import (
    ChecksumMismatchError,
    ContentTooLargeError,
    EmptyContentError,
    InvalidRequestError,
    LengthMismatchError,
    StateConflictError,
    TransactionNotFoundError,
)
from datamodel.ids import new_id
from datamodel.operations import Recorded, Superseded
from datamodel.uris import ArtifactUri
from site_service.files import operations
from site_service.files.body import DigestedBody, RefusingEmpty, content_too_large
from site_service.files.headers import PutRequest
from site_service.files.models import PutTransaction
from site_service.storage.contract import (
    ArtifactStore,
    ContentFacts,
    ContentSource,
    ExpectedContent,
    PutTransactionStatus,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """With which signed URL (digest of its token) and when a put transaction was begun."""

    token_digest: str | None
    begun_at: datetime


def begun(transaction_id: str) -> Begun | None:
    """None for an unknown one."""
    row = PutTransaction.objects.filter(id=transaction_id).first()
    return Begun(row.token_digest, row.begun_at) if row is not None else None


def begin(
    *, store: ArtifactStore, uri: ArtifactUri, content: ContentSource, put: PutRequest, token_digest: str | None
) -> PutTransactionStatus:
    """Begin one, with a first segment unless the body is empty.

    Whatever can be refused is refused before the body is read. If the first segment fails the transaction is aborted: its
    id was never told. Raises what `put_artifact` raises.
    """
    total = put.transaction.total_length
    if total is None and put.length:
        total = put.length
    operations.check_writable(uri)
    operations.check_size(store, total)
    operations.check_space(store, total or put.length or 0)
    facts = ContentFacts(new_id(), uri.value, put.metadata.content_type, put.metadata.content_encoding)
    status = store.begin(facts)
    row = PutTransaction(
        id=status.transaction_id,
        uri=uri.value,
        total_length=total,
        content_type=put.metadata.content_type,
        content_encoding=put.metadata.content_encoding,
        token_digest=token_digest,
        begun_at=datetime.now(UTC),
    )
    row.save(force_insert=True)
    if put.length == 0:
        return status
    try:
        return _append(store, row, status, content, put)
    except EmptyContentError:
        # A chunked body may turn out to be empty: then nothing was sent yet, as with Content-Length: 0.
        return status
    except BaseException:
        _drop(store, status.transaction_id)
        raise


def append(
    *, store: ArtifactStore, uri: ArtifactUri, transaction_id: str, content: ContentSource, put: PutRequest
) -> PutTransactionStatus:
    """Add one segment; after any failure the transaction is as before.

    Raises `TransactionNotFoundError`, `InvalidRequestError` (another uri), `EmptyContentError`, `LengthMismatchError` (beyond the
    declared total), `ChecksumMismatchError`, `ShortBodyError`, `StateConflictError` (another request is writing).
    """
    row = _row(uri, transaction_id)
    operations.check_writable(uri)
    status = store.status(transaction_id)
    if put.length == 0:
        raise EmptyContentError("there is nothing to append; to finish send x-put-txn-op: commit")
    operations.check_space(store, put.length or 0)
    return _append(store, row, status, content, put)


def revert(*, store: ArtifactStore, uri: ArtifactUri, transaction_id: str) -> PutTransactionStatus:
    """Undo the last append. Raises `TransactionNotFoundError`, `InvalidRequestError`, `StateConflictError`."""
    _row(uri, transaction_id)
    if store.status(transaction_id).length == 0:
        raise InvalidRequestError("this put transaction holds no bytes: there is nothing to revert")
    return store.revert(transaction_id)


def status(
    *, store: ArtifactStore, uri: ArtifactUri, transaction_id: str
) -> tuple[PutTransactionStatus, PutTransaction]:
    """What it holds, and what was declared. Raises `TransactionNotFoundError`, `InvalidRequestError`."""
    row = _row(uri, transaction_id)
    return store.status(transaction_id), row


def abort(*, store: ArtifactStore, uri: ArtifactUri, transaction_id: str) -> None:
    """Drop it and its bytes. Raises `TransactionNotFoundError`, `InvalidRequestError`, `StateConflictError`."""
    _row(uri, transaction_id)
    store.abort(transaction_id)
    PutTransaction.objects.filter(id=transaction_id).delete()


def commit(
    *, store: ArtifactStore, uri: ArtifactUri, transaction_id: str, put: PutRequest, superseded: Superseded | None
) -> Recorded:
    """Make its bytes the content of the uri, like a PUT of all of them.

    Type and encoding of this request count; what it leaves out is as begun. Raises `LengthMismatchError` unless all of the declared
    total is there, `ChecksumMismatchError`, `EmptyContentError`, `PreconditionFailedError`, `TransactionNotFoundError`; but for the
    last the transaction stays as it was until its bytes have become an object.
    """
    row = _row(uri, transaction_id)
    state = operations.check_writable(uri)
    held = store.status(transaction_id)
    _check_whole(store, row, held, put)
    operations.check_early(put.preconditions, state)
    connection.close()
    facts = ContentFacts(
        new_id(),
        uri.value,
        put.metadata.content_type or row.content_type,
        put.metadata.content_encoding or row.content_encoding,
    )
    stored = store.commit(transaction_id, facts)
    recorded = operations.record_object(
        store=store, uri=uri, stored=stored, preconditions=put.preconditions, superseded=superseded
    )
    PutTransaction.objects.filter(id=transaction_id).delete()
    return recorded


def sweep(*, store: ArtifactStore, now: datetime) -> tuple[int, int]:
    """Drop put transactions not touched for INVENTORY_TRANSACTION_SECONDS, and leftovers of crashed writes; returns both counts."""
    stale = store.stale_transactions(now - timedelta(seconds=settings.INVENTORY_TRANSACTION_SECONDS))
    dropped = sum(_drop(store, transaction_id) for transaction_id in stale)
    _forget_rows_without_bytes(store, now)
    leftovers = store.sweep_temporary(now - timedelta(seconds=settings.INVENTORY_TRANSFER_SECONDS))
    return dropped, leftovers


def _append(
    store: ArtifactStore, row: PutTransaction, status: PutTransactionStatus, content: ContentSource, put: PutRequest
) -> PutTransactionStatus:
    connection.close()
    limit = operations.content_limit(store)
    room = limit - status.length
    end = status.length + put.length if put.length is not None else None
    if end is not None and end > limit:
        raise content_too_large(limit)
    left = row.total_length - status.length if row.total_length is not None else None
    if left is not None and (put.length or 0) > left:
        raise LengthMismatchError(
            f"{put.length} more bytes are beyond the declared total of {row.total_length}", declared=row.total_length
        )
    # A digest speaks of the whole: it counts where the whole is reached, or where nobody said how much is to come.
    is_whole = row.total_length in {None, end}
    expected = ExpectedContent(
        length=put.length,
        checksums=put.checksums if is_whole else None,
        max_length=min(room, left if left is not None else room, store.capabilities.max_segment or room),
    )
    source = DigestedBody(
        RefusingEmpty(content, "the body is empty: there is nothing to append"), put.segment_checksums
    )
    try:
        held = store.append(row.id, source, expected)
    except ContentTooLargeError:
        if left is not None and left < room:
            raise LengthMismatchError(f"more bytes came than the declared total of {row.total_length}") from None
        raise
    if not is_whole and held.length == row.total_length:
        _verify_reached(store, held, put.checksums)
    return held


def _verify_reached(store: ArtifactStore, held: PutTransactionStatus, declared: dict[str, str]) -> None:
    """A chunked body has completed the whole, which could not be foreseen: verify now, and undo it if it is wrong."""
    try:
        _verify(held, declared)
    except (ChecksumMismatchError, InvalidRequestError):
        store.revert(held.transaction_id)
        raise


def _check_whole(store: ArtifactStore, row: PutTransaction, held: PutTransactionStatus, put: PutRequest) -> None:
    for total in (put.transaction.total_length, row.total_length):
        if total is not None and total != held.length:
            raise LengthMismatchError(
                f"the put transaction holds {held.length} bytes, not the declared {total}", received=held.length
            )
    operations.check_size(store, held.length)
    _verify(held, put.all_checksums)


def _verify(held: PutTransactionStatus, declared: dict[str, str]) -> None:
    unknown = sorted(declared.keys() - held.checksums.keys())
    if unknown:
        known = " or ".join(sorted(held.checksums))
        raise InvalidRequestError(f"{', '.join(unknown)} cannot be verified afterwards; declare {known}")
    for algorithm, digits in declared.items():
        if held.checksums[algorithm] != digits:
            raise ChecksumMismatchError(
                f"the {algorithm} of the bytes held is {held.checksums[algorithm]}, not {digits}"
            )


def _row(uri: ArtifactUri, transaction_id: str) -> PutTransaction:
    row = PutTransaction.objects.filter(id=transaction_id).first()
    if row is None:
        raise TransactionNotFoundError("no such put transaction: never begun, finished or expired")
    if row.uri != uri.value:
        raise InvalidRequestError(f"this put transaction was not begun for {uri}")
    return row


def _drop(store: ArtifactStore, transaction_id: str) -> bool:
    """Whether it is gone: one that is being written to at this moment is not."""
    try:
        store.abort(transaction_id)
    except StateConflictError:
        return False
    PutTransaction.objects.filter(id=transaction_id).delete()
    return True


def _forget_rows_without_bytes(store: ArtifactStore, now: datetime) -> None:
    old = PutTransaction.objects.filter(begun_at__lt=now - timedelta(seconds=settings.INVENTORY_TRANSACTION_SECONDS))
    for transaction_id in list(old.values_list("id", flat=True)):
        try:
            store.status(transaction_id)
        except TransactionNotFoundError:
            PutTransaction.objects.filter(id=transaction_id).delete()
