"""File sync with a real broker and real worker processes, which are killed, told to stop, and robbed of their messages."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from pytest_django import Settings

from datamodel import rows
from datamodel.models import ObsoleteStorageLocation, StorageLocation
from site_service.file_sync import tasks
from site_service.file_sync.models import SyncAttempt
from site_service.storage import registry
from site_service.storage.filesystem import FilesystemStore
from tests.fakes import files
from tests.site_service.file_sync.conftest import CONTENT, Federation
from tests.site_service.file_sync.workers import SyncWorker, wait_for
from tests.site_service.server import PROJECT


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    """An empty broker."""
    client = redis.Redis.from_url(django_settings.INVENTORY_DRAMATIQ_URL)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def worker(tmp_path: Path, settings: Settings, federation: Federation) -> Iterator[SyncWorker]:
    """A worker, not started; the store of this process is its store."""
    worker = SyncWorker(tmp_path)
    settings.STORAGES = {
        **settings.STORAGES,
        "artifacts": {
            "BACKEND": "site_service.storage.filesystem.FilesystemStore",
            "OPTIONS": {"root": str(worker.storage)},
        },
    }
    FilesystemStore.create(worker.storage)
    registry.get_store.cache_clear()
    yield worker
    worker.kill()
    registry.get_store.cache_clear()


def is_stored(count: int = 1) -> bool:
    return StorageLocation.objects.count() == count and not SyncAttempt.objects.exists()


def expire_leases() -> None:
    past = rows.database_now() - timedelta(seconds=1)
    SyncAttempt.objects.exclude(lease_until=None).update(lease_until=past)


def test_a_tick_and_a_worker_bring_everything(federation: Federation, worker: SyncWorker, broker: redis.Redis) -> None:
    del broker
    for number in range(120):
        federation.publish(f"cadc:{number}", b"%d" % number)
    worker.start()
    tasks.enqueue_missing()
    wait_for(lambda: is_stored(120), "the pull of 120 files", worker)
    assert sum(map(len, federation.inventory.calls)) == 120


def test_a_batch_rings_for_the_next_one(
    federation: Federation, worker: SyncWorker, broker: redis.Redis, settings: Settings
) -> None:
    del broker
    settings.INVENTORY_SYNC_THREADS = 1
    for number in range(220):
        federation.publish(f"cadc:{number}", b"%d" % number)
    tasks.enqueue_missing()
    assert SyncAttempt.objects.exclude(lease_holder=None).count() == 200
    worker.start()
    wait_for(lambda: is_stored(220), "the pull of all 220 files after one tick", worker)


def test_a_flushed_broker_loses_nothing(federation: Federation, worker: SyncWorker, broker: redis.Redis) -> None:
    federation.publish("cadc:f", CONTENT)
    tasks.enqueue_missing()
    broker.flushdb()
    tasks.enqueue_missing()
    assert not broker.keys("*sync*")
    expire_leases()
    tasks.enqueue_missing()
    worker.start()
    wait_for(is_stored, "the pull", worker)


def test_a_worker_killed_in_mid_transfer_is_replaced_when_its_lease_expires(
    federation: Federation, worker: SyncWorker, broker: redis.Redis
) -> None:
    reached, released = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        released.wait(30)

    federation.alpha.faults.append(files.midway(hold))
    federation.publish("cadc:f", CONTENT)
    tasks.enqueue_missing()
    worker.start()
    wait_for(reached.is_set, "half of the transfer", worker)
    worker.kill()
    released.set()
    broker.flushdb()
    worker.start()
    tasks.enqueue_missing()
    assert not StorageLocation.objects.exists()
    expire_leases()
    tasks.enqueue_missing()
    wait_for(is_stored, "the second pull", worker)
    assert not ObsoleteStorageLocation.objects.exists()
    stored = list(registry.get_store().iterate())
    assert [one.storage_id for one in stored] == [StorageLocation.objects.get().storage_id]


def test_a_worker_that_is_told_to_stop_gives_its_lease_back(
    federation: Federation, worker: SyncWorker, broker: redis.Redis
) -> None:
    del broker
    reached = threading.Event()
    federation.alpha.usually = files.both(files.slow(0.001), files.midway(reached.set))
    federation.publish("cadc:f", CONTENT[:4000])
    tasks.enqueue_missing()
    worker.start()
    wait_for(reached.is_set, "half of the transfer", worker)
    worker.terminate()
    assert "event=sync_batch result=stopped reason=Shutdown" in worker.log
    assert "Traceback" not in worker.log
    row = SyncAttempt.objects.get()
    assert (row.lease_holder, row.attempts, row.last_reason) == (None, 0, "")
    federation.alpha.usually = files.well
    worker.start()
    tasks.enqueue_missing()
    wait_for(is_stored, "the second pull", worker)


def test_a_broker_that_cannot_be_reached_costs_no_lease(federation: Federation, worker: SyncWorker) -> None:
    federation.publish("cadc:f", CONTENT)
    tick = "import django; django.setup(); from site_service.file_sync import tasks; tasks.enqueue_missing()"
    environment = worker.environment() | {"REDIS_URL": f"unix://{worker.directory}/nobody.sock"}
    done = subprocess.run(
        [sys.executable, "-c", tick], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True
    )
    assert "reason=broker" in done.stderr
    assert SyncAttempt.objects.get().lease_holder is None
