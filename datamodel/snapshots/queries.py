"""The inventory as it was at a moment, from artifacts and retired artifacts by index ranges of their uris. Reads only.

An artifact lived from `contentLastModified` until the time of its DeletedArtifactEvent: times that every inventory has alike, so that
two inventories answer alike for a moment once each has harvested what the other knew then.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q
from django.utils.module_loading import import_string

from datamodel.errors import ArtifactNotFoundError, InvalidRequestError, MomentGoneError
from datamodel.rows import database_now
from datamodel.snapshots.models import Snapshot, SnapshotMark
from datamodel.snapshots.rules import Change, Digest, Entry, State, Tree, change_of
from datamodel.uris import prefix_upper_bound

PAGE_ROWS = 1000
# A digest of very many rows takes longer than a request may.
_SCAN_SECONDS = 3600
# Above every URI: they are ASCII.
_END = "\x7f"
_WORD = (
    "encode(sha256(convert_to(h.id::text || ' ' || h.uri || ' ' || h.content_checksum || ' ' || h.content_length::text, "
    "'UTF8')), 'hex')"
)
_COLUMNS = "id, uri, content_checksum, content_sha256, content_length, content_type, content_encoding"
_ENDED = "coalesce(r.ended_at, r.died_at)"
_LIVING_THEN = f"""
    SELECT {_COLUMNS}, content_last_modified AS born_at FROM artifact a WHERE a.content_last_modified <= %(moment)s
"""
_ENDED_LATER = f"""
    SELECT {_COLUMNS}, born_at FROM retired_artifact r WHERE r.born_at <= %(moment)s AND {_ENDED} > %(moment)s
"""
_LIVING = f"{_LIVING_THEN} AND a.uri > %(after)s AND a.uri < %(before)s"
_ENDED_SINCE = f"{_ENDED_LATER} AND r.uri > %(after)s AND r.uri < %(before)s"
_ONE_SQL = f"""
    {_LIVING_THEN} AND a.uri = %(uri)s UNION ALL {_ENDED_LATER} AND r.uri = %(uri)s ORDER BY born_at DESC, id DESC LIMIT 1
"""
# Each half by the index of its uris, and no further than the page: the planner would rather read all and sort.
_PAGE_SQL = f"""
    ({_LIVING} ORDER BY uri LIMIT %(limit)s) UNION ALL ({_ENDED_SINCE} ORDER BY uri LIMIT %(limit)s)
    ORDER BY uri LIMIT %(limit)s
"""
_TREE_SQL = f"""
    SELECT left(md5(h.uri), 2), count(*), sum(h.content_length), sum(('x' || substr(h.word, 1, 8))::bit(32)::bigint),
        sum(('x' || substr(h.word, 9, 8))::bit(32)::bigint), sum(('x' || substr(h.word, 17, 8))::bit(32)::bigint),
        sum(('x' || substr(h.word, 25, 8))::bit(32)::bigint)
    FROM (SELECT h.uri, h.content_length, {_WORD} AS word FROM (
        SELECT DISTINCT ON (b.uri) b.* FROM ({_LIVING} UNION ALL {_ENDED_SINCE}) b ORDER BY b.uri, b.born_at DESC, b.id DESC) h) h GROUP BY 1
"""
_DIFFERS = "h.was <> h.will AND (%(buckets)s::text[] IS NULL OR left(md5(h.uri), 2) = ANY(%(buckets)s))"
_CHANGES_SQL = f"""
    (SELECT {_COLUMNS}, born_at, was FROM (
        SELECT {_COLUMNS}, content_last_modified AS born_at, a.content_last_modified <= %(first)s AS was,
            a.content_last_modified <= %(second)s AS will
        FROM artifact a WHERE a.uri > %(after)s AND a.uri < %(before)s
    ) h WHERE {_DIFFERS} ORDER BY uri LIMIT %(limit)s)
    UNION ALL
    (SELECT {_COLUMNS}, born_at, was FROM (
        SELECT {_COLUMNS}, born_at, r.born_at <= %(first)s AND {_ENDED} > %(first)s AS was,
            r.born_at <= %(second)s AND {_ENDED} > %(second)s AS will
        FROM retired_artifact r WHERE r.uri > %(after)s AND r.uri < %(before)s
    ) h WHERE {_DIFFERS} ORDER BY uri LIMIT %(limit)s)
    ORDER BY uri LIMIT %(limit)s
"""
# Bytes equal to what lived at the moment of a snapshot are its bytes, whichever id they had last: undelete gives them new ones.
HELD_SQL = """
    EXISTS (SELECT FROM retired_artifact h JOIN snapshot s ON s.moment >= h.born_at AND s.moment < greatest(h.died_at, h.ended_at)
        WHERE h.uri = r.uri AND h.content_checksum = r.content_checksum AND h.content_length = r.content_length
            AND s.state <> 'released' AND starts_with(r.uri, s.namespace))
"""
# What a global has not told us of yet are snapshots of later moments than its last answer: nothing that ended before is in them.
_UNTOLD_SQL = """
    EXISTS (SELECT FROM remote_inventory g LEFT JOIN snapshot_pin_source p ON p.remote_id = g.id AND p.url = g.url
        WHERE g.enabled AND g.role = 'global'
            AND (p.heard_until IS NULL OR greatest(r.died_at, r.ended_at) > p.heard_until))
"""
FREE_SQL = f"(NOT {HELD_SQL} AND NOT {_UNTOLD_SQL})"
"""Whether no snapshot, known here or not, can need the retired artifact `r`."""
_WRITERS_SQL = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND xact_start <= %s::timestamptz + interval '1 millisecond'
"""
_HELD_SIZE_SQL = f"""
    SELECT count(*), coalesce(sum(r.content_length), 0) FROM retired_artifact r WHERE r.state = 'retained' AND {HELD_SQL}
"""


@dataclass(frozen=True, slots=True)
class Changed:
    """A uri that is not the same at two moments."""

    uri: str
    change: Change
    before: Entry | None
    after: Entry | None


@dataclass(frozen=True, slots=True)
class Verification:
    """What a snapshot promised, and what its namespace at its moment is by what is known today."""

    promised: Digest
    found: Digest

    @property
    def holds(self) -> bool:
        return self.promised == self.found


def entries_page(prefix: str, moment: datetime, *, after: str = "", limit: int = PAGE_ROWS) -> list[Entry]:
    """Up to `limit` artifacts below a prefix as of a moment, after the uri `after`, in C order."""
    rows = min(PAGE_ROWS, limit + 2)
    return list(islice(all_entries(prefix, moment, after=after, rows=rows), limit))


def all_entries(prefix: str, moment: datetime, *, after: str = "", rows: int = PAGE_ROWS) -> Iterator[Entry]:
    """Every artifact below a prefix as of a moment; holds one page in memory, and no connection between pages.

    Should a uri have had two at a time (a collision of which this inventory learnt late), it is the later one.
    """
    for group in _by_uri(_PAGE_SQL, {"moment": moment}, prefix, after, rows):
        yield _entry(max(group, key=lambda row: (row[7], row[0])))


def entry_of(uri: str, moment: datetime) -> Entry | None:
    """What a uri was as of a moment."""
    with connection.cursor() as cursor:
        cursor.execute(_ONE_SQL, {"uri": uri, "moment": moment})
        row = cursor.fetchone()
    return _entry(row) if row is not None else None


def tree(prefix: str, moment: datetime) -> Tree:
    """The digests of everything below a prefix as of a moment; one scan of what is there."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {_SCAN_SECONDS * 1000}")
        cursor.execute(_TREE_SQL, _bounds(prefix, "") | {"moment": moment})
        return {bucket: Digest(count, int(size), _total(parts)) for bucket, count, size, *parts in cursor.fetchall()}


def changes(
    prefix: str, first: datetime, second: datetime, *, buckets: Sequence[str] | None = None, after: str = ""
) -> Iterator[Changed]:
    """What differs between two moments (in these buckets only), by uri; flat in memory, no connection between pages."""
    if buckets is not None and not buckets:
        return
    values = {"first": first, "second": second, "buckets": buckets}
    for group in _by_uri(_CHANGES_SQL, values, prefix, after, PAGE_ROWS):
        sides = {row[8]: _entry(row) for row in sorted(group, key=lambda row: (row[7], row[0]))}
        before, later = sides.get(True), sides.get(False)
        yield Changed(group[0][1], change_of(before, later), before, later)


def checked_moment(moment: datetime) -> datetime:
    """A moment that can be asked about. Raises `InvalidRequestError` for the future, `MomentGoneError` before history begins."""
    if moment > database_now():
        raise InvalidRequestError(f"as_of lies in the future: {moment.isoformat()}")
    begins_at = history_begins_at()
    if begins_at is not None and moment < begins_at:
        raise MomentGoneError(
            f"what was deleted before {begins_at.isoformat()} is forgotten here: ask for a moment since then, or for a snapshot",
            since=begins_at.isoformat(),
        )
    return moment


def history_begins_at() -> datetime | None:
    """From when on every deletion is remembered; None: from the beginning."""
    return SnapshotMark.objects.values_list("history_begins_at", flat=True).filter(id=1).first()


def find(name: str) -> Snapshot:
    """By name (of a global's snapshot at a site: `GLOBAL:NAME`). Raises `ArtifactNotFoundError`."""
    source, _, own = name.rpartition(":")
    living = Snapshot.objects.filter(name=own, source=source).exclude(state=State.RELEASED)
    found = living.order_by("-moment").first()
    if found is None:
        raise ArtifactNotFoundError(f"no snapshot {name} here")
    return found


def listed(
    *, namespace: str = "", before: tuple[datetime, uuid.UUID] | None = None, limit: int = PAGE_ROWS
) -> list[Snapshot]:
    """Up to `limit` snapshots of one namespace or of all, the latest first: those `before` a moment and id."""
    rows = Snapshot.objects.exclude(state=State.RELEASED).defer("tree").order_by("-moment", "-id")
    if namespace:
        rows = rows.filter(namespace=namespace)
    if before is not None:
        rows = rows.filter(Q(moment__lt=before[0]) | Q(moment=before[0], id__lt=before[1]))
    return list(rows[:limit])


def awaited(snapshot: Snapshot) -> list[str]:
    """Who has to speak before a snapshot is final; INVENTORY_SNAPSHOT_AWAITS names who knows."""
    if snapshot.state != State.PINNING or snapshot.source or not settings.INVENTORY_SNAPSHOT_AWAITS:
        return []
    ask: Callable[[Snapshot], list[str]] = import_string(settings.INVENTORY_SNAPSHOT_AWAITS)
    return ask(snapshot)


def is_past(moment: datetime) -> bool:
    """Whether nothing of this moment can be committed here any more: it is over, and so is every transaction begun before."""
    if database_now() <= moment:
        return False
    with connection.cursor() as cursor:
        cursor.execute(_WRITERS_SQL, [moment])
        (count,) = cursor.fetchone()
    return int(count) == 0


def held_size() -> tuple[int, int]:
    """How many retired artifacts, and bytes, the snapshots hold back from removal; looks at every one that is retained."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {_SCAN_SECONDS * 1000}")
        cursor.execute(_HELD_SIZE_SQL)
        count, size = cursor.fetchone()
    return int(count), int(size)


def _bounds(prefix: str, after: str) -> dict[str, Any]:
    # No uri equals the prefix itself: none ends in `:` or `/`.
    return {"after": max(after, prefix), "before": prefix_upper_bound(prefix) if prefix else _END}


def _by_uri(sql: str, values: dict[str, Any], prefix: str, after: str, limit: int) -> Iterator[list[Sequence[Any]]]:
    """The rows of each uri, in order; a uri whose rows go over the end of a page is left to the next one."""
    is_last = False
    while not is_last:
        with connection.cursor() as cursor:
            cursor.execute(sql, _bounds(prefix, after) | values | {"limit": limit})
            rows = cursor.fetchall()
        connection.close()
        is_last = len(rows) < limit
        groups = [list(group) for _, group in groupby(rows, key=lambda row: row[1])]
        whole = groups if is_last else groups[:-1]
        yield from whole
        if whole:
            after = whole[-1][0][1]
        else:
            # One uri alone fills a page.
            limit *= 2


def _total(parts: Sequence[Any]) -> int:
    """From the sums of the four quarters of words."""
    total = 0
    for part in parts:
        total = (total << 32) + int(part)
    return total % 2**128


def _entry(row: Sequence[Any]) -> Entry:
    identity, uri, checksum, sha256, length, kind, encoding, born_at = row[:8]
    return Entry(
        uuid.UUID(str(identity)),
        uri,
        checksum,
        bytes(sha256) if sha256 is not None else None,
        length,
        kind,
        encoding,
        born_at,
    )
