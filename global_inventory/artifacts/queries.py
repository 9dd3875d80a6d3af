"""Artifacts with their copies, page by page; and all that is known about one uri. Reads only."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from datamodel import lines
from datamodel.queries import ARTIFACT_COLUMNS, PAGE_END, artifact_from, rows_in_ranges
from datamodel.reach import Reach
from datamodel.rules import ArtifactRow
from datamodel.wire import ARTIFACT_ITEM_SQL

PAGE_ROWS = 1000

# A copy is named as the operator named its site; one whose site is not harvested any more, as the site names itself.
_LISTED = """
    SELECT {columns}, h.copies, h.releasing FROM artifact a CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(n.name ORDER BY n.name) FILTER (WHERE n.releasing_at IS NULL), '{{}}') AS copies,
            coalesce(array_agg(n.name ORDER BY n.name) FILTER (WHERE n.releasing_at IS NOT NULL), '{{}}') AS releasing
        FROM (
            SELECT coalesce(r.name, s.name) AS name, l.releasing_at
            FROM site_location l JOIN storage_site s ON s.id = l.site_id LEFT JOIN remote_inventory r ON r.site_id = s.id
            WHERE l.artifact_id = a.id) n) h
"""
_PAGE = f"WHERE a.uri >= r.low AND a.uri < r.high {PAGE_END}"
_ROW_SQL = _LISTED.format(columns=ARTIFACT_COLUMNS)
_ROWS_SQL = f"{_ROW_SQL} {_PAGE}"
_ITEMS_SQL = f"{_LISTED.format(columns=ARTIFACT_ITEM_SQL)} {_PAGE}"
_TOMBSTONES_SQL = """
    SELECT id, deleted_at, last_modified FROM deleted_artifact_event WHERE uri = %s
    ORDER BY deleted_at DESC, id LIMIT 20
"""
_CONFLICTS_SQL = """
    SELECT winner_id, loser_id, loser_checksum, loser_length, loser_last_modified, same_content, decided_at, seen_at
    FROM harvest_conflict WHERE winner_id = ANY(%(ids)s) OR loser_id = ANY(%(ids)s) ORDER BY decided_at DESC LIMIT 20
"""
_HARVESTS_SQL = """
    SELECT r.name, r.enabled, r.last_contact_at, r.last_error, r.last_error_at, h.name, h.epoch, h.cur_txid, h.rows,
        h.is_complete, h.updated_at, extract(epoch FROM inventory_now() - h.updated_at)::float8
    FROM remote_inventory r LEFT JOIN harvest_state h ON h.remote_id = r.id AND h.selector = ''
    WHERE r.role = 'site' ORDER BY r.name, h.name
"""
_HOLDERS_SQL = "SELECT site_id, releasing_at IS NOT NULL FROM site_location WHERE artifact_id = %s"
_ZERO_COPIES_SQL = """
    SELECT count(*) FROM artifact a WHERE NOT EXISTS
        (SELECT FROM site_location l WHERE l.artifact_id = a.id AND l.releasing_at IS NULL)
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """One artifact of a listing with the names of the sites that hold it, and of those that may drop theirs."""

    artifact: ArtifactRow
    copies: tuple[str, ...]
    releasing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An artifact of a uri that was deleted for ever."""

    artifact_id: uuid.UUID
    deleted_at: datetime
    learned_at: datetime


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two artifacts that claimed the uri, and which one lost."""

    winner_id: uuid.UUID
    loser_id: uuid.UUID
    loser_checksum: str
    loser_length: int
    loser_last_modified: datetime
    same_content: bool
    decided_at: datetime
    seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Harvest:
    """How far one stream of one site has been harvested; `stream` is None before the first contact."""

    site: str
    enabled: bool
    last_contact_at: datetime | None
    last_error: str
    last_error_at: datetime | None
    stream: str | None
    epoch: str | None
    txid: int | None
    rows: int | None
    is_complete: bool | None
    updated_at: datetime | None
    seconds_since_update: float | None


def artifact_page(prefix: str, readable: Reach, *, after: str = "", limit: int = PAGE_ROWS) -> list[Listed]:
    """Up to `limit` readable artifacts whose uri starts with `prefix`, after the uri `after`, in C order."""
    return [_listed(row) for row in rows_in_ranges(_ROWS_SQL, readable.after(prefix, after), limit=limit)]


def json_lines(prefix: str, readable: Reach) -> Iterator[bytes]:
    """Every readable artifact below a prefix as a line of JSON, with `copies` and `releasing`; a page at a time."""
    return lines.json_lines(_ITEMS_SQL, prefix, readable, limit=PAGE_ROWS)


def listed_by_uri(uri: str) -> Listed | None:
    """By canonical uri."""
    return _one(f"{_ROW_SQL} WHERE a.uri = %s", uri)


def listed_by_id(artifact_id: uuid.UUID) -> Listed | None:
    """By id."""
    return _one(f"{_ROW_SQL} WHERE a.id = %s", artifact_id)


def tombstones(uri: str) -> list[Tombstone]:
    """The latest artifacts of this uri that were deleted for ever."""
    with connection.cursor() as cursor:
        cursor.execute(_TOMBSTONES_SQL, [uri])
        return [Tombstone(*row) for row in cursor.fetchall()]


def conflicts(artifact_ids: Sequence[uuid.UUID]) -> list[Conflict]:
    """The latest conflicts that any of these artifacts won or lost."""
    with connection.cursor() as cursor:
        cursor.execute(_CONFLICTS_SQL, {"ids": list(artifact_ids)})
        return [Conflict(*row) for row in cursor.fetchall()]


def harvests() -> list[Harvest]:
    """Every stream of every site."""
    with connection.cursor() as cursor:
        cursor.execute(_HARVESTS_SQL)
        return [Harvest(*row) for row in cursor.fetchall()]


def holders(artifact_id: uuid.UUID) -> dict[uuid.UUID, bool]:
    """Ids of the sites that hold an artifact, and whether each may drop its copy."""
    with connection.cursor() as cursor:
        cursor.execute(_HOLDERS_SQL, [artifact_id])
        return dict(cursor.fetchall())


def count_without_copies() -> int:
    """How many artifacts no site holds: one pass over two indexes, so not for every scrape."""
    with connection.cursor() as cursor:
        cursor.execute(_ZERO_COPIES_SQL)
        (count,) = cursor.fetchone()
        return int(count)


def _one(sql: str, key: str | uuid.UUID) -> Listed | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, [key])
        row = cursor.fetchone()
    return None if row is None else _listed(row)


def _listed(row: Sequence[Any]) -> Listed:
    return Listed(artifact_from(row), tuple(row[-2]), tuple(row[-1]))
