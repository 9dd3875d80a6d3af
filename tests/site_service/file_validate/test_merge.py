"""The merge: sorted, and silent without proof of both ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from datamodel.errors import DatabaseUnavailableError, StorageUnavailableError
from site_service.file_validate.merge import Compared, Listed, Pair, Placed, compare, merged
from site_service.storage.contract import InvalidObject, ListedObject, ListingEnd, StoredObject
from site_service.storage.records import encode_object
from tests.factories import artifact_row
from tests.site_service.file_validate.test_rules import found


def placed(place: str, **changes: object) -> Placed:
    row = artifact_row(f"cadc:TEST/{place}", id=uuid.UUID(int=int(place, 16)))
    made = Placed(
        place[:3],
        place,
        row.content_checksum,
        row.content_length,
        str(row.id),
        row.uri,
        row.content_type,
        row.content_encoding,
        row.content_sha256,
    )
    return made._replace(**changes)  # type: ignore[arg-type]  # the caller names real fields


def stored(place: str, data: bytes = b"content", **changes: Any) -> ListedObject:
    return listed(found(data=data, storage_id=place, storage_bucket=place[:3], facts=placed(place).facts, **changes))


def listed(one: StoredObject) -> ListedObject:
    return ListedObject(one.storage_bucket, one.storage_id, one.length, encode_object(one))


def ended(listed: Iterable[str]) -> list[str | ListingEnd]:
    names = sorted(listed)
    return [*names, ListingEnd(len(names))]


def sides(rows: Iterable[str | ListingEnd], objects: Iterable[str | ListingEnd]) -> Compared:
    return compare(
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
    here = (((place[:3], place), placed(place)) for place in sorted(rows))
    there = (((place[:3], place), stored(place)) for place in sorted(objects))
    pairs = list(map(Pair._make, merged(here, there)))
    assert [pair.place[1] for pair in pairs] == sorted(rows | objects)
    for pair in pairs:
        assert {one.storage_id for one in (pair.here, pair.found) if one is not None} == {pair.place[1]}
        assert [pair.here is not None, pair.found is not None] == [pair.place[1] in rows, pair.place[1] in objects]


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


def is_suspect(row: Placed, other: Listed) -> bool:
    compared = compare([row, ListingEnd(1)], [other, ListingEnd(1)])
    assert [pair.found for pair in compared.suspects] in ([], [other])
    return bool(compared.suspects)


PLACE = "a" * 32
SOUND = stored(PLACE)
RECORD = SOUND.record or b""
OTHER_ID = uuid.UUID(int=7)

SUSPECT: dict[str, tuple[Placed, Listed]] = {
    "a name that is no id": (placed(PLACE), InvalidObject(PLACE, "aaa", "damaged")),
    "other content": (placed(PLACE), stored(PLACE, b"another")),
    "content of another length": (placed(PLACE), stored(PLACE, b"x")),
    "bytes of another length than both say": (placed(PLACE), SOUND._replace(length=8)),
    "no record": (placed(PLACE), SOUND._replace(record=None)),
    "an empty record": (placed(PLACE), SOUND._replace(record=b"")),
    "half a record": (placed(PLACE), SOUND._replace(record=RECORD[:-20])),
    "a record of another version": (
        placed(PLACE),
        SOUND._replace(record=RECORD.replace(b'"version":1', b'"version":2')),
    ),
    "facts of another id": (placed(PLACE, artifact_id=str(OTHER_ID)), SOUND),
    "facts of another uri": (placed(PLACE, uri="cadc:TEST/other"), SOUND),
    "another type": (placed(PLACE, content_type="text/plain"), SOUND),
    "another encoding": (placed(PLACE, content_encoding="gzip"), SOUND),
    "another digest by another algorithm": (placed(PLACE, content_checksum=f"sha-256:{0:064x}"), SOUND),
    "another digest by the only algorithm of both": (
        placed(PLACE, content_checksum=f"sha-1:{0:040x}", content_sha256=bytes(32)),
        SOUND,
    ),
}


@pytest.mark.parametrize("name", list(SUSPECT))
def test_invalid_and_differing_objects_are_suspect(name: str) -> None:
    assert is_suspect(*SUSPECT[name])


def test_any_flipped_bit_of_a_record_is_suspect() -> None:
    for offset, bit in ((offset, bit) for offset in range(len(RECORD) - 1) for bit in range(8)):
        record = bytearray(RECORD)
        record[offset] ^= 1 << bit
        assert is_suspect(placed(PLACE), SOUND._replace(record=bytes(record))), (offset, bit)


def test_what_is_equal_by_the_rules_but_written_otherwise_is_no_suspect() -> None:
    without_sha256 = {"md5": placed(PLACE).content_checksum.removeprefix("md5:")}
    assert not is_suspect(placed(PLACE), SOUND)
    assert not is_suspect(placed(PLACE, content_sha256=None), SOUND)
    assert not is_suspect(placed(PLACE), stored(PLACE, checksums=without_sha256))
    assert not is_suspect(placed(PLACE, content_checksum=f"sha-1:{0:040x}"), SOUND)
    assert not is_suspect(placed(PLACE), SOUND._replace(record=RECORD.rstrip(b"\n")))
