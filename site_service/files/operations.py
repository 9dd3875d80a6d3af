"""Writes of the file service: bytes first, durable and verified; then their row. No transaction is open while bytes move."""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import connection

from datamodel import operations
from datamodel.content import NewContent
from datamodel.errors import (
    ArtifactNotFoundError,
    EmptyContentError,
    PreconditionFailedError,
    RaceLostError,
    ReadOnlyError,
    StorageError,
    StorageFullError,
)
from datamodel.ids import new_id
from datamodel.operations import Preconditions, Recorded, Superseded
from datamodel.rules import Located
from datamodel.uris import ArtifactUri
from site_service.files import queries
from site_service.files.body import RefusingEmpty, content_too_large
from site_service.files.headers import ContentMetadata, PutRequest
from site_service.files.queries import FileState
from site_service.storage.contract import (
    ArtifactStore,
    ContentFacts,
    ContentSource,
    ExpectedContent,
    StoredObject,
)

logger = logging.getLogger(__name__)

_NO_EMPTY_FILES = "the content is empty, and this site takes no empty files"


def put_artifact(
    *,
    store: ArtifactStore,
    uri: ArtifactUri,
    content: ContentSource,
    put: PutRequest,
    superseded: Superseded | None = None,
) -> Recorded:
    """Store `content` as what `uri` names from now on (house, One PUT).

    Whatever can be refused is refused before the first byte is read. Raises `ReadOnlyError`, `PreconditionFailedError`,
    `ContentTooLargeError`, `StorageFullError`, `EmptyContentError`, `ShortBodyError`, `ChecksumMismatchError`, `RaceLostError`;
    then nothing is stored under the uri. Bytes that were already durable when a race was lost become obsolete.
    """
    state = check_writable(uri)
    check_early(put.preconditions, state)
    check_size(store, put.length)
    check_space(store, put.length or 0)
    connection.close()
    facts = ContentFacts(new_id(), uri.value, put.metadata.content_type, put.metadata.content_encoding)
    expected = ExpectedContent(length=put.length, checksums=put.all_checksums)
    source = RefusingEmpty(content, _NO_EMPTY_FILES) if settings.INVENTORY_REFUSE_EMPTY else content
    stored = store.write(source, facts, expected)
    return record_object(store=store, uri=uri, stored=stored, preconditions=put.preconditions, superseded=superseded)


def record_object(
    *,
    store: ArtifactStore,
    uri: ArtifactUri,
    stored: StoredObject,
    preconditions: Preconditions,
    superseded: Superseded | None,
) -> Recorded:
    """The row of a durable object. Raises `PreconditionFailedError`, `RaceLostError`; the object is then obsolete.

    After any other failure (the database went away) its bytes stay: the row may have been written, and file validate finds
    objects without one. Where an artifact keeps its id, the facts kept with the bytes follow.
    """
    located = Located(stored.storage_id, stored.storage_bucket)
    algorithm = settings.INVENTORY_CONTENT_ALGORITHM
    sha256 = stored.checksums.get("sha-256")
    content = NewContent(
        artifact_id=stored.facts.artifact_id,
        located=located,
        content_checksum=f"{algorithm}:{stored.checksums[algorithm]}",
        content_length=stored.length,
        content_sha256=bytes.fromhex(sha256) if sha256 is not None else None,
        content_type=stored.facts.content_type,
        content_encoding=stored.facts.content_encoding,
    )
    try:
        recorded = operations.record_stored(
            uri=uri, content=content, preconditions=preconditions, superseded=superseded
        )
    except (PreconditionFailedError, RaceLostError):
        operations.mark_obsolete(located=located)
        raise
    if recorded.artifact.id != stored.facts.artifact_id:
        connection.close()
        _follow(store, located, recorded)
    return recorded


def update_artifact(
    *, store: ArtifactStore, uri: ArtifactUri, metadata: ContentMetadata, preconditions: Preconditions
) -> Recorded:
    """Change type or encoding; the facts kept with the bytes follow, at once if the store is well.

    Raises `ReadOnlyError`, `ArtifactNotFoundError`, `PreconditionFailedError`. A repeat changes nothing.
    """
    stored = check_writable(uri).stored
    if stored is None:
        raise ArtifactNotFoundError(f"no artifact {uri} is stored here")
    recorded = operations.update_artifact(
        uri=uri,
        content_type=metadata.content_type,
        content_encoding=metadata.content_encoding,
        preconditions=preconditions,
    )
    connection.close()
    _follow(store, stored[1], recorded)
    return recorded


def delete_artifact(*, uri: ArtifactUri, preconditions: Preconditions) -> int:
    """Delete everywhere; the bytes are retired, not removed. Raises `ReadOnlyError`, `ArtifactNotFoundError`."""
    check_writable(uri)
    return operations.delete_artifact(uri=uri, preconditions=preconditions)


def check_writable(uri: ArtifactUri) -> FileState:
    """What is known of the uri, if this site takes writes. Raises `ReadOnlyError`."""
    state = queries.file_state(uri)
    if not (settings.INVENTORY_ALLOW_WRITE and state.allow_write):
        raise ReadOnlyError("this site takes no writes now; try another one")
    return state


def content_limit(store: ArtifactStore) -> int:
    """The most bytes that one file may have here: what the operator says, or what the store can hold."""
    most: int = settings.INVENTORY_MAX_CONTENT_BYTES
    held = store.capabilities.max_length
    return most if held is None else min(most, held)


def check_size(store: ArtifactStore, length: int | None) -> None:
    """Raises `ContentTooLargeError`, or `EmptyContentError` where empty files are not welcome; None is not known yet."""
    if length is not None and length > content_limit(store):
        raise content_too_large(content_limit(store))
    if length == 0 and settings.INVENTORY_REFUSE_EMPTY:
        raise EmptyContentError(_NO_EMPTY_FILES)


def check_space(store: ArtifactStore, length: int) -> None:
    """Raises `StorageFullError` if `length` more bytes would leave less than the mark free."""
    free = store.free_space().free
    if free is not None and free - length < settings.INVENTORY_PUT_FREE_BYTES:
        raise StorageFullError("this site has no room for that now; try another one")


def check_early(preconditions: Preconditions, state: FileState) -> None:
    """Raises `PreconditionFailedError` before bytes move, to spare them; the word that counts is said under the lock."""
    stored = state.stored
    operations.check_preconditions(preconditions, stored[0] if stored is not None else None)


def _follow(store: ArtifactStore, located: Located, recorded: Recorded) -> None:
    artifact = recorded.artifact
    facts = ContentFacts(artifact.id, artifact.uri, artifact.content_type, artifact.content_encoding)
    try:
        store.set_facts(located.storage_id, facts)
    except StorageError as error:
        # The row is the truth; the facts matter only when it is lost.
        logger.warning(
            "END event=set_facts", extra={"facts": {"uri": artifact.uri, "result": "failed", "reason": error.code}}
        )
