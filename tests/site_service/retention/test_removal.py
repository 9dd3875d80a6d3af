"""Bytes go when they are due, never before, and whatever dies in between."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from uuid import UUID, uuid4

import dramatiq
import pytest
from django.utils import timezone
from dramatiq.brokers.redis import RedisBroker
from pytest_django import Settings

from datamodel import operations as model_operations
from datamodel.content import NewContent
from datamodel.errors import StorageUnavailableError
from datamodel.models import (
    HarvestConflict,
    InventoryIdentity,
    ObsoleteStorageLocation,
    RetiredArtifact,
    StorageLocation,
)
from datamodel.rules import Located
from datamodel.uris import ArtifactUri
from site_service import broker as site_broker
from site_service.retention import operations, queries
from site_service.retention.tasks import enqueue_removals
from site_service.storage.contract import ArtifactStore, ContentFacts, InvalidObject
from tests.faults import GeneratedSource

URI = ArtifactUri.parse("cadc:TEST/file.txt")
DAY = 24 * 3600


@pytest.fixture(autouse=True)
def _times(inventory: InventoryIdentity, settings: Settings) -> None:
    settings.INVENTORY_RETENTION_SECONDS = 10 * DAY
    settings.INVENTORY_TRANSFER_SECONDS = 3600


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


def retired(store: ArtifactStore, days_ago: float) -> RetiredArtifact:
    identity = put(store)
    model_operations.delete_artifact(uri=URI)
    RetiredArtifact.objects.filter(id=identity).update(died_at=timezone.now() - timedelta(days=days_ago))
    return RetiredArtifact.objects.get(id=identity)


def objects(store: ArtifactStore) -> set[str]:
    return {stored.storage_id for stored in store.iterate()}


def test_retired_bytes_go_after_the_retention_time(store: ArtifactStore) -> None:
    old = retired(store, 11)
    young = retired(store, 9)
    assert queries.due_retired() == [old.id]
    assert operations.purge_retired(store=store, artifact_id=old.id)
    assert not operations.purge_retired(store=store, artifact_id=young.id)
    assert objects(store) == {young.storage_id}
    old.refresh_from_db()
    assert old.state == RetiredArtifact.State.PURGED
    assert queries.due_retired() == []


def test_bytes_that_a_running_get_may_read_stay_even_without_retention(
    store: ArtifactStore, settings: Settings
) -> None:
    settings.INVENTORY_RETENTION_SECONDS = 0
    fresh, old = retired(store, 0.01), retired(store, 0.1)
    assert queries.due_retired() == [old.id]
    assert not operations.purge_retired(store=store, artifact_id=fresh.id)


class Dying:
    """A store whose process dies at the removal, before or after the bytes are gone."""

    def __init__(self, store: ArtifactStore, *, after: bool) -> None:
        self._store = store
        self._after = after

    def remove(self, storage_id: str) -> None:
        row = RetiredArtifact.objects.filter(storage_id=storage_id).first()
        assert row is None or row.state == RetiredArtifact.State.REMOVING
        if self._after:
            self._store.remove(storage_id)
        raise StorageUnavailableError("it died")


@pytest.mark.parametrize("after", [False, True])
def test_removal_that_died_is_finished_by_a_repeat(store: ArtifactStore, *, after: bool) -> None:
    row = retired(store, 11)
    with pytest.raises(StorageUnavailableError):
        operations.purge_retired(store=Dying(store, after=after), artifact_id=row.id)  # type: ignore[arg-type]  # enough of one
    row.refresh_from_db()
    assert row.state == RetiredArtifact.State.REMOVING
    assert queries.due_retired() == []
    RetiredArtifact.objects.update(state_at=timezone.now() - timedelta(minutes=11))
    assert queries.due_retired() == [row.id]
    assert operations.purge_retired(store=store, artifact_id=row.id)
    assert objects(store) == set()
    assert not operations.purge_retired(store=store, artifact_id=row.id)


def obsolete(store: ArtifactStore, hours_ago: float) -> ObsoleteStorageLocation:
    put(store, 5)
    put(store, 5)
    ObsoleteStorageLocation.objects.update(last_modified=timezone.now() - timedelta(hours=hours_ago))
    return ObsoleteStorageLocation.objects.get()


def test_obsolete_bytes_go_once_no_transfer_can_read_them(store: ArtifactStore) -> None:
    row = obsolete(store, 0.5)
    assert queries.due_obsolete() == []
    assert not operations.remove_obsolete(store=store, location_id=row.id)
    ObsoleteStorageLocation.objects.update(last_modified=timezone.now() - timedelta(hours=2))
    assert queries.due_obsolete() == [row.id]
    assert operations.remove_obsolete(store=store, location_id=row.id)
    assert not operations.remove_obsolete(store=store, location_id=row.id)
    assert objects(store) == {StorageLocation.objects.get().storage_id}


def test_obsolete_removal_that_died_is_finished_by_a_repeat(store: ArtifactStore) -> None:
    row = obsolete(store, 2)
    with pytest.raises(StorageUnavailableError):
        operations.remove_obsolete(store=Dying(store, after=True), location_id=row.id)  # type: ignore[arg-type]  # enough of one
    assert queries.due_obsolete() == [row.id]
    assert operations.remove_obsolete(store=store, location_id=row.id)


def test_bytes_in_use_are_never_removed_whatever_else_is_said_of_them(store: ArtifactStore) -> None:
    identity = put(store)
    location = StorageLocation.objects.get()
    model_operations.mark_obsolete(located=Located(location.storage_id, location.storage_bucket))
    ObsoleteStorageLocation.objects.update(last_modified=timezone.now() - timedelta(days=30))
    assert not operations.remove_obsolete(store=store, location_id=queries.due_obsolete()[0])
    assert not ObsoleteStorageLocation.objects.exists()
    RetiredArtifact.objects.create(
        id=uuid4(),
        uri=URI.value,
        content_checksum="md5:" + hashlib.md5(b"").hexdigest(),
        content_length=10,
        born_at=timezone.now(),
        died_at=timezone.now() - timedelta(days=30),
        storage_id=location.storage_id,
        storage_bucket=location.storage_bucket,
        state_at=timezone.now(),
    )
    assert not operations.purge_retired(store=store, artifact_id=queries.due_retired()[0])
    assert RetiredArtifact.objects.get().state == RetiredArtifact.State.RESTORED
    assert objects(store) == {location.storage_id}
    assert StorageLocation.objects.get().artifact_id == identity


def test_a_get_that_runs_reads_on_while_its_bytes_are_removed(store: ArtifactStore) -> None:
    row = retired(store, 11)
    with closing(store.open(row.storage_id, expected_length=10)) as reading:
        assert len(reading.read(4)) == 4
        operations.purge_retired(store=store, artifact_id=row.id)
        assert len(reading.read()) == 6


def test_facts_follow_the_winner_of_a_collision_of_equal_content(store: ArtifactStore) -> None:
    loser = put(store)
    location = StorageLocation.objects.get()
    winner = uuid4()
    HarvestConflict.objects.create(
        uri=URI.value,
        winner_id=winner,
        loser_id=loser,
        loser_checksum="md5:x",
        loser_length=10,
        loser_last_modified=timezone.now(),
        same_content=True,
        decided_at=timezone.now(),
    )
    assert queries.reattached() == []
    model_operations.delete_artifact(uri=URI)
    RetiredArtifact.objects.all().delete()
    put(store)
    HarvestConflict.objects.update(winner_id=StorageLocation.objects.get().artifact_id)
    StorageLocation.objects.update(storage_id=location.storage_id, storage_bucket=location.storage_bucket)
    (due,) = queries.reattached()
    assert operations.follow_facts(store=store, artifact_id=due)
    assert not operations.follow_facts(store=store, artifact_id=due)
    followed = store.stat(location.storage_id)
    assert not isinstance(followed, InvalidObject)
    assert followed.facts.artifact_id == due
    store.remove(location.storage_id)
    assert not operations.follow_facts(store=store, artifact_id=due)
    assert not operations.follow_facts(store=store, artifact_id=uuid4())


@pytest.fixture
def worker(inventory: InventoryIdentity) -> Iterator[RedisBroker]:
    """A Dramatiq worker in this process, on the real Redis."""
    broker = site_broker.broker
    broker.flush_all()
    running = dramatiq.Worker(broker, worker_timeout=50, worker_threads=1)
    running.start()
    yield broker
    running.stop()


def test_celery_decides_and_dramatiq_removes(store: ArtifactStore, worker: RedisBroker) -> None:
    row, kept = retired(store, 11), retired(store, 1)
    put(store, 7)
    put(store, 7)
    ObsoleteStorageLocation.objects.update(last_modified=timezone.now() - timedelta(hours=2))
    enqueue_removals()
    worker.join("retention", timeout=20_000)
    row.refresh_from_db()
    assert row.state == RetiredArtifact.State.PURGED
    assert not ObsoleteStorageLocation.objects.exists()
    assert objects(store) == {kept.storage_id, StorageLocation.objects.get().storage_id}


def test_a_lost_broker_costs_one_tick(store: ArtifactStore, worker: RedisBroker) -> None:
    row = retired(store, 11)
    worker.flush_all()
    enqueue_removals()
    enqueue_removals()
    worker.join("retention", timeout=20_000)
    row.refresh_from_db()
    assert row.state == RetiredArtifact.State.PURGED
