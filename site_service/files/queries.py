"""What to serve: one statement per request; listings by keyset, page by page, so that no length needs memory or a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from datamodel import lines
from datamodel.lookups import SharedLookup
from datamodel.prepared import prepared_rows
from datamodel.queries import ARTIFACT_COLUMNS, PAGE_END, KnownArtifact, artifact_from, rows_in_ranges
from datamodel.reach import END, Reach
from datamodel.rules import ArtifactRow, Located
from datamodel.uris import ArtifactUri, Namespace
from datamodel.wire import ARTIFACT_ITEM_SQL

PAGE_ROWS = 1000
_COLUMN_COUNT = ARTIFACT_COLUMNS.count(",") + 1

# The site's own switches come with the artifact: an operator's word holds from the next request on, for no second statement.
_STATES_SQL = f"""
    SELECT asked.uri, coalesce(s.allow_read, true), coalesce(s.allow_write, true), {ARTIFACT_COLUMNS},
        l.storage_id, l.storage_bucket
    FROM unnest(%s::text[]) AS asked(uri)
    LEFT JOIN artifact a ON a.uri = asked.uri
    LEFT JOIN storage_location l ON l.artifact_id = a.id
    LEFT JOIN (storage_site s JOIN inventory_identity i ON i.inventory_id = s.id) ON true
"""
_files = SharedLookup(_STATES_SQL)
_PAGE_SQL = f"""
    SELECT {{columns}}, l.artifact_id IS NOT NULL AS stored
    FROM artifact a LEFT JOIN storage_location l ON l.artifact_id = a.id
    WHERE a.uri >= r.low AND a.uri < r.high AND (l.artifact_id IS NOT NULL OR NOT %(stored_only)s) {PAGE_END}
"""
_ROWS_SQL = _PAGE_SQL.format(columns=ARTIFACT_COLUMNS)
_ITEMS_SQL = _PAGE_SQL.format(columns=ARTIFACT_ITEM_SQL)


@dataclass(frozen=True, slots=True)
class FileState:
    """What this site knows of a uri, and what its switches allow."""

    allow_read: bool
    allow_write: bool
    known: KnownArtifact | None

    @property
    def stored(self) -> tuple[ArtifactRow, Located] | None:
        """The artifact and its place, if its bytes are here."""
        if self.known is None or self.known.location is None:
            return None
        return self.known.artifact, self.known.location


@dataclass(frozen=True, slots=True)
class Listed:
    """One artifact of a listing."""

    artifact: ArtifactRow
    is_stored: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One name directly below a namespace: an artifact, or (artifact is None) a deeper namespace; `name` ends in `/` then."""

    name: str
    uri: str
    artifact: ArtifactRow | None


def file_state(uri: ArtifactUri) -> FileState:
    """By canonical uri; in one statement, which other requests may share."""
    (row,) = _files.find(uri.value)
    return _state(row)


def file_states(uris: Iterable[ArtifactUri]) -> dict[str, FileState]:
    """All of them by canonical uri, in one statement."""
    return {row[0]: _state(row) for row in prepared_rows(_STATES_SQL, [[uri.value for uri in uris]])}


def _state(row: Sequence[Any]) -> FileState:
    _, allow_read, allow_write, *rest = row
    if rest[0] is None:
        return FileState(allow_read, allow_write, None)
    storage_id, storage_bucket = rest[_COLUMN_COUNT:]
    location = None if storage_id is None else Located(storage_id, storage_bucket)
    return FileState(allow_read, allow_write, KnownArtifact(artifact_from(rest), location))


def artifact_page(
    prefix: str, readable: Reach, *, after: str = "", limit: int | None = None, stored_only: bool = False
) -> list[Listed]:
    """Up to `limit` (default: a page of) readable artifacts whose uri starts with `prefix`, after the uri `after`, in C order."""
    rows = rows_in_ranges(
        _ROWS_SQL, readable.after(prefix, after), limit=limit or PAGE_ROWS, parameters={"stored_only": stored_only}
    )
    return [Listed(artifact_from(row), row[_COLUMN_COUNT]) for row in rows]


def all_artifacts(prefix: str, readable: Reach, *, stored_only: bool) -> Iterator[Listed]:
    """Every readable artifact below a prefix; holds one page in memory, and no connection between pages.

    What is there for the whole time is listed once; what comes or goes meanwhile may or may not be.
    """
    after = ""
    while page := artifact_page(prefix, readable, after=after, stored_only=stored_only):
        connection.close()
        yield from page
        after = page[-1].artifact.uri
    connection.close()


def json_lines(prefix: str, readable: Reach, *, stored_only: bool) -> Iterator[bytes]:
    """`all_artifacts` as lines of JSON, a page at a time."""
    return lines.json_lines(_ITEMS_SQL, prefix, readable, limit=PAGE_ROWS, parameters={"stored_only": stored_only})


def entries(namespace: Namespace | None, readable: Reach, *, after: str = "") -> Iterator[Entry]:
    """The names directly below a namespace, of stored and readable artifacts; a deeper namespace is passed over in one step.

    `after` is the `uri` of the last entry seen.
    """
    prefix = namespace.value if namespace is not None else ""
    after = _beyond(after)
    while page := artifact_page(prefix, readable, after=after, stored_only=True):
        connection.close()
        for listed in page:
            if listed.artifact.uri > after:
                entry = _entry(prefix, listed.artifact)
                after = _beyond(entry.uri)
                yield entry
    connection.close()


def _entry(prefix: str, artifact: ArtifactRow) -> Entry:
    name, slash, _ = artifact.uri.removeprefix(prefix).partition("/")
    if slash:
        return Entry(f"{name}/", f"{prefix}{name}/", None)
    return Entry(name, artifact.uri, artifact)


def _beyond(uri: str) -> str:
    """The cursor after an entry: an artifact's own uri, or the end of everything in a namespace."""
    return f"{uri}{END}" if uri.endswith("/") else uri
