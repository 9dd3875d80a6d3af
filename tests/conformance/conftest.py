"""The stores under test: each a fresh one, and a way to open it again as another process would."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from site_service.storage.bucketstore import BucketStore
from site_service.storage.contract import ArtifactStore
from site_service.storage.filesystem import FilesystemStore
from site_service.storage.memory import MemoryStore
from site_service.storage.objectstore import ObjectStore, S3Bucket
from tests.s3 import s3_bucket, s3_server

PART_SIZE = 5 * 1024 * 1024


@dataclass(frozen=True)
class StoreUnderTest:
    """`reopen` gives a store that shares no memory with the first (the memory store cannot and gives itself)."""

    name: str
    store: ArtifactStore
    reopen: Callable[[], ArtifactStore]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    with s3_server() as address:
        yield address


@pytest.fixture(scope="session")
def s3_options(s3_endpoint: str) -> Iterator[dict[str, Any]]:
    """Options of django-storages for a bucket of this test run; removed afterwards."""
    with s3_bucket(s3_endpoint) as options:
        yield options


@pytest.fixture(scope="session")
def s3_client(s3_options: dict[str, Any]) -> Iterator[Any]:
    """One client for all tests: making one takes longer than most tests."""
    client = ObjectStore(s3_options).bucket.client
    yield client
    client.close()


# One worker has the object store's tests, so that one server is enough.
OBJECTSTORE = pytest.param("objectstore", marks=pytest.mark.xdist_group("objectstore"))


@pytest.fixture(params=["memory", "filesystem", OBJECTSTORE])
def under_test(request: pytest.FixtureRequest, tmp_path: Path) -> StoreUnderTest:
    if request.param == "memory":
        memory = MemoryStore()
        return StoreUnderTest("memory", memory, lambda: memory)
    if request.param == "filesystem":
        root = tmp_path / "store"
        return StoreUnderTest("filesystem", FilesystemStore.create(root), lambda: FilesystemStore(root))
    client, name = request.getfixturevalue("s3_client"), request.getfixturevalue("s3_options")["bucket_name"]
    bucket = S3Bucket(client, name, f"{uuid.uuid4().hex}/")

    def build() -> ArtifactStore:
        return BucketStore(bucket, content_algorithm="md5", sha256=True, part_size=PART_SIZE)

    return StoreUnderTest("objectstore", build(), build)


@pytest.fixture
def store(under_test: StoreUnderTest) -> ArtifactStore:
    return under_test.store
