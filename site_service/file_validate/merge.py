"""The sorted merge of both sides of a bucket: only what differs is remembered, and only if both listings prove their end.

What this finds is a suspicion, not yet a verdict: both sides move while they are read (`survey.py` asks each again).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from datamodel.errors import DatabaseUnavailableError
from site_service.file_validate.rules import is_same_content
from site_service.storage.contract import ContentFacts, InvalidObject, ListedObject, ListingEnd, StoredObject
from site_service.storage.listings import STORE, Place, Source, proven
from site_service.storage.records import judged, says

Found = StoredObject | InvalidObject
Listed = ListedObject | InvalidObject

# Behind every place: no name begins with a character behind this one.
_END = (("\U0010ffff", ""), None)
_INVENTORY = Source("the inventory", "locations", DatabaseUnavailableError, ": is its collation C?")


class Placed(NamedTuple):
    """An artifact at a place of the store, as the inventory lists it: what the object there should be."""

    storage_bucket: str
    storage_id: str
    content_checksum: str
    content_length: int
    artifact_id: str
    uri: str
    content_type: str | None
    content_encoding: str | None
    content_sha256: bytes | None

    @property
    def facts(self) -> ContentFacts:
        """What the store should keep beside the bytes."""
        return ContentFacts(uuid.UUID(self.artifact_id), self.uri, self.content_type, self.content_encoding)


class Pair(NamedTuple):
    """What both sides list for one place; at least one of them lists something."""

    place: Place
    here: Placed | None
    found: Listed | None


@dataclass(frozen=True, slots=True)
class Compared:
    """A bucket that was read to both proven ends: how much there was, and which places differ."""

    artifacts: int
    objects: int
    size: int
    suspects: list[Pair]


def compare(rows: Iterable[Placed | ListingEnd], objects: Iterable[Listed | ListingEnd]) -> Compared:
    """Read both sides to their ends. Raises `StorageUnavailableError` or `DatabaseUnavailableError` if one has no proof of it."""
    artifacts = count = size = 0
    suspects: list[Pair] = []
    for place, here, found in merged(proven(rows, _INVENTORY), proven(objects, STORE)):
        artifacts += here is not None
        count += found is not None
        if here is not None and isinstance(found, ListedObject) and _is_as_expected(here, found):
            size += found.length
            continue
        read = judged(found) if found is not None else None
        size += read.length if isinstance(read, StoredObject) else 0
        if here is None or not isinstance(read, StoredObject) or not _agree(here, read):
            suspects.append(Pair(place, here, found))
    return Compared(artifacts, count, size, suspects)


def merged(
    rows: Iterator[tuple[Place, Placed]], objects: Iterator[tuple[Place, Listed]]
) -> Iterator[tuple[Place, Placed | None, Listed | None]]:
    """Both sides side by side, in order of bucket and storage id: what a `Pair` is made of."""
    row_place, row = next(rows, _END)
    found_place, found = next(objects, _END)
    while row is not None or found is not None:
        if row_place == found_place:
            yield row_place, row, found
            row_place, row = next(rows, _END)
            found_place, found = next(objects, _END)
        elif row_place < found_place:
            yield row_place, row, None
            row_place, row = next(rows, _END)
        else:
            yield found_place, None, found
            found_place, found = next(objects, _END)


def _is_as_expected(here: Placed, found: ListedObject) -> bool:
    """The cheap answer for nearly all: the record as the row would have it written, and nothing made of either."""
    return (
        found.record is not None
        and found.length == here.content_length
        and says(
            found.record,
            here.content_checksum,
            here.content_length,
            here.artifact_id,
            here.uri,
            here.content_type,
            here.content_encoding,
        )
    )


def _agree(here: Placed, found: StoredObject) -> bool:
    """No policy has anything to say about it."""
    return is_same_content(here, found) and found.facts == here.facts
