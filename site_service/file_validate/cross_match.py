"""An external list against the inventory: missing, extra, different; report only.

The list is staged in a temporary table of a connection of its own (its order is anyone's), then both sides are read page by page:
neither the length of the list nor that of the inventory needs memory, and no transaction is open between pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

import psycopg

from datamodel import direct
from datamodel.uris import Namespace, prefix_upper_bound
from site_service.file_validate.lists import Entry, Malformed

_Session = psycopg.Connection[tuple[object, ...]]

PAGE = 5000
_STAGED = 50_000
_CREATE_SQL = 'CREATE TEMPORARY TABLE listed (row_number bigint, uri text COLLATE "C", digest text, length bigint)'
_LISTED_SQL = """
    SELECT n.row_number, n.uri, n.digest, n.length, a.content_checksum, a.content_sha256, a.content_length,
        l.artifact_id IS NOT NULL
    FROM (SELECT * FROM listed WHERE (uri, row_number) > (%(uri)s, %(row)s) ORDER BY uri, row_number LIMIT %(limit)s) n
    LEFT JOIN artifact a ON a.uri = n.uri LEFT JOIN storage_location l ON l.artifact_id = a.id
    ORDER BY n.uri, n.row_number
"""
_KNOWN_SQL = """
    SELECT a.uri, a.content_length, l.artifact_id IS NOT NULL, EXISTS (SELECT 1 FROM listed n WHERE n.uri = a.uri)
    FROM (SELECT id, uri, content_length FROM artifact WHERE uri > %(uri)s AND uri >= %(low)s AND uri < %(high)s
          ORDER BY uri LIMIT %(limit)s) a
    LEFT JOIN storage_location l ON l.artifact_id = a.id ORDER BY a.uri
"""


class Kind(StrEnum):
    """How a row of either side fails to match."""

    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One line of the report."""

    kind: Kind
    uri: str
    detail: str


@dataclass(slots=True)
class Tally:
    """Counts of a whole comparison; `unverified` matched, but the list or the inventory named no digest that both know."""

    listed: int = 0
    matched: int = 0
    unverified: int = 0
    mismatches: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))


def cross_match(
    entries: Iterable[Entry | Malformed],
    tally: Tally,
    *,
    namespaces: Sequence[Namespace] = (),
    stored_only: bool = False,
) -> Iterator[Mismatch]:
    """Yields what does not match and counts everything in `tally`.

    Artifacts are extra only within `namespaces` (none: anywhere). With `stored_only` what is known but not stored here counts
    as missing, and never as extra. Raises what reading the list raises.
    """
    with _session() as session:
        yield from _counted(_stage(session, entries, tally), tally)
        session.execute("CREATE INDEX listed_uri ON listed (uri, row_number)")
        session.execute("ANALYZE listed")
        yield from _counted(_listed(session, tally, stored_only=stored_only), tally)
        for low, high in _ranges(namespaces):
            yield from _counted(_extra(session, low, high, stored_only=stored_only), tally)


@contextmanager
def _session() -> Iterator[_Session]:
    """A connection of one's own with the table; without limits of time, which are made for requests."""
    with direct.connect("inventory-cross-match") as session:
        session.execute("SET statement_timeout = 0")
        session.execute(_CREATE_SQL)
        yield session


def _counted(found: Iterable[Mismatch], tally: Tally) -> Iterator[Mismatch]:
    for one in found:
        tally.mismatches[one.kind] += 1
        yield one


def _stage(session: _Session, entries: Iterable[Entry | Malformed], tally: Tally) -> Iterator[Mismatch]:
    waiting = iter(entries)
    while batch := list(islice(waiting, _STAGED)):
        tally.listed += len(batch)
        with session.cursor() as cursor, cursor.copy("COPY listed FROM STDIN") as copy:
            for one in batch:
                if isinstance(one, Entry):
                    copy.write_row((one.row, one.uri, one.digest, one.length))
        for one in batch:
            if isinstance(one, Malformed):
                yield Mismatch(Kind.MALFORMED, one.text, f"row {one.row}: {one.reason}")


def _listed(session: _Session, tally: Tally, *, stored_only: bool) -> Iterator[Mismatch]:
    place: dict[str, str | int] = {"uri": "", "row": 0, "limit": PAGE}
    previous = ""
    while page := _page(session, _LISTED_SQL, place):
        for row_number, uri, digest, length, checksum, sha256, known_length, is_stored in page:
            if uri == previous:
                yield Mismatch(Kind.MALFORMED, uri, f"row {row_number}: the uri is listed twice")
            elif checksum is None:
                yield Mismatch(Kind.MISSING, uri, "not known here")
            elif stored_only and not is_stored:
                yield Mismatch(Kind.MISSING, uri, "known, not stored here")
            elif reason := difference(digest, length, checksum, sha256, known_length):
                yield Mismatch(Kind.DIFFERENT, uri, reason)
            else:
                tally.matched += 1
                tally.unverified += not _is_comparable(digest, checksum, sha256)
            previous = uri
        place |= {"uri": page[-1][1], "row": page[-1][0]}


def _extra(session: _Session, low: str, high: str, *, stored_only: bool) -> Iterator[Mismatch]:
    place: dict[str, str | int] = {"uri": "", "low": low, "high": high, "limit": PAGE}
    while page := _page(session, _KNOWN_SQL, place):
        for uri, length, is_stored, is_listed in page:
            if not is_listed and (is_stored or not stored_only):
                where = "stored here" if is_stored else "known, not stored here"
                yield Mismatch(Kind.EXTRA, uri, f"{length} bytes, {where}")
        place["uri"] = page[-1][0]


def difference(
    digest: str | None, length: int | None, checksum: str, sha256: bytes | None, known_length: int
) -> str | None:
    """In what the list contradicts the inventory; None when it does not."""
    if length is not None and length != known_length:
        return f"length: listed {length}, here {known_length}"
    if digest is None:
        return None
    for known in (checksum, f"sha-256:{sha256.hex()}" if sha256 is not None else ""):
        if known.partition(":")[0] == digest.partition(":")[0] and known != digest:
            return f"digest: listed {digest}, here {known}"
    return None


def _is_comparable(digest: str | None, checksum: str, sha256: bytes | None) -> bool:
    known = {checksum.partition(":")[0], *(["sha-256"] if sha256 is not None else [])}
    return digest is not None and digest.partition(":")[0] in known


def _ranges(namespaces: Sequence[Namespace]) -> Iterator[tuple[str, str]]:
    if not namespaces:
        yield "", "\x7f"
    for namespace in namespaces:
        yield namespace.value, prefix_upper_bound(namespace.value)


def _page(session: _Session, sql: str, values: dict[str, str | int]) -> list[Any]:
    return session.execute(sql, values).fetchall()
