"""The set-based forms of `operations.attach_location`, for file sync, and of the opposite: many small files must not cost a commit each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from datamodel.rows import insert_obsolete
from datamodel.rules import Located


@dataclass(frozen=True, slots=True)
class Arrival:
    """Durable, verified bytes of a known artifact; `content_sha256` (raw) fills the artifact's if that is not known."""

    artifact_id: uuid.UUID
    located: Located
    content_sha256: bytes | None = None


def attach_locations(arrivals: Sequence[Arrival]) -> set[uuid.UUID]:
    """Inside a transaction: the bytes of these artifacts are here now; returns the ids that got theirs.

    As for one: the location, a StorageLocationEvent (any DeletedStorageLocationEvent goes), a new place in the feed. Bytes
    of an artifact that is gone or already stored become obsolete, unless they are the ones that it is stored with.
    """
    locations = _lock([arrival.artifact_id for arrival in arrivals])
    missing = [arrival for arrival in arrivals if locations.get(arrival.artifact_id, _GONE) is None]
    for arrival in arrivals:
        if arrival not in missing and locations.get(arrival.artifact_id, _GONE) != arrival.located:
            insert_obsolete(arrival.located)
    if missing:
        _insert(missing)
    return {arrival.artifact_id for arrival in missing}


def drop_locations(artifact_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Inside a transaction: the good copies of these artifacts go on purpose, as the globals have allowed; returns whose did.

    As `operations.clear_location`: a DeletedStorageLocationEvent (any StorageLocationEvent goes), which says that there is nothing to
    repair; the artifacts stay known. The bytes become obsolete.
    """
    _lock(list(artifact_ids))
    with connection.cursor() as cursor:
        cursor.execute(_DROP_SQL, [list(artifact_ids)])
        dropped = {row[0]: Located(row[1], row[2]) for row in cursor.fetchall()}
    insert_obsolete(*dropped.values())
    return set(dropped)


_GONE = Located("", "")
_LOCK_SQL = """
    SELECT a.id, l.storage_id, l.storage_bucket
    FROM artifact a LEFT JOIN storage_location l ON l.artifact_id = a.id
    WHERE a.id = ANY(%s) ORDER BY a.id FOR UPDATE OF a
"""
_INSERT_SQL = """
    INSERT INTO storage_location (artifact_id, storage_id, storage_bucket, stored_at)
    SELECT n.id, n.storage_id, n.storage_bucket, inventory_now()
    FROM unnest(%(ids)s::uuid[], %(storage_ids)s::text[], %(buckets)s::text[]) AS n(id, storage_id, storage_bucket)
"""
_TOUCH_SQL = """
    UPDATE artifact a SET txid = 0, content_sha256 = coalesce(a.content_sha256, n.sha256)
    FROM unnest(%(ids)s::uuid[], %(sha256s)s::bytea[]) AS n(id, sha256) WHERE a.id = n.id
"""
# Later than the copy and than news of it, wherever the clock has jumped: a global tells by it of which copy the news are.
_DROP_SQL = """
    WITH ended AS (DELETE FROM storage_location WHERE artifact_id = ANY(%s) RETURNING artifact_id, storage_id, storage_bucket, stored_at),
    former AS (DELETE FROM storage_location_event WHERE id IN (SELECT artifact_id FROM ended) RETURNING id, last_modified),
    told AS (
        INSERT INTO deleted_storage_location_event (id, uri, last_modified, meta_checksum, txid, is_dropped)
        SELECT a.id, a.uri, greatest(inventory_now(), e.stored_at + interval '1 ms', f.last_modified + interval '1 ms'),
            event_meta_checksum(a.id, a.uri), 0, TRUE
        FROM ended e JOIN artifact a ON a.id = e.artifact_id LEFT JOIN former f ON f.id = a.id
        ON CONFLICT (id) DO NOTHING
    )
    SELECT artifact_id, storage_id, storage_bucket FROM ended
"""
_EVENT_SQL = """
    INSERT INTO deleted_storage_location_event (id, uri, last_modified, meta_checksum, txid, is_dropped)
    SELECT a.id, a.uri, inventory_now(), event_meta_checksum(a.id, a.uri), 0, TRUE FROM artifact a WHERE a.id = ANY(%s)
    ON CONFLICT (id) DO NOTHING
"""
_EVENT_SQL = """
    WITH former AS (DELETE FROM deleted_storage_location_event WHERE id = ANY(%(ids)s) RETURNING id, last_modified)
    INSERT INTO storage_location_event (id, uri, last_modified, meta_checksum, txid)
    SELECT a.id, a.uri, greatest(inventory_now(), f.last_modified + interval '1 ms'), event_meta_checksum(a.id, a.uri), 0
    FROM artifact a LEFT JOIN former f ON f.id = a.id WHERE a.id = ANY(%(ids)s)
    ON CONFLICT (id) DO NOTHING
"""


def _lock(ids: list[uuid.UUID]) -> dict[uuid.UUID, Located | None]:
    """Where each known artifact is stored (None: nowhere), its row locked; in order of ids, so that two cannot deadlock.

    Two statements: the second one's snapshot is taken after the locks were granted, so it sees locations made meanwhile.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM artifact a WHERE a.id = ANY(%s) ORDER BY a.id FOR UPDATE", [ids])
        cursor.execute(_LOCK_SQL, [ids])
        return {row[0]: None if row[1] is None else Located(row[1], row[2]) for row in cursor.fetchall()}


def _insert(arrivals: Sequence[Arrival]) -> None:
    values: dict[str, Any] = {
        "ids": [arrival.artifact_id for arrival in arrivals],
        "storage_ids": [arrival.located.storage_id for arrival in arrivals],
        "buckets": [arrival.located.storage_bucket for arrival in arrivals],
        "sha256s": [arrival.content_sha256 for arrival in arrivals],
    }
    with connection.cursor() as cursor:
        cursor.execute(_INSERT_SQL, values)
        cursor.execute(_TOUCH_SQL, values)
        cursor.execute(_EVENT_SQL, values)
