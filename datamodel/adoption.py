"""Rows made from bytes that are here already: what recovery and restoring need beside the operations of a PUT.

The content is as old as the store says, not as new as its row: peers that know the artifact know better, and win.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import connection

from datamodel import queries, rows, rules
from datamodel.content import NewContent, artifact_of
from datamodel.ids import new_id
from datamodel.operations import lock_uri
from datamodel.rules import ArtifactRow, Located
from datamodel.transactions import serialized
from datamodel.uris import ArtifactUri


def adopt_content(
    *, uri: ArtifactUri, content: NewContent, written_at: datetime, replaces: uuid.UUID | None = None
) -> ArtifactRow | None:
    """Give bytes of this store their artifact, under its own id unless that is tombstoned or taken: then a new one.

    Commits together: the artifact with its location; of the one that it `replaces` the DeletedArtifactEvent, and its bytes
    retired. Returns None, with nothing changed, when the uri names something else than `replaces` by now. A repeat returns None.
    """
    return serialized(lambda: _adopt(uri, content, written_at, replaces))


def move_location(*, artifact_id: uuid.UUID, expected: Located, to: Located) -> bool:
    """The inventory refers to another object of the same content from now on; whether it referred to `expected` before.

    No event: the artifact was here and is here. The object that was left is the caller's to account for.
    """
    return serialized(lambda: _move(artifact_id, expected, to))


def record_absence(*, artifact_id: uuid.UUID) -> bool:
    """The copy that others believe to be here is not: a DeletedStorageLocationEvent; False when the artifact is gone or stored.

    It is a lost copy from now on, which file sync repairs whatever the policy says. A repeat changes nothing.
    """

    def write() -> bool:
        known = queries.artifact_by_id(artifact_id, for_update=True)
        if known is None or known.location is not None:
            return False
        rows.exchange_event("storage_location_event", "deleted_storage_location_event", artifact_id, known.artifact.uri)
        return True

    return serialized(write)


def retire_content(*, uri: str, content: NewContent, written_at: datetime) -> bool:
    """Bytes of an artifact that was deleted are kept here as if this site had retired it; whether they are now.

    For the caller's transaction. False when the id is not tombstoned, or is retired with other bytes.
    """
    values: dict[str, Any] = {
        "id": content.artifact_id,
        "uri": uri,
        "checksum": content.content_checksum,
        "sha256": content.content_sha256,
        "length": content.content_length,
        "type": content.content_type,
        "encoding": content.content_encoding,
        "born_at": rules.truncate_to_millis(written_at),
        "storage_id": content.located.storage_id,
        "bucket": content.located.storage_bucket,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RETIRE_SQL, values)
        return int(cursor.rowcount) == 1


_RETIRE_SQL = """
    INSERT INTO retired_artifact AS r (id, uri, content_checksum, content_sha256, content_length, content_type, content_encoding,
        born_at, died_at, storage_id, storage_bucket, state, state_at)
    SELECT t.id, %(uri)s, %(checksum)s, %(sha256)s, %(length)s, %(type)s, %(encoding)s, %(born_at)s,
        greatest(t.deleted_at, %(born_at)s), %(storage_id)s, %(bucket)s, 'retained', inventory_now()
    FROM deleted_artifact_event t WHERE t.id = %(id)s
    ON CONFLICT (id) DO UPDATE SET storage_id = EXCLUDED.storage_id, storage_bucket = EXCLUDED.storage_bucket,
        state = 'retained', state_at = EXCLUDED.state_at WHERE r.state = 'purged'
"""


def _adopt(
    uri: ArtifactUri, content: NewContent, written_at: datetime, replaces: uuid.UUID | None
) -> ArtifactRow | None:
    known, now, _ = lock_uri(uri)
    existing = known.artifact if known is not None else None
    if (existing.id if existing is not None else None) != replaces:
        return None
    is_free = not queries.is_tombstoned(content.artifact_id) and queries.artifact_by_id(content.artifact_id) is None
    when = rules.truncate_to_millis(written_at)
    if existing is not None:
        when = rules.next_content_time(when, existing.content_last_modified)
    chosen = content if is_free else replace(content, artifact_id=new_id())
    row = artifact_of(uri, chosen, when=when, now=now)
    if existing is not None:
        rows.insert_tombstone(existing.id, existing.uri, deleted_at=when)
        rows.retire_artifacts([existing.id], died_at=now)
    rows.insert_artifact(row, content.located)
    return row


def _move(artifact_id: uuid.UUID, expected: Located, to: Located) -> bool:
    known = queries.artifact_by_id(artifact_id, for_update=True)
    if known is None or known.location != expected:
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE storage_location SET storage_id = %s, storage_bucket = %s, stored_at = inventory_now() "
            "WHERE artifact_id = %s",
            [to.storage_id, to.storage_bucket, artifact_id],
        )
    return True
