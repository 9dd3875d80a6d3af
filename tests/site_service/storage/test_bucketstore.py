"""What is special to a store in a bucket: order of keys, crashes at every step, lost answers, parts and copies."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from datamodel.errors import NotConfiguredError, StateConflictError, StorageUnavailableError, StoredObjectMissingError
from site_service.storage.bucketstore import BucketStore
from site_service.storage.contract import ContentFacts, InvalidObject, StoredObject
from site_service.storage.objectupload import MIN_PART
from tests.fakes.bucket import BucketContent, MemoryBucket
from tests.faults import BreakingSource, Crash, GeneratedSource

CONTENT = b"x" * 5000
LONG = 2 * MIN_PART + 17
FACTS = ContentFacts(uuid.UUID(int=1), "cadc:TEST/a.fits", "application/fits")


def store_in(bucket: MemoryBucket) -> BucketStore:
    return BucketStore(bucket, content_algorithm="md5", sha256=True, part_size=MIN_PART)


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def length_of(store: BucketStore, stored: StoredObject) -> int:
    reader = store.open(stored.storage_id, expected_length=stored.length)
    return len(reader.read())


def _append_and_commit(store: BucketStore) -> None:
    key = store.begin(FACTS).transaction_id
    store.append(key, GeneratedSource(MIN_PART))
    store.append(key, io.BytesIO(b"undone"))
    store.revert(key)
    store.append(key, GeneratedSource(LONG - MIN_PART))
    store.commit(key, FACTS)


OPERATIONS: dict[str, tuple[Callable[[BucketStore], object], int]] = {
    "short write": (lambda store: store.write(GeneratedSource(LONG % MIN_PART), FACTS), 2),
    "long write": (lambda store: store.write(GeneratedSource(LONG), FACTS), 6),
    "put transaction": (_append_and_commit, 18),
}


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_a_crash_at_any_step_leaves_whole_objects_only_and_nothing_that_is_not_swept(name: str) -> None:
    operation, least = OPERATIONS[name]
    step, has_crashed = 0, True
    while has_crashed:
        held = BucketContent()
        bucket = MemoryBucket(held, crash_at=step)
        with suppress(Crash):
            operation(store_in(bucket))
        has_crashed = bucket.has_crashed
        store = store_in(MemoryBucket(held))
        found = list(store.iterate())
        assert all(isinstance(each, StoredObject) and length_of(store, each) == each.length for each in found)
        for key in store.stale_transactions(tomorrow()):
            store.abort(key)
        store.sweep_temporary(tomorrow())
        assert len(held.keys) == 2 * len(found)
        assert held.uploads == {}
        step += 1
    assert len(found) == 1
    assert step > least


def test_a_commit_that_crashed_at_any_step_is_finished_by_committing_again() -> None:
    step, has_crashed = 0, True
    while has_crashed:
        held = BucketContent()
        key = store_in(MemoryBucket(held)).begin(FACTS).transaction_id
        store_in(MemoryBucket(held)).append(key, io.BytesIO(CONTENT))
        bucket = MemoryBucket(held, crash_at=step)
        with suppress(Crash):
            store_in(bucket).commit(key, FACTS)
        has_crashed = bucket.has_crashed
        store = store_in(MemoryBucket(held))
        if f"transactions/{key}/state.json" in held.keys:
            store.commit(key, FACTS)
        (found,) = store.iterate()
        assert isinstance(found, StoredObject)
        assert length_of(store, found) == len(CONTENT)
        step += 1
    assert step > 5


class OvertakenBucket(MemoryBucket):
    """Somebody else acts after the first look at an object."""

    def __init__(self, held: BucketContent, act: Callable[[], object]) -> None:
        super().__init__(held)
        self._acts = [act]

    def length(self, key: str) -> int | None:
        found = super().length(key)
        while self._acts:
            self._acts.pop()()
        return found


@pytest.mark.parametrize("lengths", [(5000, 17), (MIN_PART, 17)], ids=["read again", "copied"])
def test_a_commit_that_another_service_has_finished_meanwhile_is_none_that_failed(lengths: tuple[int, int]) -> None:
    held = BucketContent()
    other = store_in(MemoryBucket(held))
    key = other.begin(FACTS).transaction_id
    for length in lengths:
        other.append(key, GeneratedSource(length))
    stored = store_in(OvertakenBucket(held, lambda: other.commit(key, FACTS))).commit(key, FACTS)
    assert length_of(other, stored) == sum(lengths)
    assert [each.storage_id for each in other.iterate()] == [key]
    assert len(held.keys) == 2
    assert held.uploads == {}


def test_a_commit_whose_segments_are_gone_fails() -> None:
    held = BucketContent()
    store = store_in(MemoryBucket(held))
    key = store.begin(FACTS).transaction_id
    store.append(key, io.BytesIO(CONTENT))
    with pytest.raises(StoredObjectMissingError):
        store_in(OvertakenBucket(held, lambda: store.abort(key))).commit(key, FACTS)
    assert list(store.iterate()) == []


def test_nothing_is_appended_to_a_put_transaction_once_its_commit_has_begun() -> None:
    held = BucketContent()
    store = store_in(MemoryBucket(held))
    key = store.begin(FACTS).transaction_id
    store.append(key, io.BytesIO(CONTENT))
    with suppress(Crash):
        store_in(MemoryBucket(held, crash_at=1)).commit(key, FACTS)
    with pytest.raises(StateConflictError):
        store.append(key, io.BytesIO(CONTENT))
    with pytest.raises(StateConflictError):
        store.revert(key)
    assert store.commit(key, FACTS).length == len(CONTENT)


def test_a_lost_answer_to_the_completion_is_no_failure_when_the_object_is_there() -> None:
    store = store_in(MemoryBucket(BucketContent(), lose_answers_of="complete_upload"))
    stored = store.write(GeneratedSource(LONG), FACTS)
    assert list(store.iterate()) == [stored]


def test_a_lost_answer_to_the_record_is_no_failure_when_the_record_is_ours() -> None:
    held = BucketContent()
    key = store_in(MemoryBucket(held)).begin(FACTS).transaction_id
    segment = GeneratedSource(MIN_PART + 1)
    losing = store_in(MemoryBucket(held, lose_answers_of="put"))
    assert losing.append(key, segment).length == MIN_PART + 1
    assert store_in(MemoryBucket(held)).commit(key, FACTS).length == MIN_PART + 1


def test_a_put_whose_answer_was_lost_leaves_nothing() -> None:
    held = BucketContent()
    with pytest.raises(StorageUnavailableError):
        store_in(MemoryBucket(held, lose_answers_of="put")).write(io.BytesIO(CONTENT), FACTS)
    assert held.keys == {}


def test_content_of_exactly_one_part_needs_no_multipart_upload() -> None:
    bucket = MemoryBucket(BucketContent())
    store_in(bucket).write(GeneratedSource(MIN_PART), FACTS)
    assert bucket.calls == ["put", "put"]


def test_long_segments_are_copied_inside_the_bucket() -> None:
    bucket = MemoryBucket(BucketContent())
    _append_and_commit(store_in(bucket))
    assert bucket.calls.count("copy_part") == 2


def test_a_source_that_breaks_aborts_the_upload() -> None:
    held = BucketContent()
    with pytest.raises(ValueError, match="broken"):
        store_in(MemoryBucket(held)).write(BreakingSource(b"x" * LONG, ValueError("broken")), FACTS)
    assert held == BucketContent()


def test_a_sweep_spares_what_is_young() -> None:
    held = BucketContent()
    bucket = MemoryBucket(held)
    bucket.begin_upload("objects/abc/x")
    bucket.put("objects/abc/y.json", b"{}")
    bucket.put(f"transactions/{'0' * 32}/segment", b"x")
    store = store_in(bucket)
    assert store.sweep_temporary(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert store.sweep_temporary(tomorrow()) == 3
    assert held == BucketContent()


def test_bytes_without_facts_and_foreign_keys_are_reported() -> None:
    held = BucketContent()
    store = store_in(MemoryBucket(held))
    stored = store.write(io.BytesIO(CONTENT), FACTS)
    del held.keys[f"objects/{stored.storage_bucket}/{stored.storage_id}.json"]
    held.keys["objects/fff/foreign"] = b"?"
    found = list(store.iterate())
    assert [type(each) for each in found] == [InvalidObject, InvalidObject]
    assert store.stat(stored.storage_id) == found[0]


def test_a_listing_that_is_cut_raises() -> None:
    held = BucketContent()
    store = store_in(MemoryBucket(held))
    for _ in range(5):
        store.write(io.BytesIO(CONTENT), FACTS)
    with pytest.raises(StorageUnavailableError):
        list(store_in(MemoryBucket(held, listed=4)).iterate())


def test_parts_shorter_than_s3_allows_are_refused_at_once() -> None:
    with pytest.raises(NotConfiguredError):
        BucketStore(MemoryBucket(BucketContent()), content_algorithm="md5", sha256=True, part_size=MIN_PART - 1)
