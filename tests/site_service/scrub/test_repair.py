"""From damage to a good copy, through the real file sync and fakes of the other sites and the global."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta

import pytest
from django.test import Client

from datamodel import operations as model, rows
from datamodel.alarms.models import Alarm
from datamodel.models import DeletedStorageLocationEvent, ObsoleteStorageLocation, StorageLocation, StorageLocationEvent
from datamodel.uris import ArtifactUri, Namespace
from site_service.file_sync import attempts, scan as sync_scan
from site_service.file_sync.models import SyncAttempt
from site_service.policy.operations import remove_policy, set_policy
from site_service.scrub import operations, queries, scan
from site_service.scrub.models import CopyVerification, DamagedCopy
from tests.fakes import files
from tests.faults import flip_bit
from tests.site_service.file_sync.conftest import Federation, alpha, federation, gamma
from tests.site_service.files.requests import body_of
from tests.site_service.scrub.conftest import CONTENT, URI, Scrubbed

__all__ = ["alpha", "federation", "gamma"]


@pytest.fixture(autouse=True)
def _same_store(federation: Federation, scrubbed: Scrubbed) -> None:
    federation.store = scrubbed.store


def damaged(scrubbed: Scrubbed) -> uuid.UUID:
    """An artifact whose copy here rotted and was found by a scrub."""
    artifact_id = scrubbed.put()
    scrubbed.make_due()
    flip_bit(scrubbed.file_of(artifact_id), 1000)
    assert scrubbed.run().damaged == 1
    return artifact_id


@pytest.mark.parametrize("policy", ["wanted", "unruled", "excluded"])
def test_a_damaged_copy_is_repaired_whatever_the_policy_says(
    scrubbed: Scrubbed, federation: Federation, client: Client, policy: str
) -> None:
    if policy == "unruled":
        remove_policy(namespace=Namespace.parse("cadc:"))
    if policy == "excluded":
        set_policy(namespace=Namespace.parse("cadc:TEST/"), wanted=False)
    artifact_id = damaged(scrubbed)
    path = f"/files/{URI}"
    assert client.get(path).status_code == 404
    federation.alpha.hold(URI, CONTENT, artifact_id)
    federation.tick()
    assert scrubbed.is_in_service(artifact_id)
    assert body_of(client.get(path)) == CONTENT
    assert StorageLocationEvent.objects.get().id == artifact_id
    assert not DeletedStorageLocationEvent.objects.exists()
    assert scan.settle() == 1
    found = DamagedCopy.objects.get()
    assert (found.state, found.unrepairable_since) == ("repaired", None)
    assert found.storage_id != StorageLocation.objects.get().storage_id
    assert len(scrubbed.bytes_at(found.storage_id, len(CONTENT))) == len(CONTENT)
    assert not ObsoleteStorageLocation.objects.exists()


def test_small_damaged_copies_are_repaired_together(scrubbed: Scrubbed, federation: Federation) -> None:
    contents = {f"cadc:TEST/{number}": b"%d" % number * 2000 for number in range(3)}
    ids = {uri: scrubbed.put(uri, content) for uri, content in contents.items()}
    scrubbed.make_due()
    for artifact_id in ids.values():
        flip_bit(scrubbed.file_of(artifact_id), 1000)
    assert scrubbed.run().damaged == 3
    for uri, artifact_id in ids.items():
        federation.alpha.hold(uri, contents[uri], artifact_id)
    federation.tick()
    assert ([len(batch) for batch in federation.alpha.batches], federation.alpha.asked) == ([3], [])
    assert scan.settle() == 3
    for uri, artifact_id in ids.items():
        assert scrubbed.bytes_at(scrubbed.place_of(artifact_id).storage_id, 2000) == contents[uri]


def test_the_repaired_copy_is_read_back_from_the_device_at_once(scrubbed: Scrubbed, federation: Federation) -> None:
    artifact_id = damaged(scrubbed)
    federation.alpha.hold(URI, CONTENT, artifact_id)
    federation.tick()
    scan.settle()
    scan.follow(queries.configured_schedule())
    assert CopyVerification.objects.get().result == "written"
    assert scrubbed.run().files == 1
    row = CopyVerification.objects.get()
    assert (row.location_id, row.result) == (artifact_id, "read")
    assert scrubbed.run().files == 0


def test_a_change_of_policy_does_not_forget_the_repair(scrubbed: Scrubbed, federation: Federation) -> None:
    artifact_id = damaged(scrubbed)
    sync_scan.note_missing()
    assert SyncAttempt.objects.get().is_repair
    remove_policy(namespace=Namespace.parse("cadc:"))
    sync_scan.note_missing()
    federation.gamma.hold(URI, CONTENT, artifact_id)
    federation.tick()
    assert scrubbed.is_in_service(artifact_id)


def test_without_a_good_copy_anywhere_there_is_one_alarm_and_the_bytes_stay(
    scrubbed: Scrubbed, federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    artifact_id = damaged(scrubbed)
    with caplog.at_level(logging.INFO, "inventory.scrub"):
        federation.tick()
        attempts.try_now()
        federation.tick()
    assert [record.levelname for record in caplog.records if "unrepairable_copy" in record.message] == ["ERROR"]
    found = DamagedCopy.objects.get()
    assert (found.state, found.repair_reason) == ("damaged", "no_source")
    assert found.unrepairable_since is not None
    assert queries.damaged_counts() == {"damaged": 1, "unrepairable": 1, "unreadable": 0}
    assert len(scrubbed.bytes_at(found.storage_id, len(CONTENT))) == len(CONTENT)
    assert scan.tidy(retention_seconds=0) == (0, 0)
    federation.alpha.hold(URI, CONTENT, artifact_id)
    attempts.try_now()
    federation.tick()
    assert scan.settle() == 1
    assert queries.damaged_counts() == {"damaged": 0, "unrepairable": 0, "unreadable": 0}


def test_other_sites_with_damaged_bytes_too_are_an_alarm(scrubbed: Scrubbed, federation: Federation) -> None:
    artifact_id = damaged(scrubbed)
    federation.alpha.hold(URI, CONTENT, artifact_id)
    federation.alpha.usually = files.flip(77)
    federation.tick()
    assert not scrubbed.is_in_service(artifact_id)
    found = DamagedCopy.objects.get()
    assert found.repair_reason == "checksum_mismatch"
    assert found.unrepairable_since is not None
    raised = {alarm.kind: alarm.text for alarm in Alarm.objects.all()}
    assert URI in raised["no_good_copy"]
    assert URI in raised["damaged_copy"]


def test_a_site_that_cannot_be_reached_is_no_such_alarm(scrubbed: Scrubbed, federation: Federation) -> None:
    artifact_id = damaged(scrubbed)
    federation.alpha.hold(URI, CONTENT, artifact_id)
    federation.alpha.usually = files.status(503)
    federation.tick()
    found = DamagedCopy.objects.get()
    assert found.repair_reason == "remote_unavailable"
    assert found.unrepairable_since is None
    assert [alarm.kind for alarm in Alarm.objects.all()] == ["damaged_copy"]


def test_a_failed_pull_of_what_was_never_here_is_no_damage(federation: Federation) -> None:
    row = federation.publish(URI, CONTENT)
    federation.alpha.files.clear()
    federation.tick()
    assert SyncAttempt.objects.get().last_reason == "no_source"
    operations.note_failed_repair(artifact_id=row.id, reason="no_source", detail="")
    assert not DamagedCopy.objects.exists()


def test_a_put_of_the_same_content_repairs_too(scrubbed: Scrubbed) -> None:
    artifact_id = damaged(scrubbed)
    scrubbed.put()
    assert scrubbed.is_in_service(artifact_id)
    assert scan.settle() == 1
    assert DamagedCopy.objects.get().state == "repaired"


@pytest.mark.parametrize("ruin", ["unlink", "truncate"])
def test_a_get_that_finds_nothing_takes_the_copy_out(
    scrubbed: Scrubbed, federation: Federation, client: Client, ruin: str
) -> None:
    artifact_id = scrubbed.put()
    file = scrubbed.file_of(artifact_id)
    if ruin == "unlink":
        file.unlink()
    else:
        file.write_bytes(CONTENT[:-1])
    path = f"/files/{URI}"
    first = client.get(path)
    assert first.status_code == 503
    assert first.json()["code"] == "stored_object_missing"
    assert not scrubbed.is_in_service(artifact_id)
    found = DamagedCopy.objects.get()
    assert (found.found_by, found.finding) == ("get", "missing" if ruin == "unlink" else "length")
    assert client.get(path).status_code == 404
    assert client.head(path).status_code == 404
    federation.alpha.hold(URI, CONTENT, artifact_id)
    federation.tick()
    assert body_of(client.get(path)) == CONTENT


def test_a_get_from_an_unmounted_disk_takes_nothing_out(scrubbed: Scrubbed, client: Client) -> None:
    artifact_id = scrubbed.put()
    scrubbed.root.rename(scrubbed.root.with_name("away"))
    assert client.get(f"/files/{URI}").status_code == 503
    assert scrubbed.is_in_service(artifact_id)
    assert not DamagedCopy.objects.exists()


def test_a_copy_may_be_damaged_again(scrubbed: Scrubbed, federation: Federation) -> None:
    artifact_id = damaged(scrubbed)
    federation.alpha.hold(URI, CONTENT, artifact_id)
    federation.tick()
    scan.settle()
    scrubbed.make_due()
    flip_bit(scrubbed.file_of(artifact_id), 5)
    assert scrubbed.run().damaged == 1
    federation.tick()
    scan.settle()
    assert [row.state for row in DamagedCopy.objects.all()] == ["repaired", "repaired"]
    assert scrubbed.is_in_service(artifact_id)


def test_what_is_deleted_while_it_is_damaged_is_gone(scrubbed: Scrubbed, federation: Federation) -> None:
    artifact_id = damaged(scrubbed)
    federation.alpha.hold(URI, CONTENT, artifact_id)
    sync_scan.note_missing()
    model.delete_artifact(uri=ArtifactUri.parse(URI))
    federation.tick()
    assert scan.settle() == 1
    assert DamagedCopy.objects.get().state == "gone"
    assert rows.database_now() - DamagedCopy.objects.get().state_at < timedelta(minutes=1)
