"""From STORAGES["artifacts"] to a store."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from datamodel.errors import NotConfiguredError, ReadOnlyError
from site_service.storage import registry
from site_service.storage.contract import ArtifactStore, ContentFacts
from site_service.storage.filesystem import FilesystemStore
from site_service.storage.memory import MemoryStore
from site_service.storage.objectstore import ObjectStore

FACTS = ContentFacts(uuid.UUID(int=1), "cadc:TEST/a")
FILESYSTEM = "site_service.storage.filesystem.FilesystemStore"
MEMORY = "site_service.storage.memory.MemoryStore"
S3 = "storages.backends.s3.S3Storage"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    registry.get_store.cache_clear()
    yield
    registry.get_store.cache_clear()


def test_a_file_system_store_is_made_once_and_then_only_opened(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with override_settings(STORAGES={"artifacts": {"BACKEND": FILESYSTEM, "OPTIONS": {"root": root, "sha256": False}}}):
        with pytest.raises(NotConfiguredError):
            registry.get_store()
        registry.create_store()
        store = registry.get_store()
        assert isinstance(store, FilesystemStore)
        assert store is registry.get_store()
        stored = store.write(io.BytesIO(b""), FACTS)
        assert set(stored.checksums) == {"md5"}
        registry.create_store()
        assert list(registry.get_store().iterate()) == [stored]


def test_the_backend_of_django_storages_becomes_the_object_store() -> None:
    options = {"bucket_name": "b", "region_name": "us-east-1", "location": "site/a", "part_size": 32 * 1024 * 1024}
    store = registry.build_store({"BACKEND": S3, "OPTIONS": options})
    assert isinstance(store, ObjectStore)
    assert store.capabilities.max_length == 32 * 1024 * 1024 * 10_000
    store.bucket.client.close()


WRONG: dict[str, Any] = {
    "unknown option": {"BACKEND": MEMORY, "OPTIONS": {"colour": "blue"}},
    "unknown class": {"BACKEND": "site_service.storage.memory.Nothing"},
    "unknown module": {"BACKEND": "site_service.storage.nothing.Store"},
    "a plain storage": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "unknown option of django-storages": {"BACKEND": S3, "OPTIONS": {"colour": "blue"}},
    "parts too short": {"BACKEND": S3, "OPTIONS": {"bucket_name": "b", "part_size": 1}},
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_configuration_that_describes_no_store_is_refused(name: str) -> None:
    with pytest.raises(NotConfiguredError):
        registry.build_store(WRONG[name])


def test_a_missing_entry_is_refused() -> None:
    with override_settings(STORAGES={}), pytest.raises(NotConfiguredError):
        registry.get_store()


CHANGES: dict[str, Callable[[ArtifactStore], object]] = {
    "write": lambda store: store.write(io.BytesIO(b""), FACTS),
    "set_facts": lambda store: store.set_facts("x", FACTS),
    "remove": lambda store: store.remove("x"),
    "begin": lambda store: store.begin(FACTS),
    "append": lambda store: store.append("x", io.BytesIO(b"")),
    "revert": lambda store: store.revert("x"),
    "commit": lambda store: store.commit("x", FACTS),
    "abort": lambda store: store.abort("x"),
    "sweep": lambda store: store.sweep_temporary(datetime.now(UTC)),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_read_only_store_refuses_whatever_would_change_it(name: str) -> None:
    store = registry.build_store({"BACKEND": MEMORY, "OPTIONS": {"read_only": True}})
    with pytest.raises(ReadOnlyError):
        CHANGES[name](store)


def test_a_read_only_store_can_be_read(tmp_path: Path) -> None:
    stored = FilesystemStore.create(tmp_path).write(io.BytesIO(b"abc"), FACTS)
    configuration = {"BACKEND": FILESYSTEM, "OPTIONS": {"root": tmp_path, "read_only": True}}
    store = registry.build_store(configuration)
    reader = store.open(stored.storage_id, expected_length=3)
    assert reader.read() == b"abc"
    reader.close()
    assert (store.stat(stored.storage_id), list(store.iterate())) == (stored, [stored])
    assert store.capabilities.is_local
    assert store.free_space().free
    assert store.stale_transactions(datetime.now(UTC)) == []


def test_the_memory_store_is_configurable_too() -> None:
    assert isinstance(registry.build_store({"BACKEND": MEMORY}), MemoryStore)
