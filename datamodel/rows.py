"""Writes of single rows, for use inside the transaction of an operation (`operations.py`, `harvest`); the only place that
names these columns.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from django.db import connection

from datamodel import rules
from datamodel.audit.recording import INSERT_SQL, Values
from datamodel.content import NewContent
from datamodel.positions import TXID_SQL
from datamodel.prepared import prepared_cursor, prepared_rows
from datamodel.queries import URI_LOCK_SQL
from datamodel.rules import ArtifactRow, Located
from datamodel.uris import ArtifactUri

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
_BORN_SQL = """
    INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, content_type,
        content_encoding, last_modified, meta_checksum, content_sha256, meta_modified_at, txid)
    SELECT %(id)s, %(uri)s::text, %(uri_bucket)s::text, %(content_checksum)s::text, {content_last_modified},
        %(content_length)s::bigint, %(content_type)s::text, %(content_encoding)s::text, {last_modified}, {meta_checksum},
        %(content_sha256)s, {meta_modified_at}, 0
"""
_STAMPS = ("content_last_modified", "last_modified", "meta_checksum", "meta_modified_at")
_INSERT_SQL = _BORN_SQL.format(**{name: f"%({name})s" for name in _STAMPS})
_PLACE_SQL = """
    INSERT INTO storage_location (artifact_id, storage_id, storage_bucket, stored_at)
    SELECT %(id)s, %(storage_id)s, %(storage_bucket)s, inventory_now()
"""
_INSERT_STORED_SQL = f"WITH born AS ({_INSERT_SQL}) {_PLACE_SQL}"
_INSERT_RECORDED_SQL = f"WITH born AS ({_INSERT_SQL}), placed AS ({_PLACE_SQL}) {INSERT_SQL}"
# Its snapshot is older than the lock that it waits for. What came under this uri meanwhile makes the insert fail, and what went
# meanwhile is still seen: in neither case anything is written.
_CREATE_SQL = f"""
    WITH locked AS MATERIALIZED (SELECT {URI_LOCK_SQL}),
    at AS MATERIALIZED (SELECT inventory_now() AS now FROM locked WHERE NOT EXISTS (SELECT FROM artifact WHERE uri = %(uri)s)),
    born AS ({
    _BORN_SQL.format(
        content_last_modified="now",
        last_modified="now",
        meta_checksum="artifact_meta_checksum(%(id)s, %(uri)s::text, %(uri_bucket)s::text, %(content_checksum)s::text, now, "
        "%(content_length)s::bigint, %(content_type)s::text, %(content_encoding)s::text)",
        meta_modified_at="now",
    )
} FROM at),
    placed AS ({_PLACE_SQL} FROM at), told AS ({INSERT_SQL} FROM at)
    SELECT now, {TXID_SQL} FROM at
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
    values = _insert_values(row)
    with prepared_cursor() as cursor:
        if located is None:
            cursor.execute(_INSERT_SQL, values)
        else:
            place = {"storage_id": located.storage_id, "storage_bucket": located.storage_bucket}
            cursor.execute(_INSERT_STORED_SQL, values | place)


def insert_recorded(row: ArtifactRow, located: Located, entry: Values) -> None:
    """The same, with the entry of the audit that says who did it, in one statement: each one costs a PUT a round trip."""
    place = {"storage_id": located.storage_id, "storage_bucket": located.storage_bucket}
    with prepared_cursor() as cursor:
        cursor.execute(_INSERT_RECORDED_SQL, _insert_values(row) | place | entry)


def create_artifact(uri: ArtifactUri, content: NewContent, entry: Values) -> tuple[datetime, int] | None:
    """A new artifact with its location and its entry of the audit, by one statement that is a transaction of its own, if nothing
    is known of the uri: its time and transaction. None, and nothing is done, where something is known.

    Raises `IntegrityError` when another writer of the uri came first.
    """
    values = {
        "id": content.artifact_id,
        "uri": uri.value,
        "uri_bucket": uri.bucket,
        "content_checksum": content.content_checksum,
        "content_length": content.content_length,
        "content_type": content.content_type,
        "content_encoding": content.content_encoding,
        "content_sha256": content.content_sha256,
        "storage_id": content.located.storage_id,
        "storage_bucket": content.located.storage_bucket,
    }
    made = prepared_rows(_CREATE_SQL, values | entry)
    return (made[0][0], made[0][1]) if made else None


def insert_location(artifact_id: uuid.UUID, uri: str, located: Located) -> None:
    """The location of a known, unstored artifact, with its StorageLocationEvent.

    The artifact takes a new place in the feed: a peer that passed its old place while it was not stored here must see it.
    """
    with prepared_cursor() as cursor:
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


def exchange_event(
    old_table: str, new_table: str, artifact_id: uuid.UUID, uri: str, *, after: datetime | None = None
) -> None:
    """One kind of location event takes the place of the other: they exclude each other (house, decision 5).

    It is later than the other, and than `after`, wherever the clock has jumped: a global tells by it of which copy the news are.
    """
    values: dict[str, uuid.UUID | str | datetime | None]
    values = {"id": artifact_id, "uri": uri, "checksum": rules.event_meta_checksum(artifact_id, uri), "after": after}
    with prepared_cursor() as cursor:
        cursor.execute(
            f"WITH former AS (DELETE FROM {old_table} WHERE id = %(id)s RETURNING last_modified) "
            f"INSERT INTO {new_table} (id, uri, last_modified, meta_checksum, txid) VALUES (%(id)s, %(uri)s, greatest(inventory_now(), "
            "(SELECT last_modified FROM former) + interval '1 ms', %(after)s::timestamptz + interval '1 ms'), %(checksum)s, 0) "
            "ON CONFLICT (id) DO NOTHING",
            values,
        )


def database_now() -> datetime:
    """The inventory's one clock, in milliseconds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT inventory_now()")
        (now,) = cursor.fetchone()
    return now  # type: ignore[no-any-return]  # a cursor's values are untyped


def current_txid() -> int:
    """This transaction's id."""
    with prepared_cursor() as cursor:
        cursor.execute(f"SELECT {TXID_SQL}")
        (txid,) = cursor.fetchone()
    return int(txid)


def _insert_values(row: ArtifactRow) -> Values:
    return {
        "id": row.id,
        "uri": row.uri,
        "uri_bucket": row.uri_bucket,
        "content_checksum": row.content_checksum,
        "content_last_modified": row.content_last_modified,
        "content_length": row.content_length,
        "content_type": row.content_type,
        "content_encoding": row.content_encoding,
        "last_modified": row.last_modified,
        "meta_checksum": row.meta_checksum,
        "content_sha256": row.content_sha256,
        "meta_modified_at": row.meta_modified_at,
    }
