"""Complete listings, with proof: not listed is not absent unless the lister itself says that this was all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from datamodel.errors import StorageUnavailableError
from site_service.storage.contract import InvalidObject, ListedObject, ListingEnd


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


def proven(
    listing: Iterable[ListedObject | InvalidObject | ListingEnd],
) -> Iterator[ListedObject | InvalidObject]:
    """The objects of a listing. Raises `StorageUnavailableError` instead of ending when it was cut, lost something or is unsorted."""
    count, last = 0, ("", "")
    for one in listing:
        if isinstance(one, ListingEnd):
            if one.count != count:
                raise StorageUnavailableError(f"the store listed {one.count} objects, of which {count} arrived")
            return
        place = (one.storage_bucket, one.storage_id)
        if count and place <= last:
            raise StorageUnavailableError(f"the store lists {place[1]} out of order")
        count, last = count + 1, place
        yield one
    raise StorageUnavailableError(f"the listing of the store was cut after {count} objects: it has no end mark")
