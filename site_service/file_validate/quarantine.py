"""Quarantine: bytes that nothing refers to, or that nobody should believe, are kept where they are until an operator decides.

Restoring and purging both lock the storage id and then win the row's state; bytes that an artifact refers to are never removed
(`migrations/0002_guards.py` refuses a location whose bytes are being removed).
"""

from __future__ import annotations

import logging
import uuid
from contextlib import closing

from django.db import connection, transaction

from datamodel import operations as model
from datamodel.adoption import adopt_content
from datamodel.alarms.operations import raise_alarm
from datamodel.alarms.rules import AlarmKind, family_of
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.errors import InvalidRequestError, StateConflictError
from datamodel.logs import unit_of_work
from datamodel.models import Artifact
from datamodel.queries import artifact_by_id, artifact_by_uri
from datamodel.restoration import is_restoring, refuse_while_restoring
from datamodel.rows import database_now
from datamodel.rules import ArtifactRow, Located
from datamodel.transactions import serialized
from datamodel.uris import ArtifactUri
from site_service.file_validate.content import content_of
from site_service.file_validate.locks import lock_storage_id
from site_service.file_validate.merge import Found
from site_service.file_validate.models import QuarantinedObject
from site_service.file_validate.rules import Label, facts_of, is_same_content
from site_service.storage.contract import ArtifactStore, ExpectedContent, StoredObject

logger = logging.getLogger("inventory.validate")

_State = QuarantinedObject.State


def quarantine(
    *, located: Located, found: Found | None, owner: ArtifactRow | None, label: Label, detail: str, decided_by: str
) -> None:
    """Inside a transaction that holds the storage id's lock: list the object; `owner` is whose bytes they were.

    An object that was purged or restored before and is found again without a row is quarantined again.
    """
    now = database_now()
    values: dict[str, object] = {
        **_identity(found, owner),
        "label": label.value,
        "detail": detail,
        "quarantined_at": now,
        "quarantined_by": decided_by,
        "state": _State.QUARANTINED,
        "state_at": now,
        "decided_by": "",
        "reason": "",
    }
    QuarantinedObject.objects.update_or_create(
        storage_bucket=located.storage_bucket, storage_id=located.storage_id, defaults=values
    )
    uri = values.get("uri")
    name = str(uri) if uri else located.storage_id
    raise_alarm(
        kind=AlarmKind.QUARANTINED_OBJECT,
        subject=family_of(name) if uri else "nameless objects",
        text=f"The object of {name} was put into quarantine by {decided_by} ({label}): kept, not served, until decided.",
    )


def quarantine_artifact(*, artifact_id: uuid.UUID, reason: str) -> None:
    """Inside a transaction: take a stored artifact out of the inventory, without deleting it anywhere, and keep its bytes apart.

    Commits with the caller: the end of the location with its DeletedStorageLocationEvent, the end of the row, the quarantined object.
    Nothing happens when it is not stored here. Restoring it gives it back under its id.
    """
    known = artifact_by_id(artifact_id, for_update=True)
    if known is None or known.location is None:
        return
    lock_storage_id(known.location.storage_id)
    model.clear_location(artifact_id=artifact_id, expected=known.location)
    Artifact.objects.filter(id=artifact_id).delete()
    quarantine(
        located=known.location,
        found=None,
        owner=known.artifact,
        label=Label.DELETED,
        detail=reason,
        decided_by="reconcile",
    )


def restore_quarantined(*, store: ArtifactStore, object_id: uuid.UUID, decided_by: str) -> ArtifactRow:
    """Bring the bytes back: to the artifact they belong to if it is not stored here, else as an artifact of their own.

    An object whose facts cannot be read is copied to a new one if its bytes are what the artifact's row says; it stays
    quarantined itself. An id that was deleted does not return: such bytes get a new one. Commits together: the location (and artifact),
    state `restored`. Raises `StateConflictError` when the uri has other content now or the object is not in quarantine,
    `StoredObjectMissingError`, `ChecksumMismatchError`, `InvalidUriError`.
    """
    with unit_of_work(logger, "restore_quarantined", id=object_id, by=decided_by) as work:
        held = _held(object_id)
        connection.close()
        found = store.stat(held.storage_id)
        if isinstance(found, StoredObject):
            row = serialized(lambda: _restore(object_id, found, decided_by))
            if found.facts != facts_of(row):
                store.set_facts(found.storage_id, facts_of(row))
        else:
            row = _restore_copy(store, held)
        work.note(uri=row.uri)
        return row


def decide_purge(*, object_id: uuid.UUID, decided_by: str, reason: str) -> bool:
    """An operator's word that these bytes may go; whether they may: not those that an artifact refers to by now.

    Commits state `removing`, who said so and why, before any byte is touched. A repeat says the same. Raises
    `InvalidRequestError` without a reason, `RestoringError`.
    """
    refuse_while_restoring()
    if not reason.strip():
        raise InvalidRequestError("say why: these bytes will be gone for ever")
    held = QuarantinedObject.objects.get(id=object_id)
    with transaction.atomic():
        lock_storage_id(held.storage_id)
        held = QuarantinedObject.objects.select_for_update().get(id=object_id)
        if held.state == _State.REMOVING:
            return True
        if held.state != _State.QUARANTINED:
            return False
        is_in_use = _is_in_use(held)
        _step(held, _State.RESTORED if is_in_use else _State.REMOVING, decided_by, reason)
        return not is_in_use


def purge_quarantined(*, store: ArtifactStore, object_id: uuid.UUID) -> bool:
    """Remove the bytes whose purge was decided; whether they are gone now.

    State `purged` is committed last, so a repeat after a crash at any point finishes the work. Raises `StorageUnavailableError`.
    """
    with unit_of_work(logger, "purge_quarantined", id=object_id) as work:
        held = QuarantinedObject.objects.filter(id=object_id, state=_State.REMOVING).first()
        if held is None or is_restoring():
            work.reason = "not_decided" if held is None else "restoring"
            return False
        connection.close()
        store.remove(held.storage_id)
        QuarantinedObject.objects.filter(id=object_id, state=_State.REMOVING).update(
            state=_State.PURGED, state_at=database_now()
        )
        return True


def _identity(found: Found | None, owner: ArtifactRow | None) -> dict[str, object]:
    """Whose bytes: what the row says if there is one, else what the object says."""
    if owner is not None:
        return {
            "artifact_id": owner.id,
            "uri": owner.uri,
            "content_checksum": owner.content_checksum,
            "content_length": owner.content_length,
            "content_type": owner.content_type,
            "content_encoding": owner.content_encoding,
            "written_at": found.written_at if isinstance(found, StoredObject) else None,
        }
    if not isinstance(found, StoredObject):
        return {}
    algorithm = min(found.checksums, default="")
    return {
        "artifact_id": found.facts.artifact_id,
        "uri": found.facts.uri[:512],
        "content_checksum": f"{algorithm}:{found.checksums[algorithm]}" if algorithm else None,
        "content_length": found.length,
        "content_type": found.facts.content_type,
        "content_encoding": found.facts.content_encoding,
        "written_at": found.written_at,
    }


def _held(object_id: uuid.UUID, *, for_update: bool = False) -> QuarantinedObject:
    rows = QuarantinedObject.objects.select_for_update() if for_update else QuarantinedObject.objects.all()
    held = rows.filter(id=object_id, state=_State.QUARANTINED).first()
    if held is None:
        raise StateConflictError("it is not in quarantine any more")
    return held


def _restore(object_id: uuid.UUID, found: StoredObject, decided_by: str) -> ArtifactRow:
    lock_storage_id(found.storage_id)
    held = _held(object_id, for_update=True)
    row = _give_back(found)
    _step(held, _State.RESTORED, decided_by)
    return row


def _give_back(found: StoredObject) -> ArtifactRow:
    """The artifact that the bytes belong to now. Raises `StateConflictError`."""
    located = Located(found.storage_id, found.storage_bucket)
    locked = artifact_by_id(found.facts.artifact_id, for_update=True) or artifact_by_uri(
        found.facts.uri, for_update=True
    )
    # Read once more: what was attached while the lock was waited for shows only now.
    known = artifact_by_id(locked.artifact.id) if locked is not None else None
    if known is not None:
        if known.location == located:
            return known.artifact
        if known.location is not None or not is_same_content(known.artifact, found):
            raise StateConflictError(f"{known.artifact.uri} has other content now, or is stored: nothing to restore")
        model.attach_location(artifact_id=known.artifact.id, located=located)
        return known.artifact
    row = adopt_content(uri=ArtifactUri.parse(found.facts.uri), content=content_of(found), written_at=found.written_at)
    if row is None:
        raise StateConflictError(f"{found.facts.uri} was taken meanwhile")
    return row


def _restore_copy(store: ArtifactStore, held: QuarantinedObject) -> ArtifactRow:
    """From an object without readable facts: the row must say what its bytes should be, and they are read to see."""
    known = artifact_by_id(held.artifact_id) if held.artifact_id is not None else None
    if known is None or known.location is not None:
        raise StateConflictError(
            "nobody knows what these bytes are: their facts cannot be read and no artifact misses them"
        )
    row = known.artifact
    connection.close()
    algorithm, _, digits = row.content_checksum.partition(":")
    expected = ExpectedContent(length=row.content_length, checksums={algorithm: digits})
    with closing(store.open(held.storage_id, expected_length=row.content_length)) as content:
        stored = store.write(content, facts_of(row), expected)
    if model.attach_location(artifact_id=row.id, located=Located(stored.storage_id, stored.storage_bucket)) is None:
        raise StateConflictError(f"{row.uri} was stored or deleted meanwhile")
    return row


def _is_in_use(held: QuarantinedObject) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM storage_location WHERE storage_bucket = %s AND storage_id = %s",
            [held.storage_bucket, held.storage_id],
        )
        return cursor.fetchone() is not None


def _step(held: QuarantinedObject, state: str, decided_by: str, reason: str = "") -> None:
    held.state, held.state_at, held.decided_by, held.reason = state, database_now(), decided_by, reason.strip()[:200]
    held.save(update_fields=["state", "state_at", "decided_by", "reason"])
    facts = {"decision": str(state), "by": decided_by, "object": held.storage_id}
    record(Action.QUARANTINE_DECIDED, held.uri or held.storage_id, details=facts, reason=reason.strip())
