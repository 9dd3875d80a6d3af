"""The database is lost: a fresh one, and the store alone, bring the inventory back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import connection

from datamodel import operations as model
from datamodel.embedded import EmbeddedServers
from datamodel.models import Artifact, DeletedArtifactEvent, RetiredArtifact, StorageLocation
from datamodel.rows import database_now, insert_tombstone
from datamodel.uris import ArtifactUri
from site_service.file_validate import runs
from site_service.file_validate.models import QuarantinedObject
from site_service.file_validate.rules import Policy
from tests.factories import artifact_row, insert_artifact_row
from tests.faults import flip_bit
from tests.site_service.file_validate.conftest import Site

PROJECT = Path(__file__).parents[3]
RECOVER = Policy.RECOVER_FROM_STORAGE
FACTS = (
    "a.id, a.uri, a.uri_bucket, a.content_checksum, a.content_length, a.content_type, a.content_encoding, "
    "a.content_sha256, l.storage_id, l.storage_bucket"
)
KNOWN_SQL = f"SELECT {FACTS} FROM artifact a LEFT JOIN storage_location l ON l.artifact_id = a.id ORDER BY a.uri"


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery goes through a store in 4096 steps, however small it is; who runs the command does here, too."""
    monkeypatch.setattr(runs, "_MOST_DIGITS", 2)


@pytest.fixture
def fresh_database(servers: EmbeddedServers, transactional_db: None) -> Iterator[str]:
    """The URL of an empty database; dropped afterwards."""
    name = "recovered"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield urlsplit(servers.environment["DATABASE_URL"])._replace(path=f"/{name}").geturl()
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def manage(database_url: str, place: Site, *arguments: str) -> str:
    environment = os.environ | {
        "INVENTORY_ROLE": "site",
        "DATABASE_URL": database_url,
        "INVENTORY_STORAGE_DIR": str(place.root),
        "INVENTORY_SECRET_KEY": "for-tests-only-" + "x" * 40,
    }
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_fresh_database_over_the_same_store_knows_everything_again(place: Site, fresh_database: str) -> None:
    for number in range(12):
        place.put(f"cadc:TEST/{number}.fits", b"x" * number, content_type="application/fits")
    place.put("cadc:TEST/%C3%A4.txt", b"names", content_type="text/plain", content_encoding="gzip")
    place.put("cadc:TEST/replaced", b"first")
    place.put("cadc:TEST/replaced", b"second")
    with connection.cursor() as cursor:
        cursor.execute(KNOWN_SQL)
        before = cursor.fetchall()
    manage(fresh_database, place, "provision")
    arguments = ("validate_files", "--policy", "RecoverFromStorage", "--apply")
    assert "create_artifact" in manage(fresh_database, place, *arguments)
    manage(fresh_database, place, *arguments)
    with psycopg.connect(fresh_database) as recovered:
        after = recovered.execute(KNOWN_SQL).fetchall()
        assert [tuple(row) for row in after] == [tuple(row) for row in before]
        wrong = recovered.execute(
            "SELECT count(*) FROM artifact WHERE meta_checksum <> artifact_meta_checksum(id, uri, uri_bucket, "
            "content_checksum, content_last_modified, content_length, content_type, content_encoding)"
        ).fetchone()
        assert wrong == (0,)
    assert len(before) == 14
    assert "14 stored artifacts, 15 objects" in manage(fresh_database, place, "validate_files")


def lose_everything() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE artifact, storage_location, retired_artifact, deleted_artifact_event, storage_location_event, "
            "deleted_storage_location_event, obsolete_storage_location, validation_run, validation_finding CASCADE"
        )


def test_of_two_contents_of_one_uri_the_newer_one_is_recovered_in_whatever_order_they_are_found(place: Site) -> None:
    for number in range(6):
        place.put(f"cadc:TEST/{number}", b"first")
    newer = {place.put(f"cadc:TEST/{number}", b"second")[0].id for number in range(6)}
    lose_everything()
    for _ in range(2):
        place.run(RECOVER)
        place.apply()
    assert set(Artifact.objects.values_list("id", flat=True)) == newer
    assert StorageLocation.objects.count() == 6


def test_what_peers_say_was_deleted_stays_deleted(place: Site) -> None:
    row, stored = place.put()
    lose_everything()
    insert_tombstone(row.id, row.uri, deleted_at=database_now())
    place.run(RECOVER)
    assert place.found() == [("deleted-artifact", "retire_object", stored.storage_id)]
    assert [applied.reason for applied in place.apply()] == ["retired"]
    assert not Artifact.objects.exists()
    kept = RetiredArtifact.objects.get()
    assert (kept.id, kept.storage_id, kept.state) == (row.id, stored.storage_id, "retained")
    assert place.run(RECOVER).counts == {"valid": 1}
    assert DeletedArtifactEvent.objects.get().id == row.id


def test_a_second_copy_of_what_was_deleted_later_is_no_new_artifact_but_asked_about(place: Site) -> None:
    """Content put twice, then deleted, and the service died before the second bytes knew whose they are."""
    row, _ = place.put()
    second = place.write()
    lose_everything()
    insert_tombstone(row.id, row.uri, deleted_at=database_now())
    place.run(RECOVER)
    assert ("deleted-later", "quarantine_object", second.storage_id) in place.found()
    place.apply()
    assert not Artifact.objects.exists()
    assert QuarantinedObject.objects.get().storage_id == second.storage_id


def test_of_two_copies_of_what_was_put_twice_one_comes_back_and_none_is_lost(place: Site) -> None:
    row, first = place.put()
    _, second = place.put()
    lose_everything()
    place.run(RECOVER)
    place.apply()
    assert Artifact.objects.get().id == row.id
    there = {first.storage_id, second.storage_id}
    assert StorageLocation.objects.get().storage_id in there
    assert {one.storage_id for one in place.store.iterate()} == there


def test_both_copies_of_what_was_put_twice_and_then_deleted_stay_out_of_service_and_are_kept(place: Site) -> None:
    row, first = place.put()
    _, second = place.put()
    lose_everything()
    insert_tombstone(row.id, row.uri, deleted_at=database_now())
    place.run(RECOVER)
    place.apply()
    place.run(RECOVER)
    place.apply()
    assert not Artifact.objects.exists()
    assert RetiredArtifact.objects.get().id == row.id
    assert {one.storage_id for one in place.store.iterate()} == {first.storage_id, second.storage_id}


def test_what_was_put_after_a_deletion_comes_back(place: Site) -> None:
    gone, _ = place.put()
    model.delete_artifact(uri=ArtifactUri(gone.uri))
    row, _ = place.put()
    lose_everything()
    insert_tombstone(gone.id, gone.uri, deleted_at=gone.content_last_modified)
    place.run(RECOVER)
    place.apply()
    assert Artifact.objects.get().id == row.id


def test_what_peers_know_already_gets_its_bytes_back_under_their_row(place: Site) -> None:
    row, stored = place.put()
    lose_everything()
    insert_artifact_row(row)
    place.run(RECOVER)
    assert place.found() == [("null-storageLocation", "attach_location", stored.storage_id)]
    place.apply()
    assert Artifact.objects.get().content_last_modified == row.content_last_modified
    assert StorageLocation.objects.get().storage_id == stored.storage_id


def test_bytes_of_a_uri_that_peers_know_by_another_id_belong_to_that(place: Site) -> None:
    place.put()
    lose_everything()
    winner = artifact_row()
    insert_artifact_row(winner)
    place.run(RECOVER)
    place.apply()
    assert StorageLocation.objects.get().artifact_id == winner.id
    assert place.run(RECOVER).counts == {"valid": 1}


def test_recovery_takes_nothing_away(place: Site) -> None:
    _, lost = place.put("cadc:TEST/lost")
    _, damaged = place.put("cadc:TEST/damaged")
    place.store.remove(lost.storage_id)
    flip_bit(place.path(damaged).with_suffix(".json"), 9)
    place.run(RECOVER)
    assert {action for _, action, _ in place.found()} == {"none"}
    assert StorageLocation.objects.count() == 2


def test_a_recovered_row_gives_way_to_the_one_that_a_peer_kept(place: Site) -> None:
    """The store knows when bytes were written, a moment before their row: whoever has the row has the later word."""
    row, _ = place.put()
    lose_everything()
    place.run(RECOVER)
    place.apply()
    recovered = Artifact.objects.get()
    assert recovered.id == row.id
    assert recovered.meta_modified_at <= row.meta_modified_at
    model.delete_artifact(uri=ArtifactUri(row.uri))
    place.run(RECOVER)
    assert place.found() == []
