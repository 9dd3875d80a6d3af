"""The merge: sorted, and silent without proof of both ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import pytest
from hypothesis import given, strategies as st

from datamodel.errors import DatabaseUnavailableError, StorageUnavailableError
from site_service.file_validate.merge import Compared, Found, Pair, Placed, compare, merged
from site_service.file_validate.rules import Policy, facts_of
from site_service.storage.contract import InvalidObject, ListingEnd, StoredObject
from tests.factories import artifact_row
from tests.site_service.file_validate.test_rules import found

POLICY = Policy.INVENTORY_IS_ALWAYS_RIGHT


def placed(place: str) -> Placed:
    return Placed(place[:3], place, artifact_row(f"cadc:TEST/{place}", id=uuid.UUID(int=int(place, 16))))


def stored(place: str) -> StoredObject:
    return found(storage_id=place, storage_bucket=place[:3], facts=facts_of(placed(place).artifact))


def ended(listed: Iterable[str]) -> list[str | ListingEnd]:
    names = sorted(listed)
    return [*names, ListingEnd(len(names))]


def sides(rows: Iterable[str | ListingEnd], objects: Iterable[str | ListingEnd]) -> Compared:
    return compare(
        POLICY,
        [one if isinstance(one, ListingEnd) else placed(one) for one in rows],
        [one if isinstance(one, ListingEnd) else stored(one) for one in objects],
    )


PLACES = st.sets(st.integers(0, 40).map("{:032x}".format))


@given(PLACES, PLACES)
def test_exactly_what_only_one_side_has_is_suspect(rows: set[str], objects: set[str]) -> None:
    compared = sides(ended(rows), ended(objects))
    assert (compared.artifacts, compared.objects, compared.size) == (len(rows), len(objects), 7 * len(objects))
    only_here = {pair.place[1] for pair in compared.suspects if pair.found is None}
    only_there = {pair.place[1] for pair in compared.suspects if pair.here is None}
    assert (only_here, only_there) == (rows - objects, objects - rows)
    assert len(compared.suspects) == len(rows ^ objects)


@given(PLACES, PLACES)
def test_the_merge_is_sorted_and_loses_nothing(rows: set[str], objects: set[str]) -> None:
    pairs = list(merged(iter(map(placed, sorted(rows))), iter(map(stored, sorted(objects)))))
    assert [pair.place[1] for pair in pairs] == sorted(rows | objects)
    assert all(isinstance(pair, Pair) for pair in pairs)


@given(PLACES.filter(bool), st.data())
def test_a_side_that_was_cut_or_lost_something_is_believed_by_nobody(places: set[str], data: st.DataObject) -> None:
    whole = ended(places)
    lost = data.draw(st.integers(0, len(whole) - 1))
    broken = [one for number, one in enumerate(whole) if number != lost]
    with pytest.raises(StorageUnavailableError):
        sides(whole, broken)
    with pytest.raises(DatabaseUnavailableError):
        sides(broken, whole)
    with pytest.raises(StorageUnavailableError):
        sides(whole, whole[:lost])
    with pytest.raises(DatabaseUnavailableError):
        sides(whole[:lost], whole)


def test_a_side_out_of_order_is_believed_by_nobody() -> None:
    backwards: list[str | ListingEnd] = ["b" * 32, "a" * 32, ListingEnd(2)]
    with pytest.raises(StorageUnavailableError, match="out of order"):
        sides([ListingEnd(0)], backwards)
    with pytest.raises(DatabaseUnavailableError, match="out of order"):
        sides(backwards, [ListingEnd(0)])


def test_invalid_and_differing_objects_are_suspect() -> None:
    place = "a" * 32
    others: list[Found] = [InvalidObject(place, "aaa", "damaged"), found(data=b"x", storage_id=place)]
    for other in others:
        compared = compare(POLICY, [placed(place), ListingEnd(1)], [other, ListingEnd(1)])
        assert [pair.found for pair in compared.suspects] == [other]
