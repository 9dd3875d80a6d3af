"""Writes of single rows, for use inside the transaction of an operation (`operations.py`, `harvest`); the only place that
names these columns.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from django.db import connection

from datamodel import rules
from datamodel.positions import TXID_SQL
from datamodel.rules import ArtifactRow, Located

_RETIRE_SQL = """
    INSERT INTO retired_artifact (id, uri, content_checksum, content_sha256, content_length, content_type,
        content_encoding, born_at, died_at, ended_at, storage_id, storage_bucket, state, state_at)
    SELECT a.id, a.uri, a.content_checksum, a.content_sha256, a.content_length, a.content_type, a.content_encoding,
        a.content_last_modified, %(died_at)s, coalesce(e.deleted_at, %(died_at)s), coalesce(l.storage_id, ''),
        coalesce(l.storage_bucket, ''), CASE WHEN l.artifact_id IS NULL THEN 'purged' ELSE 'retained' END, inventory_now()
    FROM artifact a LEFT JOIN storage_location l ON l.artifact_id = a.id
        LEFT JOIN deleted_artifact_event e ON e.id = a.id
    WHERE a.id = ANY(%(ids)s)
    -- Known as ended without bytes, and brought back by a peer or a backup that did not know: it ends again.
    ON CONFLICT (id) DO UPDATE SET died_at = excluded.died_at, ended_at = excluded.ended_at, state = excluded.state,
        storage_id = excluded.storage_id, storage_bucket = excluded.storage_bucket, state_at = excluded.state_at
    WHERE retired_artifact.state = 'purged'
"""
_INSERT_SQL = """
    INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, content_type,
        content_encoding, last_modified, meta_checksum, content_sha256, meta_modified_at, txid)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0)
"""


def retire_artifacts(artifact_ids: Sequence[uuid.UUID], *, died_at: datetime) -> None:
    """Take these artifacts out of the inventory; each becomes a RetiredArtifact, with its bytes if they are stored here.

    Their location events go too: the DeletedArtifactEvent, which the caller has written, says all.
    """
    ids = list(artifact_ids)
    with connection.cursor() as cursor:
        cursor.execute(_RETIRE_SQL, {"ids": ids, "died_at": died_at})
        cursor.execute("DELETE FROM storage_location WHERE artifact_id = ANY(%s)", [ids])
        cursor.execute("DELETE FROM artifact WHERE id = ANY(%s)", [ids])
        cursor.execute("DELETE FROM storage_location_event WHERE id = ANY(%s)", [ids])
        cursor.execute("DELETE FROM deleted_storage_location_event WHERE id = ANY(%s)", [ids])


def claim_retired(artifact_id: uuid.UUID) -> bool:
    """The bytes of a retired artifact have a use again; False when they are no longer kept, or somebody else has claimed them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE retired_artifact SET state = 'restored', state_at = inventory_now() "
            "WHERE id = %s AND state = 'retained'",
            [artifact_id],
        )
        return int(cursor.rowcount) == 1


def insert_tombstone(artifact_id: uuid.UUID, uri: str, *, deleted_at: datetime) -> None:
    """The DeletedArtifactEvent of an id; the first one stands."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO deleted_artifact_event (id, uri, last_modified, meta_checksum, deleted_at, txid) "
            "VALUES (%s, %s, inventory_now(), %s, %s, 0) ON CONFLICT (id) DO NOTHING",
            [artifact_id, uri, rules.event_meta_checksum(artifact_id, uri), deleted_at],
        )


def insert_artifact(row: ArtifactRow, located: Located | None) -> None:
    """A new artifact row and, if stored here, its location."""
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_SQL, _insert_values(row))
        if located is not None:
            cursor.execute(
                "INSERT INTO storage_location (artifact_id, storage_id, storage_bucket, stored_at) "
                "VALUES (%s, %s, %s, inventory_now())",
                [row.id, located.storage_id, located.storage_bucket],
            )


def insert_location(artifact_id: uuid.UUID, uri: str, located: Located) -> None:
    """The location of a known, unstored artifact, with its StorageLocationEvent.

    The artifact takes a new place in the feed: a peer that passed its old place while it was not stored here must see it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO storage_location (artifact_id, storage_id, storage_bucket, stored_at) "
            "VALUES (%s, %s, %s, inventory_now())",
            [artifact_id, located.storage_id, located.storage_bucket],
        )
        cursor.execute("UPDATE artifact SET txid = 0 WHERE id = %s", [artifact_id])
    exchange_event("deleted_storage_location_event", "storage_location_event", artifact_id, uri)


def replace_location(artifact_id: uuid.UUID, located: Located) -> None:
    """Other bytes of the same content are served from now on; no event, for the artifact was here and is here.

    The artifact takes a new place in the feed: whoever follows it here (the record of verified copies) must see the new bytes.
    """
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM storage_location WHERE artifact_id = %s", [artifact_id])
        cursor.execute(
            "INSERT INTO storage_location (artifact_id, storage_id, storage_bucket, stored_at) "
            "VALUES (%s, %s, %s, inventory_now())",
            [artifact_id, located.storage_id, located.storage_bucket],
        )
        cursor.execute("UPDATE artifact SET txid = 0 WHERE id = %s", [artifact_id])


def insert_obsolete(*places: Located) -> None:
    """Bytes for removal."""
    values: list[list[uuid.UUID | str]] = []
    for located in places:
        identity = uuid.uuid4()
        checksum = rules.location_meta_checksum(identity, located.storage_bucket, located.storage_id)
        values.append([identity, located.storage_id, located.storage_bucket, checksum])
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO obsolete_storage_location (id, storage_id, storage_bucket, last_modified, meta_checksum) "
            "VALUES (%s, %s, %s, inventory_now(), %s) ON CONFLICT DO NOTHING",
            values,
        )


def exchange_event(old_table: str, new_table: str, artifact_id: uuid.UUID, uri: str) -> None:
    """One kind of location event takes the place of the other: they exclude each other (house, decision 5)."""
    checksum = rules.event_meta_checksum(artifact_id, uri)
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {old_table} WHERE id = %s", [artifact_id])
        cursor.execute(
            f"INSERT INTO {new_table} (id, uri, last_modified, meta_checksum, txid) VALUES (%s, %s, inventory_now(), %s, 0) "
            "ON CONFLICT (id) DO NOTHING",
            [artifact_id, uri, checksum],
        )


def database_now() -> datetime:
    """The inventory's one clock, in milliseconds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT inventory_now()")
        (now,) = cursor.fetchone()
    return now  # type: ignore[no-any-return]  # a cursor's values are untyped


def current_txid() -> int:
    """This transaction's id."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {TXID_SQL}")
        (txid,) = cursor.fetchone()
    return int(txid)


def _insert_values(row: ArtifactRow) -> list[uuid.UUID | str | int | datetime | bytes | None]:
    return [
        row.id,
        row.uri,
        row.uri_bucket,
        row.content_checksum,
        row.content_last_modified,
        row.content_length,
        row.content_type,
        row.content_encoding,
        row.last_modified,
        row.meta_checksum,
        row.content_sha256,
        row.meta_modified_at,
    ]
