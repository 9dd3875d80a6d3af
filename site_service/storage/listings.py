"""Complete listings, with proof: not listed is not absent unless the lister itself says that this was all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar

from datamodel.errors import InventoryError, StorageUnavailableError
from site_service.storage.contract import InvalidObject, ListedObject, ListingEnd

Place = tuple[str, str]


class _HasPlace(Protocol):
    """Whatever has a place in a store."""

    @property
    def storage_bucket(self) -> str: ...
    @property
    def storage_id(self) -> str: ...


Entry = TypeVar("Entry", bound=_HasPlace)


class Source(NamedTuple):
    """Who lists what, and the failure that it is not to prove the end; `doubt`: what may be wrong if the order is."""

    name: str
    things: str
    failure: type[InventoryError]
    doubt: str = ""


STORE = Source("the store", "objects", StorageUnavailableError)


def with_end(
    found: Iterable[ListedObject | InvalidObject], check: Callable[[], None] = lambda: None
) -> Iterator[ListedObject | InvalidObject | ListingEnd]:
    """What a store has found, then its end mark; `check` has the last word on whether the store is still there."""
    count = 0
    for one in found:
        count += 1
        yield one
    check()
    yield ListingEnd(count)


def proven(listing: Iterable[Entry | ListingEnd], source: Source) -> Iterator[tuple[Place, Entry]]:
    """What was listed, each with its place. Raises the source's failure instead of ending when it was cut, lost something or is unsorted."""
    count, last = 0, ("", "")
    for one in listing:
        if isinstance(one, ListingEnd):
            if one.count != count:
                raise source.failure(f"{source.name} listed {one.count} {source.things}, of which {count} arrived")
            return
        place = (one.storage_bucket, one.storage_id)
        if count and place <= last:
            raise source.failure(f"{source.name} lists {place[1]} out of order{source.doubt}")
        count, last = count + 1, place
        yield place, one
    raise source.failure(f"the listing of {source.name} was cut after {count} {source.things}: it has no end mark")
