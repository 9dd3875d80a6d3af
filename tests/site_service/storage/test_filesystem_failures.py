"""Disks that say no: at every step of every change, once or from then on. What was not promised is not there, what was is."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from datamodel.errors import StorageFullError, StorageUnavailableError
from site_service.storage.contract import ContentFacts, StoredObject, Write
from site_service.storage.filesystem import FilesystemStore
from tests.faults import FailingDisk

DATA = b"a few bytes"
FACTS = ContentFacts(uuid4(), "cadc:TEST/file")
# More than any change has; how many it has depends on which directories are there already.
MOST_STEPS = 45


def write(store: FilesystemStore) -> StoredObject:
    return store.write(io.BytesIO(DATA), FACTS)


def write_with_others(store: FilesystemStore) -> StoredObject:
    outcomes = store.write_all([Write(io.BytesIO(DATA), FACTS) for _ in range(3)])
    stored = [outcome for outcome in outcomes if isinstance(outcome, StoredObject)]
    assert len(stored) == 3
    assert all(read(store, each) == DATA for each in stored)
    return stored[1]


def write_by_transaction(store: FilesystemStore) -> StoredObject:
    identity = store.begin(FACTS).transaction_id
    store.append(identity, io.BytesIO(DATA))
    return store.commit(identity, FACTS)


def with_all_directories(root: Path) -> FilesystemStore:
    """So that every write has the same steps."""
    store = FilesystemStore.create(root)
    for number in range(16**3):
        (root / "objects" / f"{number:03x}").mkdir(exist_ok=True)
    return store


def read(store: FilesystemStore, stored: StoredObject) -> bytes:
    with store.open(stored.storage_id, expected_length=len(DATA)) as file:
        return file.read()


@pytest.mark.parametrize("change", [write, write_with_others, write_by_transaction])
@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.ENOSPC], ids=["EIO", "EROFS", "ENOSPC"])
@pytest.mark.parametrize("stays", [False, True], ids=["once", "from then on"])
def test_a_write_that_the_disk_refuses_at_any_step_promises_nothing(
    tmp_path: Path, change: Callable[[FilesystemStore], StoredObject], code: int, stays: bool
) -> None:
    root = tmp_path / "store"
    well = with_all_directories(root)
    kept = write(well)
    refusal = StorageFullError if code == errno.ENOSPC else StorageUnavailableError
    failed: list[str] = []
    for step in range(MOST_STEPS):
        disk = FailingDisk(step, code, stays=stays)
        store = FilesystemStore(root, disk=disk)
        try:
            stored = change(store)
        except refusal:
            failed += disk.failed[:1]
            # With a disk that is well again: what was promised before is whole, and what was not can be done.
            assert read(well, kept) == DATA
            assert read(well, write(well)) == DATA
            continue
        assert read(well, stored) == DATA
    assert {"create", "write", "sync", "rename", "sync_directory"} <= set(failed), failed


@pytest.mark.parametrize("change", [write, write_with_others])
@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS], ids=["EIO", "EROFS"])
def test_a_disk_that_cannot_sync_has_published_nothing(
    tmp_path: Path, change: Callable[[FilesystemStore], StoredObject], code: int
) -> None:
    """After a failed sync the kernel forgets what it could not write: a second sync would lie, so all is written anew."""
    root = tmp_path / "store"
    with_all_directories(root)
    refused = 0
    for step in range(MOST_STEPS):
        disk = FailingDisk(step, code, stays=False)
        before = list(FilesystemStore(root).iterate())
        try:
            change(FilesystemStore(root, disk=disk))
        except StorageUnavailableError:
            assert list(FilesystemStore(root).iterate()) == before
            refused += disk.failed[0].startswith("sync")
        else:
            assert not any(name.startswith("sync") for name in disk.failed)
    assert refused >= 3


def test_removal_that_the_disk_refuses_is_finished_by_a_repeat(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = FilesystemStore.create(root)
    steps = 0
    while True:
        stored = write(store)
        disk = FailingDisk(steps, errno.EROFS, stays=True)
        try:
            FilesystemStore(root, disk=disk).remove(stored.storage_id)
        except StorageUnavailableError:
            store.remove(stored.storage_id)
        else:
            break
        assert list(store.iterate()) == []
        steps += 1
    assert steps >= 3
