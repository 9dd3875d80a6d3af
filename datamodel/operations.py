"""The writes of the shared model. Each operation is one transaction; bytes are durable before, and removed long after.

Every door (PUT, file sync, harvest, recovery) ends in these. Each returns the id of its transaction, from which
`positions.position_of` makes the position that a reader may wait for. Repeating an operation changes nothing more.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime

from django.db import IntegrityError, OperationalError, connection

from datamodel import notify, queries, rows, rules
from datamodel.audit.pending import note_refusal
from datamodel.audit.recording import record, values_of
from datamodel.audit.rules import Action
from datamodel.content import NewContent, artifact_of
from datamodel.errors import ArtifactNotFoundError, PreconditionFailedError, StateConflictError
from datamodel.ids import new_id
from datamodel.prepared import prepared_cursor
from datamodel.queries import KnownArtifact, RetiredRow
from datamodel.rules import ArtifactRow, Located, PutMeaning
from datamodel.transactions import is_race, serialized
from datamodel.uris import ArtifactUri


@dataclass(frozen=True, slots=True)
class Preconditions:
    """`If-Match` and `If-None-Match` of a write (RFC 9110, 13.1); an empty tuple means the header was absent, "*" any."""

    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Superseded:
    """The artifact that the caller's token names as the one known for this uri elsewhere (house, decision 9)."""

    artifact_id: uuid.UUID
    content_last_modified: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """The artifact after the operation, what it meant, and the transaction that made it so."""

    artifact: ArtifactRow
    meaning: PutMeaning
    txid: int


def record_stored(
    *,
    uri: ArtifactUri,
    content: NewContent,
    preconditions: Preconditions = Preconditions(),
    superseded: Superseded | None = None,
) -> Recorded:
    """Give durable bytes their artifact and location: a PUT's last step.

    Commits together: the new artifact with its location; of a replaced one the DeletedArtifactEvent and its RetiredArtifact;
    for identical content only `reaffirmed_at` and the location of the new bytes (those that were here become obsolete).
    Raises `PreconditionFailedError` and `RaceLostError`; the caller then makes the bytes obsolete.
    """
    if superseded is None and not preconditions.if_match and not connection.in_atomic_block:
        created = _create(uri, content)
        if created is not None:
            return created
    return serialized(lambda: _record_stored(uri, content, preconditions, superseded))


def attach_location(*, artifact_id: uuid.UUID, located: Located) -> int | None:
    """The bytes of a known artifact are here now: file sync, recovery and re-attachment end here.

    Commits together: the location, a StorageLocationEvent (any DeletedStorageLocationEvent goes), a new place in the feed.
    Returns None, with the bytes recorded as obsolete, when the artifact is gone or already stored.
    """
    return serialized(lambda: _attach_if_missing(artifact_id, located))


def detach_location(*, artifact_id: uuid.UUID) -> Located | None:
    """The bytes of an artifact are not here any more, a fact: the artifact stays, known but not stored.

    Commits a DeletedStorageLocationEvent (any StorageLocationEvent goes). Returns where the bytes were, or None if it was
    not stored; what becomes of them is the caller's.
    """
    return serialized(lambda: _detach(artifact_id))


def clear_location(*, artifact_id: uuid.UUID, expected: Located) -> bool:
    """The copy of an artifact at this place is bad or missing, a fact: from now on it is not served nor located.

    Commits a DeletedStorageLocationEvent (any StorageLocationEvent goes); the artifact stays known. Returns False, with
    nothing changed, when it is not (or no more) stored at the `expected` place. What becomes of the bytes is the caller's.
    """
    return serialized(lambda: _clear(artifact_id, expected))


def delete_artifact(*, uri: ArtifactUri, preconditions: Preconditions = Preconditions()) -> int:
    """Delete everywhere: DeletedArtifactEvent, row and location in one transaction; bytes are retired.

    Raises `ArtifactNotFoundError`, `PreconditionFailedError`.
    """
    return serialized(lambda: _delete(uri, preconditions))


def undelete_artifact(*, retired_id: uuid.UUID, replaces: bool = False) -> Recorded:
    """Let content that was deleted or replaced here live again: a new id, the old bytes and metadata, a time of now.

    A tombstoned id never returns. Commits together: the retired artifact as `restored`, the new artifact with the old location
    (or the location of the known artifact that lacks its bytes) and, if `replaces`, the end of what has its uri now. A uri that
    already has this content stays as it is, so a repeat changes nothing. Raises `ArtifactNotFoundError` for an unknown id and
    `StateConflictError` when its bytes are no longer kept, or when the uri has other content and `replaces` is false.
    """
    retired = queries.retired_by_id(retired_id)
    if retired is None:
        raise ArtifactNotFoundError(f"nothing is retired here under the id {retired_id}")
    return serialized(lambda: _undelete(retired, replaces=replaces))


def update_artifact(
    *,
    uri: ArtifactUri,
    content_type: str | None,
    content_encoding: str | None,
    preconditions: Preconditions = Preconditions(),
) -> Recorded:
    """Change the two mutable fields (None leaves one as it is). Raises `ArtifactNotFoundError`, `PreconditionFailedError`."""
    return serialized(lambda: _update(uri, content_type, content_encoding, preconditions))


def mark_obsolete(*, located: Located) -> None:
    """Remember bytes that nobody needs, for removal. A repeat changes nothing."""

    def insert() -> None:
        rows.insert_obsolete(located)

    serialized(insert)


def lock_uri(uri: ArtifactUri) -> tuple[KnownArtifact | None, datetime, int]:
    """What is known of a uri, the time and this transaction's id, with the uri locked against other writers of this kind.

    Two statements: the second one's snapshot must be taken after the lock was granted.
    """
    with prepared_cursor() as cursor:
        cursor.execute(f"SELECT {queries.URI_LOCK_SQL}", {"uri": uri.value})
        return queries.lock_artifact(cursor, uri.value)


def check_preconditions(preconditions: Preconditions, existing: ArtifactRow | None) -> None:
    """Of a write, against the artifact as it is (None: not here). Raises `PreconditionFailedError`."""
    etag = existing.etag if existing is not None else None
    wanted, unwanted = preconditions.if_match, preconditions.if_none_match
    if wanted and (etag is None or ("*" not in wanted and etag not in wanted)):
        raise PreconditionFailedError("If-Match does not hold: the artifact has changed or is not here", etag=etag)
    if unwanted and etag is not None and ("*" in unwanted or etag in unwanted):
        raise PreconditionFailedError("If-None-Match does not hold: the artifact exists", etag=etag)


def _create(uri: ArtifactUri, content: NewContent) -> Recorded | None:
    """What most PUTs are, in one round trip: the first content of a uri. None when it is not, or another writer came first."""
    meaning = PutMeaning.CREATE
    told = {"id": str(content.artifact_id), "meaning": meaning.value, "checksum": content.content_checksum}
    try:
        created = rows.create_artifact(uri, content, values_of(Action.PUT, uri.value, details=told))
    except (IntegrityError, OperationalError) as error:
        if isinstance(error, OperationalError) and not is_race(error):
            raise
        return None
    if created is None:
        return None
    notify.announce()
    now, txid = created
    return Recorded(artifact_of(uri, content, when=now, now=now), meaning, txid)


def _record_stored(
    uri: ArtifactUri, content: NewContent, preconditions: Preconditions, superseded: Superseded | None
) -> Recorded:
    known, now, txid = lock_uri(uri)
    existing = known.artifact if known is not None else None
    is_stored = known is not None and known.location is not None
    check_preconditions(preconditions, existing if is_stored else None)
    meaning = rules.decide_put(
        existing,
        is_stored=is_stored,
        content_checksum=content.content_checksum,
        content_length=content.content_length,
    )
    if known is not None and meaning is PutMeaning.REAFFIRM:
        record(Action.PUT, uri.value, details=_told(known.artifact, meaning, None))
        return Recorded(_reaffirm(known, content, now), meaning, txid)
    if existing is not None and meaning is PutMeaning.ATTACH:
        record(Action.PUT, uri.value, details=_told(existing, meaning, None))
        rows.insert_location(existing.id, existing.uri, content.located)
        _stamp_reaffirmed(existing, now)
        return Recorded(_fill_sha256(existing, content), meaning, txid)
    row = _new_artifact(uri, content, now, existing, superseded)
    if existing is not None:
        rows.insert_tombstone(existing.id, existing.uri, deleted_at=row.content_last_modified)
        rows.retire_artifacts([existing.id], died_at=now)
    if superseded is not None and (existing is None or existing.id != superseded.artifact_id):
        rows.insert_tombstone(superseded.artifact_id, uri.value, deleted_at=row.content_last_modified)
    rows.insert_recorded(row, content.located, values_of(Action.PUT, uri.value, details=_told(row, meaning, existing)))
    return Recorded(row, meaning, txid)


def _told(row: ArtifactRow, meaning: PutMeaning, replaced: ArtifactRow | None) -> dict[str, object]:
    """What the audit says of an artifact that was written."""
    facts: dict[str, object] = {"id": str(row.id), "meaning": meaning.value, "checksum": row.content_checksum}
    return facts | ({"replaced": str(replaced.id)} if replaced is not None else {})


def _new_artifact(
    uri: ArtifactUri,
    content: NewContent,
    now: datetime,
    existing: ArtifactRow | None,
    superseded: Superseded | None,
) -> ArtifactRow:
    when = rules.next_content_time(
        now,
        existing.content_last_modified if existing is not None else None,
        superseded.content_last_modified if superseded is not None else None,
    )
    return artifact_of(uri, content, when=when, now=now)


def _reaffirm(known: KnownArtifact, content: NewContent, now: datetime) -> ArtifactRow:
    """The bytes that were verified a moment ago stay; those that they replace may have rotted unseen, and become obsolete."""
    _stamp_reaffirmed(known.artifact, now)
    rows.replace_location(known.artifact.id, content.located)
    if known.location is not None:
        rows.insert_obsolete(known.location)
    updated = _fill_sha256(known.artifact, content)
    return _change_metadata(updated, content.content_type, content.content_encoding, now)


def _stamp_reaffirmed(existing: ArtifactRow, now: datetime) -> None:
    """The caller put this content now: a deletion that is older and arrives later must not take it away."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE artifact SET reaffirmed_at = %s WHERE id = %s", [now, existing.id])


def _fill_sha256(existing: ArtifactRow, content: NewContent) -> ArtifactRow:
    if existing.content_sha256 is not None or content.content_sha256 is None:
        return existing
    with connection.cursor() as cursor:
        cursor.execute("UPDATE artifact SET content_sha256 = %s WHERE id = %s", [content.content_sha256, existing.id])
    return replace(existing, content_sha256=content.content_sha256)


def _attach_if_missing(artifact_id: uuid.UUID, located: Located) -> int | None:
    known = queries.artifact_by_id(artifact_id, for_update=True)
    if known is None or known.location is not None:
        if known is None or known.location != located:
            rows.insert_obsolete(located)
        return None
    rows.insert_location(artifact_id, known.artifact.uri, located)
    return rows.current_txid()


def _detach(artifact_id: uuid.UUID) -> Located | None:
    known = queries.artifact_by_id(artifact_id, for_update=True)
    if known is None or known.location is None:
        return None
    return known.location if _clear(artifact_id, known.location) else None


def _clear(artifact_id: uuid.UUID, expected: Located) -> bool:
    known = queries.artifact_by_id(artifact_id, for_update=True)
    if known is None:
        return False
    with connection.cursor() as cursor:
        # A statement of its own: it sees what was committed while the lock was waited for.
        cursor.execute(
            "DELETE FROM storage_location WHERE artifact_id = %s AND storage_id = %s AND storage_bucket = %s RETURNING stored_at",
            [artifact_id, expected.storage_id, expected.storage_bucket],
        )
        ended = cursor.fetchone()
    if ended is None:
        return False
    tables = "storage_location_event", "deleted_storage_location_event"
    rows.exchange_event(*tables, artifact_id, known.artifact.uri, after=ended[0])
    return True


def _delete(uri: ArtifactUri, preconditions: Preconditions) -> int:
    known, now, txid = lock_uri(uri)
    if known is None:
        raise ArtifactNotFoundError(f"no artifact {uri} here")
    check_preconditions(preconditions, known.artifact)
    rows.insert_tombstone(known.artifact.id, uri.value, deleted_at=now)
    rows.retire_artifacts([known.artifact.id], died_at=now)
    record(
        Action.DELETE, uri.value, details={"id": str(known.artifact.id), "checksum": known.artifact.content_checksum}
    )
    return txid


def _undelete(retired: RetiredRow, *, replaces: bool) -> Recorded:
    uri = ArtifactUri(retired.uri)
    known, now, txid = lock_uri(uri)
    existing = known.artifact if known is not None else None
    meaning = rules.decide_put(
        existing,
        is_stored=known is not None and known.location is not None,
        content_checksum=retired.content_checksum,
        content_length=retired.content_length,
    )
    if existing is not None and meaning is PutMeaning.REAFFIRM:
        # A transaction that changed no row never shows in the feed: nobody must wait for it.
        return Recorded(existing, meaning, 0)
    if meaning is PutMeaning.REPLACE and not replaces:
        note_refusal(Action.UNDELETE, uri.value, reason="other_content")
        raise StateConflictError(f"{uri} has other content now: ask for it to be replaced if that is meant")
    if not rows.claim_retired(retired.id):
        note_refusal(Action.UNDELETE, uri.value, reason="not_kept")
        raise StateConflictError(f"the bytes of {uri} that were retired as {retired.id} are not kept any more")
    if existing is not None and meaning is PutMeaning.ATTACH:
        rows.insert_location(existing.id, existing.uri, retired.located)
        record(Action.UNDELETE, uri.value, details=_told(existing, meaning, None))
        return Recorded(existing, meaning, txid)
    ended_at = max(retired.died_at, retired.ended_at)
    row = _new_artifact(uri, _content_of(retired), max(now, ended_at + rules.MILLISECOND), existing, None)
    if existing is not None:
        rows.insert_tombstone(existing.id, existing.uri, deleted_at=row.content_last_modified)
        rows.retire_artifacts([existing.id], died_at=now)
    told = _told(row, meaning, existing) | {"retired": str(retired.id)}
    rows.insert_recorded(row, retired.located, values_of(Action.UNDELETE, uri.value, details=told))
    return Recorded(row, meaning, txid)


def _content_of(retired: RetiredRow) -> NewContent:
    return NewContent(
        artifact_id=new_id(),
        located=retired.located,
        content_checksum=retired.content_checksum,
        content_length=retired.content_length,
        content_sha256=retired.content_sha256,
        content_type=retired.content_type,
        content_encoding=retired.content_encoding,
    )


def _update(
    uri: ArtifactUri, content_type: str | None, content_encoding: str | None, preconditions: Preconditions
) -> Recorded:
    known, now, txid = lock_uri(uri)
    if known is None or known.location is None:
        raise ArtifactNotFoundError(f"no artifact {uri} is stored here")
    check_preconditions(preconditions, known.artifact)
    changed = _change_metadata(known.artifact, content_type, content_encoding, now)
    if changed != known.artifact:
        facts = {"id": str(changed.id), "type": changed.content_type, "encoding": changed.content_encoding}
        record(Action.METADATA, uri.value, details=facts)
    # A transaction that changed no row never shows in the feed: nobody must wait for it.
    return Recorded(changed, PutMeaning.REAFFIRM, txid if changed != known.artifact else 0)


def _change_metadata(
    existing: ArtifactRow, content_type: str | None, content_encoding: str | None, now: datetime
) -> ArtifactRow:
    """Later than what it changes, by the clock and by the order of updates; nothing happens when nothing differs."""
    changed = replace(
        existing,
        content_type=content_type or existing.content_type,
        content_encoding=content_encoding or existing.content_encoding,
    )
    changed = replace(changed, meta_checksum=rules.meta_checksum_of(changed))
    if changed.meta_checksum == existing.meta_checksum:
        return existing
    changed = replace(
        changed,
        last_modified=max(now, existing.last_modified + rules.MILLISECOND),
        meta_modified_at=max(now, existing.meta_modified_at + rules.MILLISECOND),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE artifact SET content_type = %s, content_encoding = %s, last_modified = %s, meta_modified_at = %s, "
            "meta_checksum = %s WHERE id = %s",
            [
                changed.content_type,
                changed.content_encoding,
                changed.last_modified,
                changed.meta_modified_at,
                changed.meta_checksum,
                changed.id,
            ],
        )
    return changed
