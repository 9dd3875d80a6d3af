"""What is special to the POSIX store: its files, the order of syncs, full and lost disks, damage."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodel.errors import (
    NotConfiguredError,
    ShortBodyError,
    StorageFullError,
    StorageUnavailableError,
    StoredObjectMissingError,
)
from site_service.storage.contract import ByteRange, InvalidObject, StoredObject, Write
from site_service.storage.filesystem import FilesystemStore
from site_service.storage.listings import STORE, proven
from site_service.storage.records import encode_object
from tests.faults import (
    BreakingSource,
    BrokenListDisk,
    FullDisk,
    GeneratedSource,
    RecordingDisk,
    flip_bit,
)
from tests.site_service.storage.conftest import CONTENT, FACTS, MIB, OTHER_FACTS, files, place, tomorrow

# Layout and durability


def test_an_object_is_one_file_of_bytes_and_one_of_facts(store: FilesystemStore, root: Path) -> None:
    stored = store.write(io.BytesIO(CONTENT), FACTS)
    assert files(root) == {place(stored), f"{place(stored)}.json"}
    assert (root / place(stored)).read_bytes() == CONTENT


def test_a_put_syncs_bytes_and_facts_then_publishes_then_syncs_the_directory(root: Path) -> None:
    FilesystemStore.create(root)
    disk = RecordingDisk()
    store = FilesystemStore(root, disk=disk)
    while True:
        disk.steps.clear()
        stored = store.write(io.BytesIO(CONTENT), FACTS)
        if ("sync directory", "objects") not in disk.steps:
            break
    name = stored.storage_id
    assert disk.steps == [
        ("write", name),
        ("write", f"{name}.json"),
        ("sync", name),
        ("sync", f"{name}.json"),
        ("rename", name),
        ("sync directory", stored.storage_bucket),
    ]


def test_several_are_written_before_any_is_synced_and_synced_before_any_is_published_in_one_directory(
    root: Path,
) -> None:
    FilesystemStore.create(root)
    disk = RecordingDisk()
    outcomes = FilesystemStore(root, disk=disk).write_all([Write(io.BytesIO(CONTENT), FACTS) for _ in range(20)])
    stored = [outcome for outcome in outcomes if isinstance(outcome, StoredObject)]
    names = [each.storage_id for each in stored]
    steps = [step for step in disk.steps if step != ("sync directory", "objects")]
    assert len(names) == 20
    assert steps == [
        *(("write", name) for name in names),
        *(("write", f"{name}.json") for name in names),
        *(("sync", name) for name in names),
        *(("sync", f"{name}.json") for name in names),
        *(("rename", name) for name in names),
        ("sync directory", stored[0].storage_bucket),
    ]
    assert {each.storage_bucket for each in stored} == {stored[0].storage_bucket}


def test_what_is_written_at_different_times_is_spread_over_the_directories(store: FilesystemStore) -> None:
    stored = [store.write(io.BytesIO(CONTENT), FACTS) for _ in range(20)]
    assert len({each.storage_bucket for each in stored}) > 10


def test_no_file_stays_open_after_several_were_written_or_refused(store: FilesystemStore, root: Path) -> None:
    before = descriptors()
    cut = Write(BreakingSource(CONTENT, ShortBodyError("cut")), FACTS)
    store.write_all([Write(io.BytesIO(CONTENT), FACTS), cut, Write(io.BytesIO(CONTENT), FACTS)])
    with pytest.raises(StorageFullError):
        FilesystemStore(root, disk=FullDisk(MIB)).write_all([cut, Write(GeneratedSource(2 * MIB), FACTS)])
    assert descriptors() == before


def test_a_large_file_leaves_memory_while_it_is_written_but_for_its_end(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = list[tuple[int, int]]()

    def advise(descriptor: int, start: int, length: int, advice: int) -> None:
        if os.fstat(descriptor).st_size < MIB:
            return
        assert os.fstat(descriptor).st_size == start + length
        assert advice == os.POSIX_FADV_DONTNEED
        let_go.append((start, start + length))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    store.write(GeneratedSource(57 * MIB), FACTS)
    assert let_go == [(max(end - 40 * MIB, 0), end) for end in range(8 * MIB, 57 * MIB, 8 * MIB)]


def test_a_new_shard_is_synced_in_its_parent_before_bytes_are_published(root: Path) -> None:
    FilesystemStore.create(root)
    disk = RecordingDisk()
    stored = FilesystemStore(root, disk=disk).write(io.BytesIO(CONTENT), FACTS)
    assert disk.steps.index(("sync directory", "objects")) < disk.steps.index(("rename", stored.storage_id))


def test_an_open_object_is_a_real_file_positioned_at_the_range(store: FilesystemStore) -> None:
    stored = store.write(io.BytesIO(bytes(range(200))), FACTS)
    with store.open(stored.storage_id, expected_length=200, byte_range=ByteRange(50, 10)) as reader:
        assert os.lseek(reader.fileno(), 0, os.SEEK_CUR) == 50
        buffer = bytearray(100)
        assert reader.readinto(buffer) == 10
        assert bytes(buffer[:10]) == bytes(range(50, 60))
        assert reader.readinto(buffer) == 0


def test_a_plain_copy_of_the_tree_is_the_same_store(store: FilesystemStore, root: Path, tmp_path: Path) -> None:
    stored = [store.write(io.BytesIO(bytes([number])), FACTS) for number in range(5)]
    for path in root.rglob("*"):
        target = tmp_path / "copy" / path.relative_to(root)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for name in ("temporary", "transactions"):
        (tmp_path / "copy" / name).mkdir(exist_ok=True)
    copy = FilesystemStore(tmp_path / "copy")
    assert list(copy.iterate()) == sorted(stored, key=lambda each: each.storage_id)
    assert copy.identity == store.identity


# Full, failing and lost disks


def test_a_full_disk_is_said_to_be_full_and_keeps_nothing(store: FilesystemStore, root: Path) -> None:
    full = FilesystemStore(root, disk=FullDisk(2 * MIB))
    with pytest.raises(StorageFullError):
        full.write(GeneratedSource(3 * MIB), FACTS)
    assert files(root) == set()
    assert list(store.iterate()) == []


def test_a_full_disk_leaves_a_put_transaction_as_it_was(store: FilesystemStore, root: Path) -> None:
    key = store.begin(FACTS).transaction_id
    before = store.append(key, io.BytesIO(CONTENT))
    with pytest.raises(StorageFullError):
        FilesystemStore(root, disk=FullDisk(MIB)).append(key, GeneratedSource(3 * MIB))
    assert store.status(key) == before
    assert (root / "transactions" / key / "content").stat().st_size == len(CONTENT)


def test_a_limit_of_the_system_itself_is_a_full_store(store: FilesystemStore, root: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
    try:
        with pytest.raises(StorageFullError):
            store.write(GeneratedSource(2 * MIB), FACTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(root) == set()


def test_a_listing_tells_the_disk_of_records_before_it_reads_them(
    store: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store.write(io.BytesIO(CONTENT), FACTS)
    told = list[int]()

    def advise(descriptor: int, start: int, length: int, advice: int) -> None:
        assert (start, advice) == (0, os.POSIX_FADV_WILLNEED)
        told.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    listing = store.iterate()
    assert next(listing) == stored
    assert told == [len(encode_object(stored))]
    # It is a hint: a record that cannot be opened here is judged where it is read.
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    assert list(store.iterate()) == [stored]


def refuse(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "not here")


@pytest.mark.parametrize("listings", [0, 1, 5])
def test_a_listing_that_the_disk_breaks_off_raises(store: FilesystemStore, root: Path, listings: int) -> None:
    for _ in range(12):
        store.write(io.BytesIO(CONTENT), FACTS)
    with pytest.raises(StorageUnavailableError):
        list(FilesystemStore(root, disk=BrokenListDisk(listings)).iterate())


def test_an_unmounted_disk_is_unavailable_and_never_empty(store: FilesystemStore, root: Path) -> None:
    stored = store.write(io.BytesIO(CONTENT), FACTS)
    key = store.begin(FACTS).transaction_id
    root.rename(root.with_name("elsewhere"))
    root.mkdir()
    for attempt in (
        lambda: list(store.iterate()),
        lambda: store.open(stored.storage_id, expected_length=stored.length),
        lambda: store.stat(stored.storage_id),
        lambda: store.remove(stored.storage_id),
        lambda: store.write(io.BytesIO(CONTENT), FACTS),
        lambda: store.begin(FACTS),
        lambda: store.status(key),
        lambda: store.stale_transactions(tomorrow()),
    ):
        with pytest.raises(StorageUnavailableError):
            attempt()
    with pytest.raises(NotConfiguredError):
        FilesystemStore(root)


def test_a_directory_that_holds_something_else_does_not_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(NotConfiguredError):
        FilesystemStore.create(tmp_path)


def test_creating_an_existing_store_only_opens_it(store: FilesystemStore, root: Path) -> None:
    stored = store.write(io.BytesIO(CONTENT), FACTS)
    again = FilesystemStore.create(root)
    assert again.identity == store.identity
    assert list(again.iterate()) == [stored]


def test_a_damaged_mark_is_refused(store: FilesystemStore, root: Path) -> None:
    (root / "store.json").write_text("{}")
    with pytest.raises(NotConfiguredError):
        FilesystemStore(root)


# Damage


def _damaged(store: FilesystemStore, root: Path, damage: Callable[[Path], object]) -> InvalidObject:
    stored = store.write(io.BytesIO(CONTENT), FACTS)
    damage(root / place(stored))
    (found,) = store.iterate()
    assert store.stat(stored.storage_id) == found
    assert isinstance(found, InvalidObject)
    with pytest.raises(StoredObjectMissingError):
        store.set_facts(stored.storage_id, OTHER_FACTS)
    store.remove(stored.storage_id)
    assert files(root) == set()
    return found


def _facts_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no facts": (lambda path: _facts_of(path).unlink(), "missing"),
    "empty facts": (lambda path: _facts_of(path).write_bytes(b""), "cannot be read"),
    "foreign facts": (lambda path: _facts_of(path).write_bytes(b'{"uri": "x"}'), "cannot be read"),
    "truncated bytes": (lambda path: os.truncate(path, 100), "100 bytes"),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_damage_is_listed_as_an_invalid_object(store: FilesystemStore, root: Path, name: str) -> None:
    damage, word = DAMAGES[name]
    assert word in _damaged(store, root, damage).reason


def test_any_flipped_bit_in_the_facts_is_noticed(store: FilesystemStore, root: Path) -> None:
    stored = store.write(io.BytesIO(CONTENT), FACTS)
    path = _facts_of(root / place(stored))
    length = path.stat().st_size
    for offset in range(length - 1):
        flip_bit(path, offset)
        (found,) = store.iterate()
        assert isinstance(found, InvalidObject), offset
        flip_bit(path, offset)
    assert length > 100


def test_a_foreign_file_among_the_objects_is_reported(store: FilesystemStore, root: Path) -> None:
    stored = store.write(io.BytesIO(CONTENT), FACTS)
    (root / "objects" / stored.storage_bucket / "zzz").write_bytes(b"?")
    found = list(store.iterate())
    assert found[0] == stored
    assert isinstance(found[1], InvalidObject)


def test_an_object_that_was_copied_into_another_directory_is_listed_once_and_in_order(
    store: FilesystemStore, root: Path
) -> None:
    written = [store.write(io.BytesIO(CONTENT), FACTS) for _ in range(2)]
    for stored in written:
        elsewhere = root / "objects" / ("000" if stored.storage_bucket != "000" else "fff")
        elsewhere.mkdir(exist_ok=True)
        for path in (root / place(stored), _facts_of(root / place(stored))):
            shutil.copy(path, elsewhere)
    assert len(list(proven(store.listing(), STORE))) == len(written)
    assert list(store.iterate()) == sorted(written, key=lambda stored: stored.storage_id)


def test_bytes_that_end_while_being_read_are_an_error_not_a_short_file(store: FilesystemStore, root: Path) -> None:
    stored = store.write(GeneratedSource(3 * MIB), FACTS)
    with store.open(stored.storage_id, expected_length=stored.length) as reader:
        os.truncate(root / place(stored), MIB)
        with pytest.raises(StoredObjectMissingError):
            reader.read()


def test_a_damaged_record_of_a_put_transaction_is_refused_but_can_be_aborted(
    store: FilesystemStore, root: Path
) -> None:
    key = store.begin(FACTS).transaction_id
    flip_bit(root / "transactions" / key / "state.json", 5)
    with pytest.raises(StoredObjectMissingError):
        store.status(key)
    store.abort(key)
    assert files(root) == set()


def test_bytes_missing_from_a_put_transaction_are_refused(store: FilesystemStore, root: Path) -> None:
    key = store.begin(FACTS).transaction_id
    store.append(key, io.BytesIO(CONTENT))
    os.truncate(root / "transactions" / key / "content", 10)
    with pytest.raises(StoredObjectMissingError):
        store.append(key, io.BytesIO(b"more"))
    with pytest.raises(StoredObjectMissingError):
        store.commit(key, FACTS)
    assert list(store.iterate()) == []


def test_a_slow_writer_that_was_swept_fails_instead_of_publishing_half(store: FilesystemStore, root: Path) -> None:
    class Swept(BreakingSource):
        def read(self, size: int, /) -> bytes:
            if block := self._stream.read(size):
                return block
            assert FilesystemStore(root).sweep_temporary(tomorrow()) == 1
            return b""

    with pytest.raises(StorageUnavailableError):
        store.write(Swept(CONTENT, ValueError()), FACTS)
    assert files(root) == set()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_listing_closes_what_it_opened_ahead_whether_used_or_not(store: FilesystemStore, root: Path) -> None:
    """Facts without bytes are opened for nothing; those of a bucket that nobody reads to its end, too."""
    names = [f"abc{number:029x}" for number in range(6)]
    record = root / place(store.write(io.BytesIO(CONTENT), FACTS))
    shard = root / "objects" / "abc"
    shard.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        shutil.copy(record.with_suffix(".json"), shard / f"{name}.json")
        if number % 2:
            shutil.copy(record, shard / name)
    before = descriptors()
    assert len(list(proven(store.listing("abc"), STORE))) == 3
    assert descriptors() == before
    listing = store.listing("abc")
    next(listing)
    assert descriptors() > before
    del listing
    assert descriptors() == before


def test_a_listing_of_a_disk_that_was_unmounted_meanwhile_has_no_end(store: FilesystemStore, root: Path) -> None:
    store.write(io.BytesIO(CONTENT), FACTS)
    listing = store.listing()
    next(listing)
    (root / "store.json").unlink()
    with pytest.raises(StorageUnavailableError, match="mark"):
        list(listing)
