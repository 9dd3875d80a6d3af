"""Bytes that a snapshot names outlive their retention, whoever comes first."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone
from pytest_django import Settings

from datamodel import operations as model_operations
from datamodel.content import NewContent
from datamodel.models import InventoryIdentity, RemoteInventory, RetiredArtifact
from datamodel.rows import database_now
from datamodel.rules import Located
from datamodel.snapshots import operations as snapshot_operations, queries as snapshot_queries
from datamodel.snapshots.models import PinSource, Snapshot
from datamodel.uris import ArtifactUri, Namespace
from site_service.retention import operations, queries
from site_service.storage.contract import ArtifactStore, ContentFacts
from tests.datamodel.snapshots.moments import tick
from tests.faults import GeneratedSource

URI = ArtifactUri.parse("cadc:TEST/file.txt")
NAMESPACE = Namespace.parse("cadc:TEST/")


@pytest.fixture(autouse=True)
def _times(inventory: InventoryIdentity, settings: Settings) -> None:
    settings.INVENTORY_RETENTION_SECONDS = 0
    settings.INVENTORY_TRANSFER_SECONDS = 0


def put(store: ArtifactStore, length: int = 10) -> UUID:
    stored = store.write(GeneratedSource(length), ContentFacts(uuid4(), URI.value))
    content = NewContent(
        artifact_id=stored.facts.artifact_id,
        located=Located(stored.storage_id, stored.storage_bucket),
        content_checksum=f"md5:{stored.checksums['md5']}",
        content_length=length,
        content_sha256=None,
    )
    return model_operations.record_stored(uri=URI, content=content).artifact.id


def delete() -> None:
    model_operations.delete_artifact(uri=URI)


def take(namespace: Namespace = NAMESPACE) -> Snapshot:
    return snapshot_operations.create_snapshot(name="one", namespace=namespace, created_by="test")


def purge(store: ArtifactStore, artifact_id: UUID) -> bool:
    tick()
    return operations.purge_retired(store=store, artifact_id=artifact_id)


def test_bytes_of_a_snapshot_stay_until_it_is_deleted(store: ArtifactStore) -> None:
    artifact = put(store)
    snapshot = take()
    tick()
    delete()
    tick()
    assert queries.due_retired() == []
    assert not purge(store, artifact)
    snapshot_operations.release_snapshot(snapshot=snapshot)
    assert queries.due_retired() == [artifact]
    assert purge(store, artifact)
    assert list(store.iterate()) == []


def test_what_ended_before_or_began_after_or_lies_elsewhere_is_not_held(store: ArtifactStore) -> None:
    before = put(store)
    delete()
    tick()
    take()
    tick()
    after = put(store, 11)
    delete()
    assert purge(store, before)
    assert purge(store, after)
    elsewhere = put(store, 12)
    tick()
    snapshot_operations.create_snapshot(name="two", namespace=Namespace.parse("cadc:OTHER/"), created_by="test")
    tick()
    delete()
    assert purge(store, elsewhere)


def test_bytes_stay_held_under_the_new_ids_that_undelete_gives_them(store: ArtifactStore) -> None:
    first = put(store)
    take()
    tick()
    delete()
    second = model_operations.undelete_artifact(retired_id=first).artifact.id
    tick()
    delete()
    assert RetiredArtifact.objects.get(id=first).state == "restored"
    assert not purge(store, second)


def test_a_removal_that_was_begun_is_finished_in_spite_of_a_later_snapshot(store: ArtifactStore) -> None:
    artifact = put(store)
    delete()
    tick()
    RetiredArtifact.objects.filter(id=artifact).update(state="removing")
    take()
    assert purge(store, artifact)


@pytest.mark.parametrize("round_", range(10))
def test_a_removal_racing_a_snapshot_never_takes_bytes_that_it_names(store: ArtifactStore, round_: int) -> None:
    """The snapshot fixes its moment, the owner deletes, the sweeper comes: all before the snapshot commits."""
    del round_
    artifact = put(store)
    fixed, may_commit = threading.Event(), threading.Event()
    taken: list[Snapshot] = []

    def snapshot() -> None:
        with transaction.atomic():
            taken.append(take())
            fixed.set()
            assert may_commit.wait(30)
        connections.close_all()

    def sweep() -> None:
        operations.purge_retired(store=store, artifact_id=artifact)
        connections.close_all()

    taker = threading.Thread(target=snapshot)
    taker.start()
    assert fixed.wait(30)
    tick()
    delete()
    tick()
    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    while not _is_waiting_for_the_lock() and sweeper.is_alive():
        pass
    assert sweeper.is_alive(), "the sweeper decides before the moment is known"
    may_commit.set()
    taker.join()
    sweeper.join()
    assert RetiredArtifact.objects.get(id=artifact).state == "retained"
    assert len(list(store.iterate())) == 1
    assert [entry.id for entry in snapshot_queries.all_entries("cadc:TEST/", taken[0].moment)] == [artifact]


def _is_waiting_for_the_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
        (is_waiting,) = cursor.fetchone()
    return bool(is_waiting)


def test_free_running_deleters_sweepers_and_snapshots_lose_nothing(store: ArtifactStore) -> None:
    """Whatever order they come in: all that a snapshot names is stored or retained."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run(act: str) -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                if act == "write":
                    put(store, 10 + number)
                elif act == "sweep":
                    for identity in queries.due_retired():
                        operations.purge_retired(store=store, artifact_id=identity)
                elif number <= 15:
                    while RetiredArtifact.objects.count() < 4 * number and not stop.is_set():
                        pass
                    snapshot_operations.create_snapshot(name=f"s{number}", namespace=NAMESPACE, created_by="test")
        except BaseException as error:
            failures.append(error)
            raise
        finally:
            connections.close_all()

    workers = [threading.Thread(target=run, args=(act,)) for act in ("write", "sweep", "sweep", "snapshot")]
    for worker in workers:
        worker.start()
    purged = RetiredArtifact.objects.filter(state="purged")
    while (Snapshot.objects.count() < 15 or not purged.exists()) and not failures:
        pass
    stop.set()
    for worker in workers:
        worker.join()
    assert failures == []
    kept = {stored.facts.artifact_id for stored in store.iterate()}  # type: ignore[union-attr]  # none is invalid
    named = {
        entry.id
        for snapshot in Snapshot.objects.all()
        for entry in snapshot_queries.all_entries("cadc:TEST/", snapshot.moment)
    }
    assert named <= kept
    assert purged.exists()


def _global(url: str = "http://global.test") -> RemoteInventory:
    return RemoteInventory.objects.create(name="global", role="global", url=url)


def test_a_site_removes_only_what_ended_before_its_global_last_named_its_snapshots(store: ArtifactStore) -> None:
    artifact = put(store)
    delete()
    died = tick()
    remote = _global()
    assert not purge(store, artifact), "it has never been heard"
    heard = PinSource.objects.create(
        remote=remote, url=remote.url, heard_until=died - timedelta(minutes=1), heard_at=database_now()
    )
    assert not purge(store, artifact), "it may have taken one since"
    PinSource.objects.filter(remote=heard.remote).update(heard_until=died, url="http://another.test")
    assert not purge(store, artifact), "that was another global"
    PinSource.objects.filter(remote=heard.remote).update(url=remote.url)
    assert queries.due_retired() == [artifact]
    assert purge(store, artifact)


def test_a_global_that_is_switched_off_holds_nothing_back_but_what_it_named(store: ArtifactStore) -> None:
    named, unnamed = put(store), None
    Snapshot.objects.create(
        name="one",
        source="global",
        namespace="cadc:TEST/",
        moment=tick(),
        state="pinning",
        created_at=timezone.now(),
    )
    unnamed = put(store, 11)
    delete()
    remote = _global()
    assert not purge(store, unnamed)
    RemoteInventory.objects.filter(id=remote.id).update(enabled=False)
    assert purge(store, unnamed)
    assert not purge(store, named)


def test_what_snapshots_hold_does_not_keep_the_rest_from_being_found(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More dead are held than one tick looks at; the next ticks look further, and then from the start again."""
    monkeypatch.setattr(queries, "LOOKED_AT", 2)
    for length in range(5):
        put(store, 10 + length)
        snapshot_operations.create_snapshot(name=f"s{length}", namespace=NAMESPACE, created_by="test")
        tick()
    free = put(store, 20)
    delete()
    tick()
    found = [queries.due_retired() for _ in range(8)]
    assert [len(each) for each in found] == [0, 0, 1, 0, 0, 0, 1, 0]
    assert found[2] == found[6] == [free]
