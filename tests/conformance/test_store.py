"""Every store × every promise of `site_service.storage.contract`, put transactions excepted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from datamodel.errors import (
    ChecksumMismatchError,
    ContentTooLargeError,
    RangeNotSatisfiableError,
    RemoteUnavailableError,
    ShortBodyError,
    StorageUnavailableError,
    StoredObjectMissingError,
)
from site_service.storage.contract import (
    ArtifactStore,
    ByteRange,
    ExpectedContent,
    InvalidObject,
    ListedObject,
    ListingEnd,
    StoredObject,
    Write,
)
from site_service.storage.listings import STORE, Place, proven
from site_service.storage.records import encode_object, judged
from tests.conformance.conftest import StoreUnderTest
from tests.conformance.contents import (
    CONTENT,
    FUTURE,
    MIB,
    NAMES,
    REFUSED,
    UNKNOWN,
    blocks,
    digests,
    facts,
    listed,
    read,
    source,
)
from tests.faults import (
    BreakingSource,
    CrumblySource,
    CutListing,
    GeneratedSource,
    LossyListing,
    SlowSource,
    WatchedSource,
)


def whole(listing: Iterable[ListedObject | InvalidObject | ListingEnd]) -> list[ListedObject | InvalidObject]:
    found: Iterator[tuple[Place, ListedObject | InvalidObject]] = proven(listing, STORE)
    return [one for _, one in found]


# Writing and reading


@pytest.mark.parametrize("length", [0, 1, 1000, MIB - 1, MIB, MIB + 1, 5 * MIB, 20 * MIB + 3])
def test_what_was_written_is_read_back(store: ArtifactStore, length: int) -> None:
    content = GeneratedSource(length).read(length) if length <= MIB else b"".join(blocks(length))
    stored = store.write(source(content), facts())
    assert (stored.length, stored.checksums) == (length, digests(content))
    assert read(store, stored) == content


def test_a_stored_object_is_stamped_in_utc_to_the_millisecond(store: ArtifactStore) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    stored = store.write(source(CONTENT), facts())
    assert before <= stored.written_at <= datetime.now(UTC)
    assert stored.written_at.tzinfo is UTC
    assert stored.written_at.microsecond % 1000 == 0


def test_content_that_comes_in_crumbs_is_whole(store: ArtifactStore) -> None:
    stored = store.write(CrumblySource(CONTENT), facts())
    assert read(store, stored) == CONTENT


def test_content_that_comes_slowly_is_whole(store: ArtifactStore) -> None:
    stored = store.write(SlowSource(CrumblySource(CONTENT), 0.001), facts())
    assert read(store, stored) == CONTENT


def test_the_same_content_twice_makes_two_objects(store: ArtifactStore) -> None:
    first, second = store.write(source(CONTENT), facts()), store.write(source(CONTENT), facts())
    assert first.storage_id != second.storage_id


@pytest.mark.parametrize("algorithm", list(NAMES))
def test_a_declared_checksum_that_holds_is_accepted(store: ArtifactStore, algorithm: str) -> None:
    expected = ExpectedContent(len(CONTENT), digests(CONTENT, algorithm), len(CONTENT))
    assert store.write(source(CONTENT), facts(), expected).checksums == digests(CONTENT)


@pytest.mark.parametrize("algorithm", list(NAMES))
def test_a_declared_checksum_that_does_not_hold_stores_nothing(store: ArtifactStore, algorithm: str) -> None:
    expected = ExpectedContent(checksums=digests(b"something else", algorithm))
    with pytest.raises(ChecksumMismatchError):
        store.write(source(CONTENT), facts(), expected)
    assert listed(store) == []


@pytest.mark.parametrize("case", list(REFUSED))
def test_content_that_is_not_as_declared_is_refused_and_leaves_nothing(store: ArtifactStore, case: str) -> None:
    content, expected, error = REFUSED[case]
    with pytest.raises(error):
        store.write(source(content), facts(), expected)
    assert listed(store) == []
    assert store.sweep_temporary(datetime.now(UTC) + FUTURE) == 0


def test_several_are_stored_together_in_their_order(store: ArtifactStore) -> None:
    contents = [bytes([number]) * number for number in range(7)]
    known = [facts(f"{number}") for number in range(7)]
    stored = store.write_all([Write(source(each), one) for each, one in zip(contents, known, strict=True)])
    assert store.write_all([]) == []
    for outcome, content, one in zip(stored, contents, known, strict=True):
        assert isinstance(outcome, StoredObject)
        assert (outcome.facts, outcome.checksums, read(store, outcome)) == (one, digests(content), content)
    assert len(listed(store)) == 7


@pytest.mark.parametrize("case", list(REFUSED))
def test_of_several_the_one_that_is_not_as_declared_hinders_no_other(store: ArtifactStore, case: str) -> None:
    content, expected, error = REFUSED[case]
    good = [Write(source(CONTENT), facts()) for _ in range(2)]
    outcomes = store.write_all([good[0], Write(source(content), facts(), expected), good[1]])
    assert isinstance(outcomes[1], error)
    assert {one.storage_id for one in outcomes if isinstance(one, StoredObject)} == {
        one.storage_id for one in listed(store)
    }
    assert len(listed(store)) == 2
    assert store.sweep_temporary(datetime.now(UTC) + FUTURE) == 0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_several_none_is_kept_when_a_source_fails_for_its_own_reasons(store: ArtifactStore, place: int) -> None:
    error = RemoteUnavailableError("gone")
    writes = [Write(source(CONTENT), facts()) for _ in range(2)]
    writes.insert(place, Write(BreakingSource(CONTENT, error), facts()))
    with pytest.raises(RemoteUnavailableError) as caught:
        store.write_all(writes)
    assert caught.value is error
    assert listed(store) == []
    assert store.sweep_temporary(datetime.now(UTC) + FUTURE) == 0


def test_a_limit_ends_the_reading_of_an_endless_source(store: ArtifactStore) -> None:
    endless = GeneratedSource(1 << 60)
    with pytest.raises(ContentTooLargeError):
        store.write(endless, facts(), ExpectedContent(max_length=3 * MIB))
    assert listed(store) == []


@pytest.mark.parametrize("length", [0, 10, 6 * MIB, 40 * MIB])
@pytest.mark.parametrize(
    "error", [ShortBodyError("cut"), RemoteUnavailableError("gone"), ConnectionResetError(104, "reset")]
)
def test_the_error_of_a_source_passes_unchanged_and_nothing_is_kept(
    store: ArtifactStore, length: int, error: Exception
) -> None:
    broken = BreakingSource(b"".join(blocks(length)), error)
    with pytest.raises(type(error)) as caught:
        store.write(broken, facts())
    assert caught.value is error
    assert listed(store) == []
    assert store.sweep_temporary(datetime.now(UTC) + FUTURE) == 0


def test_content_is_not_listed_before_it_is_whole(store: ArtifactStore) -> None:
    seen: list[int] = []
    store.write(WatchedSource(CONTENT, lambda: seen.append(len(listed(store)))), facts())
    assert seen == [0]
    assert len(listed(store)) == 1


def test_many_writers_at_once_do_not_disturb_each_other(store: ArtifactStore) -> None:
    contents = [bytes([number]) * (number * 40_000) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda content: store.write(source(content), facts()), contents))
    assert [read(store, each) for each in stored] == contents
    assert len(listed(store)) == len(contents)


RANGES = {"first byte": (0, 1), "middle": (10, 20), "last byte": (len(CONTENT) - 1, 1), "everything": (0, len(CONTENT))}


@pytest.mark.parametrize("name", list(RANGES))
def test_a_range_yields_exactly_its_bytes(store: ArtifactStore, name: str) -> None:
    start, length = RANGES[name]
    stored = store.write(source(CONTENT), facts())
    assert read(store, stored, ByteRange(start, length)) == CONTENT[start : start + length]


def test_a_range_of_long_content_yields_exactly_its_bytes(store: ArtifactStore) -> None:
    content = b"".join(blocks(20 * MIB))
    stored = store.write(source(content), facts())
    assert read(store, stored, ByteRange(17 * MIB - 5, MIB)) == content[17 * MIB - 5 : 18 * MIB - 5]


@pytest.mark.parametrize(("start", "length"), [(0, 44), (43, 1), (100, 1), (-1, 2)])
def test_a_range_outside_the_content_is_refused(store: ArtifactStore, start: int, length: int) -> None:
    stored = store.write(source(CONTENT), facts())
    with pytest.raises(RangeNotSatisfiableError) as caught:
        store.open(stored.storage_id, expected_length=stored.length, byte_range=ByteRange(start, length))
    assert caught.value.fields["length"] == len(CONTENT)


def test_a_reader_without_size_reads_to_the_end_and_closes_twice(store: ArtifactStore) -> None:
    stored = store.write(source(CONTENT), facts())
    reader = store.open(stored.storage_id, expected_length=stored.length)
    assert reader.read() == CONTENT
    assert reader.read() == b""
    reader.close()
    reader.close()


def test_opening_with_another_length_than_expected_is_a_missing_object(store: ArtifactStore) -> None:
    stored = store.write(source(CONTENT), facts())
    with pytest.raises(StoredObjectMissingError):
        store.open(stored.storage_id, expected_length=stored.length + 1)
    with pytest.raises(StoredObjectMissingError):
        store.open(stored.storage_id, expected_length=stored.length - 1, byte_range=ByteRange(0, 1))


@pytest.mark.parametrize("storage_id", UNKNOWN)
def test_what_is_not_there_is_missing_but_may_be_removed(store: ArtifactStore, storage_id: str) -> None:
    with pytest.raises(StoredObjectMissingError):
        store.open(storage_id, expected_length=0)
    with pytest.raises(StoredObjectMissingError):
        store.stat(storage_id)
    with pytest.raises(StoredObjectMissingError):
        store.set_facts(storage_id, facts())
    store.remove(storage_id)


# Facts


def test_the_store_alone_tells_everything_that_was_known(under_test: StoreUnderTest) -> None:
    known = facts("ünïcode%20.fits")
    stored = under_test.store.write(source(CONTENT), known)
    again = under_test.reopen()
    assert again.stat(stored.storage_id) == stored
    assert list(again.iterate()) == [stored]
    assert stored.facts == known


def test_facts_can_be_replaced(under_test: StoreUnderTest) -> None:
    stored = under_test.store.write(source(CONTENT), facts())
    other = replace(facts("b.fits"), content_type=None, content_encoding=None)
    under_test.store.set_facts(stored.storage_id, other)
    assert under_test.reopen().stat(stored.storage_id) == replace(stored, facts=other)
    assert read(under_test.store, stored) == CONTENT


# Removing


def test_a_removed_object_is_gone_and_may_be_removed_again(store: ArtifactStore) -> None:
    stored, other = store.write(source(CONTENT), facts()), store.write(source(CONTENT), facts())
    store.remove(stored.storage_id)
    store.remove(stored.storage_id)
    with pytest.raises(StoredObjectMissingError):
        store.open(stored.storage_id, expected_length=stored.length)
    assert listed(store) == [other]


def test_an_open_reader_survives_the_removal_or_says_that_it_cannot(store: ArtifactStore) -> None:
    stored = store.write(source(CONTENT), facts())
    reader = store.open(stored.storage_id, expected_length=stored.length)
    store.remove(stored.storage_id)
    assert reader.read() == CONTENT
    reader.close()


# Listing


def test_a_listing_is_sorted_by_bucket_and_id(store: ArtifactStore) -> None:
    written = [store.write(source(CONTENT), facts()) for _ in range(60)]
    expected = sorted(written, key=lambda each: (each.storage_bucket.encode(), each.storage_id.encode()))
    assert listed(store) == expected


def test_the_listings_of_all_prefixes_make_the_whole(store: ArtifactStore) -> None:
    written = [store.write(source(CONTENT), facts()) for _ in range(40)]
    parts = [found for digit in "0123456789abcdef" for found in store.iterate(digit)]
    assert parts == listed(store)
    one = written[0]
    assert one in listed(store, one.storage_bucket)
    assert all(each.storage_bucket == one.storage_bucket for each in store.iterate(one.storage_bucket))
    assert listed(store, "nothing") == []


def test_an_object_removed_during_a_listing_does_not_break_it(store: ArtifactStore) -> None:
    for _ in range(20):
        store.write(source(CONTENT), facts())
    listing = store.iterate()
    first = next(listing)
    for each in listed(store)[1:]:
        store.remove(each.storage_id)
    assert all(isinstance(each, StoredObject) for each in (first, *listing))


def test_a_listing_proves_its_end_and_how_many_there_were(store: ArtifactStore) -> None:
    assert list(store.listing()) == [ListingEnd(0)]
    for _ in range(5):
        store.write(source(CONTENT), facts())
    *found, end = store.listing()
    assert end == ListingEnd(5)
    assert whole(store.listing()) == found
    assert [judged(one) for one in whole(store.listing())] == listed(store)
    bucket = listed(store)[0].storage_bucket
    assert [judged(one) for one in whole(store.listing(bucket))] == listed(store, bucket)


def test_a_listing_has_each_record_as_it_is(store: ArtifactStore) -> None:
    stored = store.write(source(CONTENT), facts("ünïcode%20.fits"))
    (found,) = whole(store.listing())
    assert found == ListedObject(stored.storage_bucket, stored.storage_id, stored.length, encode_object(stored))


@pytest.mark.parametrize("keep", range(5))
def test_a_listing_that_was_cut_is_never_taken_for_a_short_one(store: ArtifactStore, keep: int) -> None:
    for _ in range(4):
        store.write(source(CONTENT), facts())
    with pytest.raises(StorageUnavailableError, match="no end mark"):
        whole(CutListing(store, keep).listing())


@pytest.mark.parametrize("lost", range(4))
def test_a_listing_that_lost_an_object_is_found_out_at_its_end(store: ArtifactStore, lost: int) -> None:
    for _ in range(4):
        store.write(source(CONTENT), facts())
    with pytest.raises(StorageUnavailableError, match="of which 3 arrived"):
        whole(LossyListing(store, lost).listing())


def test_a_listing_out_of_order_is_not_believed(store: ArtifactStore) -> None:
    for _ in range(3):
        store.write(source(CONTENT), facts())
    with pytest.raises(StorageUnavailableError, match="out of order"):
        whole([*reversed(whole(store.listing())), ListingEnd(3)])


def test_capabilities_and_free_space_are_told_in_bytes(store: ArtifactStore) -> None:
    space, capabilities = store.free_space(), store.capabilities
    assert space.total is None or (space.free is not None and 0 < space.free <= space.total)
    assert capabilities.min_segment >= 1
    assert capabilities.max_length is None or capabilities.max_length > 1 << 30


def test_memory_stays_flat_however_long_the_content(under_test: StoreUnderTest) -> None:
    length = MIB if under_test.name == "memory" else 128 * MIB
    tracemalloc.start()
    try:
        stored = under_test.store.write(GeneratedSource(length), facts())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stored.length == length
    assert peak < 64 * MIB
