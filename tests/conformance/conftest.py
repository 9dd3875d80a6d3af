"""The stores under test: each a fresh one, and a way to open it again as another process would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from site_service.storage.contract import ArtifactStore
from site_service.storage.filesystem import FilesystemStore
from site_service.storage.memory import MemoryStore


@dataclass(frozen=True)
class StoreUnderTest:
    """`reopen` gives a store that shares no memory with the first (the memory store cannot and gives itself)."""

    name: str
    store: ArtifactStore
    reopen: Callable[[], ArtifactStore]


@pytest.fixture(params=["memory", "filesystem"])
def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    if request.param == "memory":
        memory = MemoryStore()
        yield StoreUnderTest("memory", memory, lambda: memory)
    else:
        yield StoreUnderTest(
            "filesystem", FilesystemStore.create(tmp_path / "store"), lambda: FilesystemStore(tmp_path / "store")
        )


@pytest.fixture
def store(under_test: StoreUnderTest) -> ArtifactStore:
    return under_test.store
