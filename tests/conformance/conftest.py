"""The stores under test: each a fresh one, and a way to open it again as another process would.

The object store is tested against `S3_ENDPOINT_URL` (keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) if that is set, else
against moto's server, in a process of its own so that its memory is not taken for ours.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from storages.backends.s3 import S3Storage

from site_service.storage.bucketstore import BucketStore
from site_service.storage.contract import ArtifactStore
from site_service.storage.filesystem import FilesystemStore
from site_service.storage.memory import MemoryStore
from site_service.storage.objectstore import ObjectStore, S3Bucket

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
    if configured := os.environ.get("S3_ENDPOINT_URL"):
        yield configured
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("moto's server does not listen")


@pytest.fixture(scope="session")
def s3_options(s3_endpoint: str) -> Iterator[dict[str, Any]]:
    """Options of django-storages for a bucket of this test run; removed afterwards."""
    options = {
        "bucket_name": f"conformance-{uuid.uuid4().hex}",
        "endpoint_url": s3_endpoint,
        "region_name": "us-east-1",
        "access_key": os.environ.get("AWS_ACCESS_KEY_ID", "testing"),
        "secret_key": os.environ.get("AWS_SECRET_ACCESS_KEY", "testing"),
    }
    bucket = S3Storage(**options).bucket
    bucket.create()
    yield options
    for upload in bucket.multipart_uploads.all():
        upload.abort()
    bucket.objects.all().delete()
    bucket.delete()
    bucket.meta.client.close()


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
