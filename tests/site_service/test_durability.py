"""The order in which a site makes things durable, seen from the kernel: kill -9 cannot tell, for what was written survives it.

Bytes, then their name, then the directory of that name, then the row, then the answer; and in reverse for removal.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from datamodel.models import RetiredArtifact, StorageLocation
from site_service import broker as site_broker
from site_service.retention.tasks import enqueue_removals
from tests.site_service.conftest import TOKEN
from tests.site_service.file_sync.workers import SyncWorker, wait_for
from tests.site_service.server import SiteProcess
from tests.tracing import Call, traced

AUTH = {"Authorization": f"Bearer {TOKEN}"}
PATH = "/files/cadc:TEST/durable.bin"
DATA = os.urandom(300_000)
START = {"x-put-txn-op": "start", "x-total-length": str(len(DATA))}
# How PostgreSQL says that it is ready (ReadyForQuery), as strace writes it.
NO_TRANSACTION = r"Z\0\0\0\5I"

Step = tuple[str, Callable[[Call], bool]]


def call(name: str, words: str, *, others: Sequence[str] = ()) -> Callable[[Call], bool]:
    return lambda made: made.name in {name, *others} and words in made.arguments and made.result >= 0


def in_order(calls: Sequence[Call], steps: Sequence[Step]) -> list[int]:
    """Where each step is, the first one after the step before it. Fails with the first that does not come."""
    places: list[int] = []
    position = -1
    for label, is_it in steps:
        found = next((place for place in range(position + 1, len(calls)) if is_it(calls[place])), None)
        assert found is not None, (label, [(one.name, one.arguments[:100]) for one in calls[position + 1 :]])
        places.append(found)
        position = found
    return places


def renamed(path: str) -> Callable[[Call], bool]:
    return call("rename", path, others=("renameat", "renameat2"))


def said(words: str) -> Callable[[Call], bool]:
    return call("sendto", words, others=("sendmsg", "write"))


def row_sent(data: bytes) -> Callable[[Call], bool]:
    """Only the row says the checksum in this form to the database; its statement may have been prepared long ago."""
    return call("sendto", f"md5:{hashlib.md5(data, usedforsecurity=False).hexdigest()}", others=("sendmsg",))


def publication(storage_id: str, source: str) -> list[Step]:
    """From the last byte to the answer; `source` is where the bytes, or the facts, were written."""
    shard = f"objects/{storage_id[:3]}"
    return [
        ("written", call("write", source)),
        ("synced", call("fsync", source)),
        ("bytes named", renamed(f'{shard}/{storage_id}"')),
        ("directory synced", call("fsync", f"{shard}>")),
        ("row sent", row_sent(DATA)),
        ("committed: no transaction is open", call("recvfrom", NO_TRANSACTION)),
        ("answered", said("HTTP/1.1 201")),
    ]


def assert_published(calls: Sequence[Call], storage_id: str, source: str) -> None:
    last = max(place for place, one in enumerate(calls) if call("write", source)(one))
    for each in (f"objects/{storage_id[:3]}/{storage_id}.json", source):
        places = [last + place for place in in_order(calls[last:], publication(storage_id, each))]
    named, committed = places[2], places[5]
    early = [one for one in calls[:named] if row_sent(DATA)(one)]
    assert not early, "the row was on its way before its bytes had a name"
    assert not any(said("HTTP/1.1 201")(one) for one in calls[:committed]), "answered before the commit"


def test_a_put_is_durable_before_its_row_and_its_row_before_the_answer(live: SiteProcess) -> None:
    assert live.process is not None
    with traced(live.process.pid) as trace:
        assert live.request("PUT", PATH, DATA, AUTH).status == 201
        live.request("GET", "/livez")
    storage_id = StorageLocation.objects.get().storage_id
    assert_published(trace.thread_of("sendto", "HTTP/1.1 201"), storage_id, f"temporary/{storage_id}>")


def test_a_new_directory_is_durable_before_what_is_in_it(live: SiteProcess) -> None:
    assert live.process is not None
    shards = set((live.directory / "storage" / "objects").iterdir())
    with traced(live.process.pid) as trace:
        while not set((live.directory / "storage" / "objects").iterdir()) - shards:
            data = os.urandom(9)
            assert live.request("PUT", PATH, data, AUTH).status == 201
    storage_id = StorageLocation.objects.get().storage_id
    calls = [one for one in trace.calls if one.thread == trace.thread_of("fsync", f"{storage_id}>")[0].thread]
    in_order(
        calls,
        [
            ("directory made", call("mkdir", f"objects/{storage_id[:3]}", others=("mkdirat",))),
            ("its parent synced", call("fsync", "storage/objects>")),
            ("bytes named", renamed(f'{storage_id}"')),
            ("row sent", row_sent(data)),
            ("committed: no transaction is open", call("recvfrom", NO_TRANSACTION)),
        ],
    )


def test_the_commit_of_a_put_transaction_is_durable_before_its_row(live: SiteProcess) -> None:
    assert live.process is not None
    with traced(live.process.pid) as trace:
        begun = live.request("PUT", PATH, DATA[:1000], {**AUTH, **START})
        identity = {**AUTH, "x-put-txn-id": begun.headers["x-put-txn-id"]}
        assert live.request("PUT", PATH, DATA[1000:], identity).status == 202
        assert live.request("PUT", PATH, b"", {**identity, "x-put-txn-op": "commit"}).status == 201
        live.request("GET", "/livez")
    storage_id = StorageLocation.objects.get().storage_id
    # Segments came by threads of their own, one answer after the other: together they are one order.
    assert_published(trace.calls, storage_id, f"transactions/{storage_id}/content>")


def test_a_deletion_is_committed_before_it_is_acknowledged_and_touches_no_byte(live: SiteProcess) -> None:
    assert live.process is not None
    assert live.request("PUT", PATH, DATA, AUTH).status == 201
    with traced(live.process.pid) as trace:
        assert live.request("DELETE", PATH, headers=AUTH).status == 204
        # Once it has answered this it has been seen to answer that.
        live.request("GET", "/livez")
    calls = trace.thread_of("sendto", "HTTP/1.1 204")
    in_order(
        calls,
        [
            ("committed", said("COMMIT")),
            ("commit acknowledged", call("recvfrom", "COMMIT")),
            ("answered", said("HTTP/1.1 204")),
        ],
    )
    touched = [one for one in calls if one.name.startswith(("unlink", "rename")) and "storage/" in one.arguments]
    assert not touched


@pytest.fixture
def worker(tmp_path: Path, live: SiteProcess) -> Iterator[SyncWorker]:
    """A Dramatiq worker as shipped, over the store of the live site."""
    site_broker.broker.flush_all()
    (tmp_path / "storage").symlink_to(live.directory / "storage")
    worker = SyncWorker(tmp_path)
    worker.start()
    wait_for(lambda: "is ready for action" in worker.log, "the start of the worker", worker)
    yield worker
    worker.kill()


def test_the_intent_to_remove_is_committed_before_any_byte_is_touched(live: SiteProcess, worker: SyncWorker) -> None:
    assert live.request("PUT", PATH, DATA, AUTH).status == 201
    assert live.request("DELETE", PATH, headers=AUTH).status == 204
    RetiredArtifact.objects.update(died_at=timezone.now() - timedelta(days=100))
    storage_id = RetiredArtifact.objects.get().storage_id
    assert worker.process is not None
    with traced(worker.process.pid) as trace:
        enqueue_removals()
        wait_for(lambda: RetiredArtifact.objects.get().state == "purged", "the removal", worker)
    calls = trace.thread_of("unlink", f'temporary/{storage_id}"')
    places = in_order(
        calls,
        [
            ("intent said", said("UPDATE retired_artifact r SET state = 'removing'")),
            ("intent committed", said("COMMIT")),
            ("commit acknowledged", call("recvfrom", "COMMIT")),
            ("out of the tree", renamed(f"temporary/{storage_id}")),
            ("directory synced", call("fsync", f"objects/{storage_id[:3]}>")),
            ("bytes gone", call("unlink", f"temporary/{storage_id}", others=("unlinkat",))),
            ("end said", said("state = 'purged'")),
            ("end committed", said("COMMIT")),
        ],
    )
    assert not [one for one in calls[: places[2]] if storage_id in one.arguments and one.name != "recvfrom"]
