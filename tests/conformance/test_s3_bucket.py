"""The real client against a real server (see conftest): errors, conditions, listings, forgotten uploads."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from datamodel.errors import StateConflictError, StorageFullError, StorageUnavailableError, StoredObjectMissingError
from site_service.storage.contract import ByteRange, ContentFacts
from site_service.storage.objectstore import ObjectStore, S3Bucket
from tests.conformance.conftest import PART_SIZE

pytestmark = pytest.mark.xdist_group("objectstore")

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def bucket(s3_client: Any, s3_options: dict[str, Any]) -> S3Bucket:
    return S3Bucket(s3_client, s3_options["bucket_name"], f"{uuid.uuid4().hex}/")


def test_an_object_is_replaced_only_over_the_version_that_was_read(bucket: S3Bucket) -> None:
    first = bucket.put("key", b"1")
    second = bucket.put("key", b"2", replacing=first)
    with pytest.raises(StateConflictError):
        bucket.put("key", b"3", replacing=first)
    assert bucket.get("key") == (b"2", second)


def test_a_missing_object_is_not_replaced(bucket: S3Bucket) -> None:
    tag = bucket.put("key", b"1")
    bucket.delete("key")
    with pytest.raises(StateConflictError):
        bucket.put("key", b"2", replacing=tag)


def test_what_is_missing_is_none(bucket: S3Bucket) -> None:
    assert (bucket.get("key"), bucket.open("key"), bucket.length("key")) == (None, None, None)


def test_a_range_beyond_the_end_is_a_missing_object(bucket: S3Bucket) -> None:
    bucket.put("key", b"123")
    with pytest.raises(StoredObjectMissingError):
        bucket.open("key", ByteRange(10, 1))


def test_a_listing_longer_than_a_page_is_complete_and_sorted(bucket: S3Bucket) -> None:
    keys = [f"k/{number:04}" for number in range(1010)]
    for key in keys:
        bucket.put(key, b"")
    assert [listed.key for listed in bucket.list("k/")] == keys


def test_a_forgotten_upload_is_listed_with_the_time_of_its_last_part(bucket: S3Bucket) -> None:
    upload_id = bucket.begin_upload("key")
    bucket.upload_part("key", upload_id, 1, b"x" * PART_SIZE)
    (pending,) = bucket.pending_uploads()
    assert (pending.key, pending.upload_id) == ("key", upload_id)
    assert abs(datetime.now(UTC) - pending.touched_at) < timedelta(minutes=5)
    bucket.abort_upload("key", upload_id)
    assert list(bucket.pending_uploads()) == []


def test_an_upload_that_ends_while_forgotten_ones_are_looked_for_is_none_of_them(bucket: S3Bucket) -> None:
    ids = {key: bucket.begin_upload(key) for key in ("a", "b", "c")}
    pending = bucket.pending_uploads()
    assert next(pending).key == "a"
    bucket.abort_upload("b", ids["b"])
    assert [upload.key for upload in pending] == ["c"]
    for key in ("a", "a", "c"):
        bucket.abort_upload(key, ids[key])


def test_a_bucket_that_does_not_exist_is_unavailable_and_never_empty(s3_client: Any) -> None:
    lost = S3Bucket(s3_client, f"no-such-bucket-{uuid.uuid4().hex}")
    for attempt in (lambda: list(lost.list("")), lambda: lost.get("key"), lambda: lost.put("key", b"")):
        with pytest.raises(StorageUnavailableError):
            attempt()


def test_a_server_that_does_not_answer_is_unavailable(s3_options: dict[str, Any]) -> None:
    store = ObjectStore({**s3_options, "endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(StorageUnavailableError):
        list(store.iterate())
    store.bucket.client.close()


@pytest.mark.parametrize("code", ["QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"])
def test_a_quota_that_is_used_up_is_a_full_store(s3_options: dict[str, Any], code: str) -> None:
    store = ObjectStore(s3_options)
    with Stubber(store.bucket.client) as stub:
        stub.add_client_error("put_object", code, http_status_code=403)
        with pytest.raises(StorageFullError):
            store.bucket.put("key", b"")
    store.bucket.client.close()


PAGES = {
    "more without a place": [{"IsTruncated": True, "Contents": []}],
    "out of order": [{"IsTruncated": False, "Contents": ["b", "a"]}],
    "the same page again": [
        {"IsTruncated": True, "NextContinuationToken": "t", "Contents": ["a"]},
        {"IsTruncated": False, "Contents": ["a"]},
    ],
}


@pytest.mark.parametrize("name", list(PAGES))
def test_a_listing_that_cannot_be_complete_raises(s3_options: dict[str, Any], name: str) -> None:
    bucket = ObjectStore(s3_options).bucket
    with Stubber(bucket.client) as stub:
        for page in PAGES[name]:
            keys: Any = page["Contents"]
            entries = [{"Key": key, "Size": 0, "LastModified": datetime.now(UTC)} for key in keys]
            stub.add_response("list_objects_v2", {**page, "Contents": entries})
        with pytest.raises(StorageUnavailableError):
            list(bucket.list(""))
    bucket.client.close()


_CHILD = """
import json, sys, time, uuid
from django.conf import settings
settings.configure()
from site_service.storage.contract import ContentFacts
from site_service.storage.objectstore import ObjectStore

class Source:
    left = 14
    def read(self, size):
        if self.left:
            self.left -= 1
            return b"k" * 1048576
        time.sleep(1)
        print("in the middle", flush=True)
        time.sleep(60)

store = ObjectStore(json.loads(sys.argv[1]), part_size=5 * 1048576)
if sys.argv[2] == "write":
    store.write(Source(), ContentFacts(uuid.UUID(int=3), "cadc:TEST/k"))
else:
    store.append(sys.argv[2], Source())
"""


@pytest.mark.parametrize("what", ["write", "append"])
def test_a_writer_killed_in_the_middle_leaves_no_object_and_is_swept(s3_options: dict[str, Any], what: str) -> None:
    options = {**s3_options, "location": uuid.uuid4().hex}
    store = ObjectStore(options, part_size=PART_SIZE)
    key = store.begin(ContentFacts(uuid.uuid4(), "cadc:TEST/k")).transaction_id
    before = store.append(key, io.BytesIO(b"before"))
    command = [sys.executable, "-c", _CHILD, json.dumps(options), what if what == "write" else key]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"in the middle\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert list(store.iterate()) == []
    assert store.sweep_temporary(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert store.sweep_temporary(datetime.now(UTC) + timedelta(days=1)) == 1
    assert list(store.bucket.pending_uploads()) == []
    assert store.status(key) == before
    assert store.append(key, io.BytesIO(b" after")).length == len(b"before after")
    store.bucket.client.close()
