"""Reads of the shared tables: one SQL statement each; never write."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper

from datamodel.positions import TXID_SQL
from datamodel.prepared import prepared_cursor
from datamodel.reach import Range
from datamodel.rules import ArtifactRow, Located

ARTIFACT_COLUMNS = (
    "a.id, a.uri, a.uri_bucket, a.content_checksum, a.content_last_modified, a.content_length, a.content_type, "
    "a.content_encoding, a.last_modified, a.meta_checksum, a.content_sha256, a.meta_modified_at"
)
_COLUMN_COUNT = 12
# Of one statement: each may give a page of rows, which are sorted.
_MOST_RANGES = 64
# The planner does not know how much a range holds, and takes it for little: were it told that a page is more than that, it would read
# and sort the whole range for each page, and all that is joined to it.
PAGE_END = "ORDER BY a.uri LIMIT (SELECT %(limit)s)"
_STORED_SQL = f"""
    SELECT {ARTIFACT_COLUMNS}, l.storage_id, l.storage_bucket
    FROM artifact a LEFT JOIN storage_location l ON l.artifact_id = a.id
"""
# Against other writers of the same uri, known or not, until the end of the transaction.
URI_LOCK_SQL = "pg_advisory_xact_lock(hashtextextended(%(uri)s::text, 0))"
_LOCKED_SQL = f"""
    WITH known AS ({_STORED_SQL} WHERE a.uri = %s FOR UPDATE OF a)
    SELECT inventory_now(), {TXID_SQL}, known.* FROM (VALUES (1)) AS one LEFT JOIN known ON true
"""


@dataclass(frozen=True, slots=True)
class KnownArtifact:
    """An artifact and, if this site stores it, where."""

    artifact: ArtifactRow
    location: Located | None


def artifact_from(row: Sequence[Any]) -> ArtifactRow:
    """From a row selected by `ARTIFACT_COLUMNS` (more columns may follow)."""
    values = list(row[:_COLUMN_COUNT])
    if values[10] is not None:
        values[10] = bytes(values[10])
    return ArtifactRow(*values)


def rows_in_ranges(
    sql: str, ranges: Sequence[Range], *, limit: int, parameters: Mapping[str, Any] | None = None
) -> list[tuple[Any, ...]]:
    """The first `limit` rows of ranges in their order; `sql` selects those of one range `r(low, high)`, and ends with `PAGE_END`.

    Few ranges are asked for at first, then more at a time: a full page reads little too much, many empty ranges cost few queries.
    """
    found: list[tuple[Any, ...]] = []
    start, size = 0, 1
    with connection.cursor() as cursor:
        while start < len(ranges) and len(found) < limit:
            lows, highs = (list(ends) for ends in zip(*ranges[start : start + size], strict=True))
            cursor.execute(
                "SELECT p.* FROM unnest(%(lows)s::text[], %(highs)s::text[]) WITH ORDINALITY r(low, high, n) "
                f"CROSS JOIN LATERAL ({sql}) p ORDER BY r.n, p.uri LIMIT %(limit)s",
                {**(parameters or {}), "lows": lows, "highs": highs, "limit": limit - len(found)},
            )
            found += cursor.fetchall()
            start, size = start + size, min(size * 4, _MOST_RANGES)
    return found


def _known(row: Sequence[Any] | None) -> KnownArtifact | None:
    if row is None:
        return None
    location = None if row[_COLUMN_COUNT] is None else Located(row[_COLUMN_COUNT], row[_COLUMN_COUNT + 1])
    return KnownArtifact(artifact_from(row), location)


def artifact_by_uri(uri: str, *, for_update: bool = False) -> KnownArtifact | None:
    """By canonical uri; `for_update` locks the artifact row until the end of the transaction."""
    with prepared_cursor() as cursor:
        cursor.execute(_STORED_SQL + " WHERE a.uri = %s" + (" FOR UPDATE OF a" if for_update else ""), [uri])
        return _known(cursor.fetchone())


def lock_artifact(cursor: CursorWrapper, uri: str) -> tuple[KnownArtifact | None, datetime, int]:
    """By canonical uri, its row locked until the end of the transaction; the time once it is locked; the transaction's id."""
    cursor.execute(_LOCKED_SQL, [uri])
    now, txid, *row = cursor.fetchone()
    return _known(row if row[0] is not None else None), now, txid


def artifact_by_id(artifact_id: uuid.UUID, *, for_update: bool = False) -> KnownArtifact | None:
    """By id; `for_update` locks the artifact row until the end of the transaction."""
    with prepared_cursor() as cursor:
        cursor.execute(_STORED_SQL + " WHERE a.id = %s" + (" FOR UPDATE OF a" if for_update else ""), [artifact_id])
        return _known(cursor.fetchone())


@dataclass(frozen=True, slots=True)
class RetiredRow:
    """A RetiredArtifact: what was deleted or replaced here, and where its bytes are while `state` is `retained`."""

    id: uuid.UUID
    uri: str
    content_checksum: str
    content_sha256: bytes | None
    content_length: int
    content_type: str | None
    content_encoding: str | None
    born_at: datetime
    died_at: datetime
    ended_at: datetime
    located: Located
    state: str


RETIRED_COLUMNS = (
    "r.id, r.uri, r.content_checksum, r.content_sha256, r.content_length, r.content_type, r.content_encoding, r.born_at, "
    "r.died_at, coalesce(r.ended_at, r.died_at), r.storage_id, r.storage_bucket, r.state"
)


def retired_from(row: Sequence[Any]) -> RetiredRow:
    """From a row selected by `RETIRED_COLUMNS` (more columns may follow)."""
    return RetiredRow(
        id=row[0],
        uri=row[1],
        content_checksum=row[2],
        content_sha256=bytes(row[3]) if row[3] is not None else None,
        content_length=row[4],
        content_type=row[5],
        content_encoding=row[6],
        born_at=row[7],
        died_at=row[8],
        ended_at=row[9],
        located=Located(row[10], row[11]),
        state=row[12],
    )


def retired_by_id(artifact_id: uuid.UUID) -> RetiredRow | None:
    """Whatever its state."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {RETIRED_COLUMNS} FROM retired_artifact r WHERE r.id = %s", [artifact_id])
        row = cursor.fetchone()
    return retired_from(row) if row is not None else None


def is_tombstoned(artifact_id: uuid.UUID) -> bool:
    """Whether the artifact with this id was deleted for ever."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM deleted_artifact_event WHERE id = %s", [artifact_id])
        return cursor.fetchone() is not None


COUNTED_TABLES = (
    "artifact",
    "storage_location",
    "site_location",
    "storage_site",
    "deleted_artifact_event",
    "retired_artifact",
    "obsolete_storage_location",
)
_EXACT_BELOW = 100_000


def row_count(table: str) -> int:
    """How many rows a table has: exact when it is small, the planner's estimate when counting would cost seconds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [table])
        (estimate,) = cursor.fetchone()
        if estimate >= _EXACT_BELOW:
            return int(estimate)
        # A table that was never analyzed says -1; then the limit bounds the cost.
        cursor.execute(f"SELECT count(*) FROM (SELECT FROM {table} LIMIT {_EXACT_BELOW}) AS counted")
        (count,) = cursor.fetchone()
        return int(count)
