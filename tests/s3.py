"""An S3 server of this machine for tests, and buckets in it.

It is that of `S3_ENDPOINT_URL` (keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) if that is set, else moto's, in a process of
its own so that its memory is not taken for ours.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from storages.backends.s3 import S3Storage

from tests.ports import free_port


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address."""
    if configured := os.environ.get("S3_ENDPOINT_URL"):
        yield configured
        return
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def s3_bucket(endpoint: str) -> Iterator[dict[str, Any]]:
    """Options of django-storages for a new bucket; removed afterwards."""
    options = {
        "bucket_name": f"tests-{uuid.uuid4().hex}",
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "access_key": os.environ.get("AWS_ACCESS_KEY_ID", "testing"),
        "secret_key": os.environ.get("AWS_SECRET_ACCESS_KEY", "testing"),
    }
    bucket = S3Storage(**options).bucket
    bucket.create()
    try:
        yield options
    finally:
        for upload in bucket.multipart_uploads.all():
            upload.abort()
        bucket.objects.all().delete()
        bucket.delete()
        bucket.meta.client.close()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("moto's server does not listen")
