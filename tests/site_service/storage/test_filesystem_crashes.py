"""The POSIX store dies before every step in turn, and is killed in the middle of a write."""

from __future__ import annotations

import hashlib
import io
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from datamodel.errors import (
    StateConflictError,
)
from site_service.storage.contract import StoredObject, Write
from site_service.storage.filesystem import FilesystemStore
from tests.faults import (
    Crash,
    CrashingDisk,
)
from tests.site_service.storage.conftest import CONTENT, FACTS, MIB, OTHER_FACTS, PROJECT, files, place, read, tomorrow

# Crashes at every step

Operation = Callable[[FilesystemStore, str], object]


def _append_and_commit(store: FilesystemStore, _: str) -> None:
    key = store.begin(FACTS).transaction_id
    store.append(key, io.BytesIO(CONTENT))
    store.append(key, io.BytesIO(b"undone"))
    store.revert(key)
    store.commit(key, FACTS)


def _another() -> Write:
    return Write(io.BytesIO(CONTENT), FACTS)


OPERATIONS: dict[str, tuple[Operation, int]] = {
    "write": (lambda store, _: store.write(io.BytesIO(CONTENT), FACTS), 8),
    "several writes together": (lambda store, _: store.write_all([_another() for _ in range(3)]), 20),
    "put transaction": (_append_and_commit, 30),
    "remove": (lambda store, key: store.remove(key), 4),
    "set facts": (lambda store, key: store.set_facts(key, OTHER_FACTS), 6),
}


def _crashes(root: Path, operation: Operation) -> Iterator[tuple[FilesystemStore, StoredObject]]:
    """After a crash at each step in turn: the store as the next process finds it, and the object that was there before."""
    step, has_crashed = 0, True
    while has_crashed:
        shutil.rmtree(root, ignore_errors=True)
        before = FilesystemStore.create(root).write(io.BytesIO(CONTENT), FACTS)
        disk = CrashingDisk(step)
        with suppress(Crash):
            operation(FilesystemStore(root, disk=disk), before.storage_id)
        has_crashed = disk.has_crashed
        yield FilesystemStore(root), before
        step += 1


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_a_crash_at_any_step_leaves_whole_objects_only_and_nothing_that_is_not_swept(root: Path, name: str) -> None:
    operation, least = OPERATIONS[name]
    cases = 0
    for store, _ in _crashes(root, operation):
        cases += 1
        found = list(store.iterate())
        assert all(isinstance(each, StoredObject) for each in found)
        contents = {read(store, each) for each in found if isinstance(each, StoredObject)}
        assert contents <= {CONTENT}
        for key in store.stale_transactions(tomorrow()):
            store.abort(key)
        store.sweep_temporary(tomorrow())
        places = {place(each) for each in found if isinstance(each, StoredObject)}
        assert files(root) == places | {f"{each}.json" for each in places}
        assert list((root / "transactions").iterdir()) == []
        assert list(store.iterate()) == found
    assert cases > least


def test_a_crash_while_facts_are_replaced_leaves_the_old_or_the_new(root: Path) -> None:
    seen = set()
    for store, before in _crashes(root, OPERATIONS["set facts"][0]):
        (found,) = store.iterate()
        assert isinstance(found, StoredObject)
        assert found.storage_id == before.storage_id
        seen.add(found.facts)
    assert seen == {FACTS, OTHER_FACTS}


def test_a_commit_that_crashed_at_any_step_is_finished_by_committing_again(root: Path) -> None:
    step, has_crashed = 0, True
    while has_crashed:
        shutil.rmtree(root, ignore_errors=True)
        store = FilesystemStore.create(root)
        key = store.begin(FACTS).transaction_id
        store.append(key, io.BytesIO(CONTENT))
        disk = CrashingDisk(step)
        with suppress(Crash):
            FilesystemStore(root, disk=disk).commit(key, FACTS)
        has_crashed = disk.has_crashed
        if (root / "transactions" / key / "state.json").exists():
            store.commit(key, OTHER_FACTS)
        (found,) = store.iterate()
        assert isinstance(found, StoredObject)
        assert read(store, found) == CONTENT
        step += 1
    assert step > 10


def test_aborting_a_commit_that_crashed_never_takes_a_published_object_away(root: Path) -> None:
    for step in range(40):
        shutil.rmtree(root, ignore_errors=True)
        store = FilesystemStore.create(root)
        key = store.begin(FACTS).transaction_id
        store.append(key, io.BytesIO(CONTENT))
        with suppress(Crash):
            FilesystemStore(root, disk=CrashingDisk(step)).commit(key, FACTS)
        published = list(store.iterate())
        store.abort(key)
        assert list(store.iterate()) == published


# kill -9

_CHILD = """
import io, sys, time
from pathlib import Path
from site_service.storage.contract import ContentFacts
from site_service.storage.filesystem import FilesystemStore
import uuid

class Source:
    left = 3
    def read(self, size):
        if self.left:
            self.left -= 1
            return b"k" * 1048576
        print("in the middle", flush=True)
        time.sleep(60)

store = FilesystemStore(Path(sys.argv[1]))
if sys.argv[2] == "write":
    store.write(Source(), ContentFacts(uuid.UUID(int=3), "cadc:TEST/k"))
else:
    store.append(sys.argv[2], Source())
"""


def _kill_in_the_middle(root: Path, what: str) -> None:
    command = [sys.executable, "-c", _CHILD, str(root), what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"in the middle\n"
        if what != "write":
            with pytest.raises(StateConflictError):
                FilesystemStore(root).append(what, io.BytesIO(b"other"))
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_a_writer_killed_in_the_middle_leaves_no_object_and_is_swept(store: FilesystemStore, root: Path) -> None:
    kept = store.write(io.BytesIO(CONTENT), FACTS)
    _kill_in_the_middle(root, "write")
    after = FilesystemStore(root)
    assert list(after.iterate()) == [kept]
    assert after.sweep_temporary(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert after.sweep_temporary(tomorrow()) == 1
    assert files(root) == {place(kept), f"{place(kept)}.json"}


def test_a_put_transaction_goes_on_at_the_recorded_length_after_kill_9(store: FilesystemStore, root: Path) -> None:
    key = store.begin(FACTS).transaction_id
    before = store.append(key, io.BytesIO(CONTENT))
    _kill_in_the_middle(root, key)
    assert (root / "transactions" / key / "content").stat().st_size == len(CONTENT) + 3 * MIB
    after = FilesystemStore(root)
    assert after.status(key) == before
    whole = CONTENT + b"tail"
    assert after.append(key, io.BytesIO(b"tail")).checksums["md5"] == hashlib.md5(whole).hexdigest()
    assert read(after, after.commit(key, FACTS)) == whole
