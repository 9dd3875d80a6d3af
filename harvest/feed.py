"""The serving side: one page of a stream after a cursor, read from one snapshot and spooled before it is sent.

Nothing here writes. A page is read in one read-only transaction: the stable horizon, the epoch and the rows are of one
moment. The connection is free again before the first byte is sent, so a slow peer holds neither a snapshot nor a connection.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

from django.db import connection, transaction

from datamodel.errors import CursorGoneError, HistoryGoneError, NotConfiguredError
from datamodel.identity import FEED_TABLES
from datamodel.positions import (
    HORIZON_SQL,
    IDENTITY_COLUMNS,
    IDENTITY_TABLES,
    Cursor,
    Identity,
    identity_from,
)
from datamodel.prepared import prepared_cursor
from datamodel.reach import EVERYWHERE, Reach
from datamodel.uris import Namespace, prefix_upper_bound
from harvest.echo import IS_NO_ECHO, has_only_echoes
from harvest.expiry import EVENT_TABLES
from harvest.pages import new_rows
from harvest.streams import (
    ARTIFACTS,
    DELETED_ARTIFACTS,
    END_MARK,
    HEADER_MARK,
    LIMITED_MARK,
    PROTOCOL_VERSION,
    STREAMS,
    Stream,
)

_CHUNK_BYTES = 256 * 1024
_ROWS_AT_ONCE = 256
# A filter that matches few rows of very many must not run into the statement timeout: a page looks at no more rows than
# this, and its cursor then stands after the last row it looked at.
_SCAN_ROWS = 200_000
_HORIZON = "(SELECT horizon FROM moment)"
_MOMENT_SQL = "WITH moment AS MATERIALIZED (SELECT {} AS horizon) SELECT {} FROM {} WHERE i.id = 1".format(
    HORIZON_SQL,
    ", ".join(
        [
            _HORIZON,
            # Not EXISTS: for a value that it does not know the planner would look through a table for its first match.
            " OR ".join(f"coalesce((SELECT max(txid) FROM {table}) >= {_HORIZON}, FALSE)" for table in FEED_TABLES),
            *(f"coalesce((SELECT max(txid) FROM {table} WHERE txid < {_HORIZON}), 0)" for table in FEED_TABLES),
            IDENTITY_COLUMNS,
        ]
    ),
    IDENTITY_TABLES,
)
_IDENTITY_AT = 2 + len(FEED_TABLES)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a peer asks for; namespaces and holder are or-ed, without both everything is served."""

    stream: Stream
    cursor: Cursor | None
    limit: int
    namespaces: tuple[Namespace, ...] = ()
    holder: uuid.UUID | None = None
    # A site that needs no echo of its own rows.
    sender: uuid.UUID | None = None
    stored_only: bool = False
    # Just these rows, final or not.
    ids: tuple[uuid.UUID, ...] | None = None
    # What the asker may harvest; whatever it asks for, rows with other uris are left out.
    reach: Reach = EVERYWHERE

    @property
    def is_filtered(self) -> bool:
        wants = bool(self.namespaces) or self.holder is not None
        return wants or self.sender is not None or self.stored_only or self.is_limited

    @property
    def is_bounded(self) -> bool:
        """Whether it may have to look at many more rows than it serves."""
        return self.is_filtered and self.ids is None

    @property
    def is_limited(self) -> bool:
        return self.stream.has_uri and not self.reach.is_everything


@dataclass(frozen=True, slots=True)
class Head:
    """One moment of this inventory's feed.

    Rows below `horizon` are final. `settled` is the newest committed change below it: as far as a cursor may ever go. The
    horizon itself may follow ids that PostgreSQL gives out again after a crash (those of aborted transactions are never
    flushed), and a cursor above them would pass over the rows that get them then. `newest` has the same for each table.
    """

    identity: Identity
    horizon: int
    newest: dict[str, int]

    @property
    def settled(self) -> int:
        return max(self.identity.gone_txid, *self.newest.values())

    @property
    def deletions(self) -> int:
        """Whoever has read deletions up to this transaction misses none; one whose event is gone counts, it must be told."""
        return max(self.identity.gone_txid, self.newest[DELETED_ARTIFACTS.table])


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A page in a file: its lines, how many, what follows."""

    stream: Stream
    head: Head
    rows: IO[bytes]
    size: int
    count: int
    next_cursor: Cursor
    more: bool
    digest: str
    # Rows that the asker may not harvest were left out, if there were any.
    is_limited: bool = False

    @property
    def header_line(self) -> bytes:
        words = (
            HEADER_MARK,
            str(PROTOCOL_VERSION),
            self.head.identity.epoch,
            self.stream.name,
            *self.stream.wire_names,
        )
        return "\t".join(words).encode() + b"\n"

    @property
    def end_line(self) -> bytes:
        words = [END_MARK, str(self.count), str(self.next_cursor), self.digest, str(int(self.more))]
        words += [LIMITED_MARK] if self.is_limited else []
        return "\t".join(words).encode() + b"\n"

    @property
    def end_object(self) -> bytes:
        end = {
            "count": self.count,
            "cursor": str(self.next_cursor),
            "sha256": self.digest,
            "more": self.more,
            "epoch": self.head.identity.epoch,
        } | ({LIMITED_MARK: True} if self.is_limited else {})
        return json.dumps({"end": end}).encode() + b"\n"

    def chunks(self) -> Iterator[bytes]:
        """The rows; closes the file."""
        with self.rows as rows:
            while chunk := rows.read(_CHUNK_BYTES):
                yield chunk


def read_page(request: PageRequest, *, as_json: bool = False) -> FeedPage:
    """One page. Raises `CursorGoneError` for a cursor of another epoch or above the horizon, `HistoryGoneError`."""
    with transaction.atomic():
        head = read_head()
        return _copy(request, head, _start(request, head), as_json=as_json)


def read_rows(streams: Sequence[Stream], ids: tuple[uuid.UUID, ...], *, stored_only: bool) -> list[FeedPage]:
    """The rows of these ids in each stream, of one moment, also those above the horizon: what is not there is absent.

    A page that leaves out what is not final would call it absent.
    """
    with transaction.atomic():
        head = read_head()
        start = Cursor.before_all(head.identity.epoch)
        return [
            _copy(PageRequest(stream, None, len(ids) + 1, stored_only=stored_only, ids=ids), head, start, as_json=False)
            for stream in streams
        ]


def read_head() -> Head:
    """First in its transaction, which it makes read-only with one snapshot. Raises `NotConfiguredError`."""
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    return _read_moment()[0]


def _read_moment() -> tuple[Head, bool]:
    """The head, and whether there are rows at or above its horizon: one statement, so of one snapshot."""
    with prepared_cursor() as cursor:
        cursor.execute(_MOMENT_SQL)
        row = cursor.fetchone()
    identity = identity_from(row[_IDENTITY_AT:] if row is not None else None)
    if row is None or not identity.is_current:
        raise NotConfiguredError(
            "this database was restored from another cluster or timeline: run manage.py restamp_feed"
        )
    horizon, is_pending, *newest = row[:_IDENTITY_AT]
    return Head(identity, horizon, dict(zip(FEED_TABLES, newest, strict=True))), is_pending


@dataclass(frozen=True, slots=True)
class News:
    """Which streams have rows at or after a transaction below the horizon (final); whether some are above it (soon final)."""

    head: Head
    streams: tuple[str, ...]
    is_pending: bool


def read_news(epoch: str, after: int, *, sender: uuid.UUID | None = None) -> News:
    """Ten index probes, and some rows if a sender needs no echo. An empty epoch is not compared. Raises `CursorGoneError`."""
    head, is_pending = _read_moment()
    if epoch and (epoch != head.identity.epoch or after > head.horizon):
        raise CursorGoneError("the position is of another epoch or above the horizon; start again without one")
    # Whoever has not passed the mark shall ask for events, to be told that they are gone.
    is_behind = 0 < after <= head.identity.gone_txid
    found = tuple(
        stream.name
        for stream in STREAMS.values()
        if head.newest[stream.table] >= max(after, 1) or (is_behind and stream.table in EVENT_TABLES)
    )
    if sender is not None and ARTIFACTS.name in found and has_only_echoes(sender, after, head.horizon):
        found = tuple(name for name in found if name != ARTIFACTS.name)
    return News(head, found, is_pending)


def _start(request: PageRequest, head: Head) -> Cursor:
    """Where the page begins; without cursor not among events that may be going just now."""
    has_events = request.stream.table in EVENT_TABLES
    mark = Cursor.below(head.identity.epoch, head.identity.gone_txid + 1)
    if request.cursor is None:
        return mark if has_events and head.identity.gone_txid else Cursor.before_all(head.identity.epoch)
    _check(request.cursor, head)
    if has_events and request.cursor.txid < head.identity.gone_txid:
        raise HistoryGoneError(
            f"events of {request.stream.name} after this cursor have expired: go on from {mark}, and reconcile, because "
            "what was deleted meanwhile is not told any more",
            cursor=str(mark),
        )
    return request.cursor


def _check(start: Cursor, head: Head) -> None:
    if start.epoch != head.identity.epoch or start.txid >= head.horizon:
        raise CursorGoneError("the cursor is of another epoch or above the horizon; start again without one")


_Bound = tuple[int, uuid.UUID]


def _scan_bound(request: PageRequest, start: Cursor, head: Head) -> _Bound | None:
    """The last row that a page looked at which did not become full; None when it has looked at all that are left."""
    if not request.is_bounded:
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT txid, id FROM {request.stream.table} WHERE (txid, id) > (%s, %s) AND txid < %s "
            "ORDER BY txid, id OFFSET %s LIMIT 1",
            [start.txid, start.row_id, head.horizon, _SCAN_ROWS - 1],
        )
        row: _Bound | None = cursor.fetchone()
    return row


def _copy(request: PageRequest, head: Head, start: Cursor, *, as_json: bool) -> FeedPage:
    statement, parameters = _select(request, head, start, as_json=as_json)
    if as_json:
        # A character that JSON never contains as quote: each row is one line of JSON as it is.
        statement = f"COPY (SELECT row_to_json(r) FROM ({statement}) r) TO STDOUT (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')"
    else:
        statement = f"COPY ({statement}) TO STDOUT"
    # Sent, then closed, by `chunks`.
    rows = new_rows()
    digest, count, last = hashlib.sha256(), 0, b""
    with connection.cursor() as cursor, cursor.copy(statement, parameters) as copy:
        lines = map(bytes, copy)
        # Many at a time: each of these calls costs as much for one row as for hundreds.
        while several := list(islice(lines, _ROWS_AT_ONCE)):
            last, block = several[-1], b"".join(several)
            rows.write(block)
            digest.update(block)
            count += block.count(b"\n")
    size = rows.tell()
    rows.seek(0)
    is_full = count == request.limit
    bound = None if is_full else _scan_bound(request, start, head)
    following = _following(head, start, _position_of(last, as_json=as_json) if is_full else bound)
    more = is_full or bound is not None
    return FeedPage(request.stream, head, rows, size, count, following, more, digest.hexdigest(), request.is_limited)


def _following(head: Head, start: Cursor, last: _Bound | None) -> Cursor:
    """After the last row looked at, or after everything settled; a cursor never goes back."""
    if last is not None:
        return Cursor(head.identity.epoch, *last)
    end = Cursor.below(head.identity.epoch, head.settled + 1)
    return max(start, end, key=lambda cursor: (cursor.txid, cursor.row_id))


def _position_of(line: bytes, *, as_json: bool) -> _Bound:
    if as_json:
        row = json.loads(line)
        return int(row["txid"]), uuid.UUID(row["id"])
    txid, identity = line.split(b"\t", 2)[:2]
    return int(txid), uuid.UUID(identity.decode())


def _select(request: PageRequest, head: Head, start: Cursor, *, as_json: bool) -> tuple[str, dict[str, Any]]:
    stream, source = request.stream, request.stream.table
    columns = ", ".join(f'{column.served(as_json=as_json)} AS "{column.wire}"' for column in stream.columns)
    conditions = ["(t.txid, t.id) > (%(txid)s, %(row_id)s)", "t.txid < %(horizon)s"]
    parameters: dict[str, Any] = {"txid": start.txid, "row_id": start.row_id, "horizon": head.horizon}
    if request.ids is not None:
        conditions, parameters = ["t.id = ANY(%(ids)s)"], {"ids": list(request.ids)}
    elif request.is_bounded:
        # Read only as far as it takes to fill the page: where the last row of these is, is asked for afterwards, if at all.
        source = f"(SELECT * FROM {source} t WHERE {' AND '.join(conditions)} ORDER BY t.txid, t.id LIMIT {_SCAN_ROWS})"
        conditions = ["TRUE"]
    if request.stored_only and stream is ARTIFACTS:
        conditions.append("EXISTS (SELECT FROM storage_location l WHERE l.artifact_id = t.id)")
    if request.sender is not None:
        conditions.append(IS_NO_ECHO)
        parameters |= {"sender": request.sender, "first": start.txid}
    if request.is_limited:
        lows, highs = [list(ends) for ends in zip(*request.reach.ranges, strict=True)]
        parameters |= {"lows": lows, "highs": highs}
        conditions.append(
            "(t.uri IS NULL OR EXISTS (SELECT FROM unnest(%(lows)s::text[], %(highs)s::text[]) r(low, high) "
            "WHERE t.uri >= r.low AND t.uri < r.high))"
        )
    wanted = [*_in_namespaces(request, parameters), *_of_holder(request, parameters)]
    if wanted:
        conditions.append(f"({' OR '.join(wanted)})")
    statement = (
        f"SELECT {columns} FROM {source} t WHERE {' AND '.join(conditions)} "
        f"ORDER BY t.txid, t.id LIMIT {request.limit:d}"
    )
    return statement, parameters


def _in_namespaces(request: PageRequest, parameters: dict[str, Any]) -> Sequence[str]:
    if not request.namespaces:
        return []
    conditions = [] if request.stream is ARTIFACTS else ["t.uri IS NULL"]
    for number, namespace in enumerate(request.namespaces):
        parameters |= {f"from_{number}": namespace.value, f"to_{number}": prefix_upper_bound(namespace.value)}
        conditions.append(f"(t.uri >= %(from_{number})s AND t.uri < %(to_{number})s)")
    return conditions


def _of_holder(request: PageRequest, parameters: dict[str, Any]) -> Sequence[str]:
    if request.holder is None:
        return []
    parameters["holder"] = request.holder
    return [
        "EXISTS (SELECT FROM site_location s WHERE s.artifact_id = t.id AND s.site_id = %(holder)s)",
        "EXISTS (SELECT FROM harvest_conflict c WHERE c.winner_id = t.id AND c.loser_site_id = %(holder)s)",
    ]
