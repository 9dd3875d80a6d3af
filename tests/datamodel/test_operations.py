"""The writes of the shared model, on the real database."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from datamodel import operations, queries, rows
from datamodel.content import artifact_of
from datamodel.errors import ArtifactNotFoundError, PreconditionFailedError
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    DeletedStorageLocationEvent,
    ObsoleteStorageLocation,
    RetiredArtifact,
    StorageLocation,
    StorageLocationEvent,
)
from datamodel.operations import Preconditions, Recorded, Superseded
from datamodel.queries import KnownArtifact
from datamodel.rules import MILLISECOND, Located, PutMeaning, truncate_to_millis
from datamodel.uris import ArtifactUri
from tests.factories import WHEN, artifact_row, new_content

pytestmark = pytest.mark.usefixtures("inventory")

URI = ArtifactUri.parse("cadc:TEST/file.fits")


def test_new_content_becomes_an_artifact_with_its_location() -> None:
    content = new_content(b"one")
    recorded = operations.record_stored(uri=URI, content=content)
    known = queries.artifact_by_uri(URI.value)
    assert known is not None
    assert known.artifact == recorded.artifact
    assert known.location == content.located
    assert recorded.meaning is PutMeaning.CREATE
    assert known.artifact.id == content.artifact_id
    assert known.artifact.content_sha256 == content.content_sha256
    assert Artifact.objects.get().txid == recorded.txid


def put_elsewhere(data: bytes) -> Recorded:
    try:
        return operations.record_stored(uri=URI, content=new_content(data))
    finally:
        connection.close()


def await_waiter(locktype: str = "advisory") -> None:
    deadline = time.monotonic() + 20
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = %s AND NOT granted", [locktype])
            if cursor.fetchone() != (0,):
                return
    raise AssertionError("nobody waits for the lock")


@pytest.mark.parametrize(("is_there", "meaning"), [(True, PutMeaning.REPLACE), (False, PutMeaning.CREATE)])
def test_new_content_that_waited_for_another_writer_goes_by_what_that_one_did(
    is_there: bool, meaning: PutMeaning
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            operations.lock_uri(URI)
            waiting = pool.submit(put_elsewhere, b"two")
            await_waiter()
            content = new_content(b"one")
            now = datetime.now(UTC)
            rows.insert_artifact(artifact_of(URI, content, when=truncate_to_millis(now), now=now), content.located)
            if not is_there:
                rows.retire_artifacts([content.artifact_id], died_at=now)
        recorded = waiting.result(20)
    assert recorded.meaning is meaning
    assert Artifact.objects.get().id == recorded.artifact.id
    assert queries.artifact_by_uri(URI.value) == KnownArtifact(
        recorded.artifact, Located(*StorageLocation.objects.values_list("storage_id", "storage_bucket").get())
    )


def test_new_content_of_a_uri_that_came_without_its_lock_replaces_it() -> None:
    """A harvest inserts without it: then the one statement finds the uri taken when it is too late, and the long way begins."""
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            content = new_content(b"one")
            now = datetime.now(UTC)
            rows.insert_artifact(artifact_of(URI, content, when=truncate_to_millis(now), now=now), content.located)
            waiting = pool.submit(put_elsewhere, b"two")
            await_waiter("transactionid")
        assert waiting.result(20).meaning is PutMeaning.REPLACE
    assert Artifact.objects.count() == StorageLocation.objects.count() == RetiredArtifact.objects.count() == 1


def with_failing_statement(monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("the one statement") from cause

    monkeypatch.setattr(rows, "create_artifact", fail)


def test_a_deadlock_of_the_one_statement_is_made_good_by_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    with_failing_statement(monkeypatch, psycopg.errors.DeadlockDetected())
    assert operations.record_stored(uri=URI, content=new_content(b"one")).meaning is PutMeaning.CREATE
    assert Artifact.objects.count() == 1


def test_a_database_that_fails_the_one_statement_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row may have been written: whoever sent it must not go on as if it had not."""
    with_failing_statement(monkeypatch, psycopg.errors.LockNotAvailable())
    with pytest.raises(OperationalError):
        operations.record_stored(uri=URI, content=new_content(b"one"))
    assert Artifact.objects.count() == 0


def test_other_content_replaces_the_artifact_and_retires_the_old_bytes() -> None:
    first = operations.record_stored(uri=URI, content=new_content(b"one")).artifact
    second = operations.record_stored(uri=URI, content=new_content(b"two"))
    assert second.meaning is PutMeaning.REPLACE
    assert second.artifact.id != first.id
    assert second.artifact.content_last_modified > first.content_last_modified
    assert DeletedArtifactEvent.objects.get().id == first.id
    assert RetiredArtifact.objects.get().id == first.id
    assert StorageLocation.objects.get().artifact_id == second.artifact.id


def test_identical_content_keeps_the_artifact_and_makes_the_old_bytes_obsolete() -> None:
    before, again = new_content(b"one"), new_content(b"one")
    first = operations.record_stored(uri=URI, content=before)
    second = operations.record_stored(uri=URI, content=again)
    assert second.meaning is PutMeaning.REAFFIRM
    assert second.artifact == first.artifact
    assert Artifact.objects.get().reaffirmed_at is not None
    assert StorageLocation.objects.get().storage_id == again.located.storage_id
    assert ObsoleteStorageLocation.objects.get().storage_id == before.located.storage_id
    assert Artifact.objects.get().txid == second.txid
    assert not DeletedArtifactEvent.objects.exists()


def test_identical_content_of_a_known_unstored_artifact_is_attached_with_an_event() -> None:
    row = artifact_row(data=b"one")
    rows.insert_artifact(row, None)
    recorded = operations.record_stored(uri=URI, content=new_content(b"one"))
    assert recorded.meaning is PutMeaning.ATTACH
    assert recorded.artifact.id == row.id
    assert StorageLocationEvent.objects.get().id == row.id
    assert Artifact.objects.get().txid == recorded.txid


def test_replacement_is_later_than_what_the_token_names_even_if_this_clock_is_behind() -> None:
    other = artifact_row(content_last_modified=WHEN.replace(year=2099))
    superseded = Superseded(other.id, other.content_last_modified)
    recorded = operations.record_stored(uri=URI, content=new_content(), superseded=superseded)
    assert recorded.artifact.content_last_modified == other.content_last_modified + MILLISECOND
    assert DeletedArtifactEvent.objects.get().id == other.id


@pytest.mark.parametrize(
    ("exists", "preconditions", "holds"),
    [
        (False, Preconditions(if_none_match=("*",)), True),
        (True, Preconditions(if_none_match=("*",)), False),
        (False, Preconditions(if_match=("*",)), False),
        (True, Preconditions(if_match=("*",)), True),
        (True, Preconditions(if_match=('"md5:no"',)), False),
    ],
)
def test_preconditions_decide_before_anything_changes(
    *, exists: bool, preconditions: Preconditions, holds: bool
) -> None:
    if exists:
        operations.record_stored(uri=URI, content=new_content(b"one"))
    before = set(Artifact.objects.values_list("id", flat=True))
    if holds:
        operations.record_stored(uri=URI, content=new_content(b"two"), preconditions=preconditions)
        assert set(Artifact.objects.values_list("id", flat=True)) != before
    else:
        with pytest.raises(PreconditionFailedError):
            operations.record_stored(uri=URI, content=new_content(b"two"), preconditions=preconditions)
        assert set(Artifact.objects.values_list("id", flat=True)) == before


def test_detached_location_is_news_and_attaching_again_takes_it_back() -> None:
    artifact = operations.record_stored(uri=URI, content=new_content()).artifact
    located = operations.detach_location(artifact_id=artifact.id)
    assert located is not None
    assert DeletedStorageLocationEvent.objects.get().id == artifact.id
    assert operations.attach_location(artifact_id=artifact.id, located=located) is not None
    assert not DeletedStorageLocationEvent.objects.exists()
    assert StorageLocationEvent.objects.get().id == artifact.id


def test_bytes_that_came_second_become_obsolete() -> None:
    artifact = operations.record_stored(uri=URI, content=new_content()).artifact
    second = new_content().located
    assert operations.attach_location(artifact_id=artifact.id, located=second) is None
    assert ObsoleteStorageLocation.objects.get().storage_id == second.storage_id
    assert StorageLocation.objects.count() == 1


def test_attaching_the_same_bytes_twice_does_not_make_them_obsolete() -> None:
    content = new_content()
    artifact = operations.record_stored(uri=URI, content=content).artifact
    assert operations.attach_location(artifact_id=artifact.id, located=content.located) is None
    assert not ObsoleteStorageLocation.objects.exists()


def test_delete_leaves_a_tombstone_and_the_bytes_for_the_retention_time() -> None:
    artifact = operations.record_stored(uri=URI, content=new_content()).artifact
    operations.delete_artifact(uri=URI)
    assert not Artifact.objects.exists()
    assert DeletedArtifactEvent.objects.get().id == artifact.id
    assert RetiredArtifact.objects.get().state == "retained"
    with pytest.raises(ArtifactNotFoundError):
        operations.delete_artifact(uri=URI)


def test_update_changes_metadata_once_and_not_again() -> None:
    first = operations.record_stored(uri=URI, content=new_content()).artifact
    changed = operations.update_artifact(uri=URI, content_type="text/plain", content_encoding=None).artifact
    assert changed.id == first.id
    assert changed.meta_checksum != first.meta_checksum
    assert changed.last_modified > first.last_modified
    txid = Artifact.objects.get().txid
    again = operations.update_artifact(uri=URI, content_type="text/plain", content_encoding=None)
    assert again.artifact == changed
    assert again.txid == 0, "nobody may wait for a transaction that never shows in the feed"
    assert Artifact.objects.get().txid == txid


def test_two_first_puts_at_once_both_succeed_and_one_replaces_the_other() -> None:
    barrier = threading.Barrier(2)
    results = []

    def put(data: bytes) -> None:
        barrier.wait()
        results.append(operations.record_stored(uri=URI, content=new_content(data)).meaning)
        connection.close()

    threads = [threading.Thread(target=put, args=(data,)) for data in (b"one", b"two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(meaning.value for meaning in results) == ["created", "replaced"]
    assert Artifact.objects.count() == StorageLocation.objects.count() == 1
