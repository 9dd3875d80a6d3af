"""The sorted merge of both sides of a bucket: only what differs is remembered, and only if both listings prove their end.

What this finds is a suspicion, not yet a verdict: both sides move while they are read (`survey.py` asks each again).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from datamodel.errors import DatabaseUnavailableError
from datamodel.rules import ArtifactRow
from site_service.file_validate.rules import VALID, Case, Policy, judge
from site_service.storage.contract import InvalidObject, ListingEnd, StoredObject
from site_service.storage.listings import proven

Found = StoredObject | InvalidObject
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Placed:
    """An artifact at a place of the store, as the inventory lists it."""

    storage_bucket: str
    storage_id: str
    artifact: ArtifactRow


@dataclass(frozen=True, slots=True)
class Pair:
    """What both sides list for one place; at least one of them lists something."""

    place: Place
    here: ArtifactRow | None
    found: Found | None


@dataclass(frozen=True, slots=True)
class Compared:
    """A bucket that was read to both proven ends: how much there was, and which places differ."""

    artifacts: int
    objects: int
    size: int
    suspects: list[Pair]


def compare(policy: Policy, rows: Iterable[Placed | ListingEnd], objects: Iterable[Found | ListingEnd]) -> Compared:
    """Read both sides to their ends. Raises `StorageUnavailableError` or `DatabaseUnavailableError` if one has no proof of it."""
    artifacts = count = size = 0
    suspects: list[Pair] = []
    for pair in merged(_proven_rows(rows), proven(objects)):
        artifacts += pair.here is not None
        count += pair.found is not None
        size += pair.found.length if isinstance(pair.found, StoredObject) else 0
        if pair.here is None or pair.found is None or judge(policy, Case(pair.here, pair.found)) != VALID:
            suspects.append(pair)
    return Compared(artifacts, count, size, suspects)


def merged(rows: Iterator[Placed], objects: Iterator[Found]) -> Iterator[Pair]:
    """Both sides side by side, in order of bucket and storage id."""
    row, found = next(rows, None), next(objects, None)
    while row is not None or found is not None:
        row_place = _place(row) if row is not None else None
        found_place = _place(found) if found is not None else None
        place = min(place for place in (row_place, found_place) if place is not None)
        here = row.artifact if row is not None and row_place == place else None
        there = found if found_place == place else None
        yield Pair(place, here, there)
        if here is not None:
            row = next(rows, None)
        if there is not None:
            found = next(objects, None)


def _proven_rows(rows: Iterable[Placed | ListingEnd]) -> Iterator[Placed]:
    count, last = 0, ("", "")
    for row in rows:
        if isinstance(row, ListingEnd):
            if row.count != count:
                raise DatabaseUnavailableError(f"the inventory listed {row.count} locations, of which {count} arrived")
            return
        if count and _place(row) <= last:
            raise DatabaseUnavailableError(f"the inventory lists {row.storage_id} out of order: is its collation C?")
        count, last = count + 1, _place(row)
        yield row
    raise DatabaseUnavailableError(f"the listing of the inventory was cut after {count} locations: it has no end mark")


def _place(one: Placed | Found) -> Place:
    return one.storage_bucket, one.storage_id
