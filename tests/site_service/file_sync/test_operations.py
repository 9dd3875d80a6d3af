"""Pulling files end to end: the real queue, locator, download, store and model, against fake sites and a fake global."""

from __future__ import annotations

import hashlib
import logging
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from pytest_django import Settings

from datamodel import operations, queries, rows
from datamodel.errors import StorageFullError
from datamodel.models import (
    Artifact,
    ObsoleteStorageLocation,
    RemoteInventory,
    StorageLocation,
    StorageLocationEvent,
)
from datamodel.sealing import seal
from datamodel.uris import ArtifactUri, Namespace
from site_service.file_sync import attempts, operations as sync_operations, scan
from site_service.file_sync.models import SyncAttempt, SyncOutcome
from site_service.file_sync.operations import BatchResult, claim_batches, sync_batch
from site_service.policy.operations import remove_policy, set_policy
from site_service.storage.contract import ContentFacts, ContentSource, ExpectedContent, FreeSpace, StoredObject
from site_service.storage.memory import MemoryStore
from tests.factories import new_content
from tests.fakes import files
from tests.fakes.files import FakeGlobal, Fault, running
from tests.site_service.file_sync.conftest import CONTENT, Federation

URI = "cadc:TEST/file.fits"


def stored_content(federation: Federation, uri: str = URI) -> bytes:
    known = queries.artifact_by_uri(uri)
    assert known is not None
    assert known.location is not None
    store = federation.store
    with_length = store.open(known.location.storage_id, expected_length=known.artifact.content_length)
    return with_length.read()


def attempt() -> SyncAttempt:
    return SyncAttempt.objects.get()


def make_due() -> None:
    attempts.try_now()
    SyncAttempt.objects.exclude(lease_until=None).update(lease_until=rows.database_now() - timedelta(seconds=1))


def test_a_missing_file_is_pulled_and_its_arrival_is_news(federation: Federation) -> None:
    row = federation.publish(URI, CONTENT)
    assert federation.tick() == [BatchResult(stored=1, stored_bytes=len(CONTENT))]
    assert stored_content(federation) == CONTENT
    assert StorageLocationEvent.objects.get().id == row.id
    assert not SyncAttempt.objects.exists()
    assert [(one.reason, one.files, one.bytes) for one in SyncOutcome.objects.all()] == [("stored", 1, len(CONTENT))]


def test_an_arrival_takes_a_new_place_in_the_feed(federation: Federation) -> None:
    row = federation.publish(URI, CONTENT)
    before = Artifact.objects.get().txid
    federation.tick()
    assert Artifact.objects.get().txid > before
    assert Artifact.objects.get().meta_checksum == row.meta_checksum


def test_the_store_keeps_the_facts_of_the_artifact(federation: Federation) -> None:
    row = federation.publish(URI, CONTENT)
    federation.tick()
    stored = federation.store.stat(StorageLocation.objects.get().storage_id)
    assert isinstance(stored, StoredObject)
    assert stored.facts == ContentFacts(row.id, URI, row.content_type, row.content_encoding)


def test_a_batch_negotiates_once(federation: Federation) -> None:
    uris = [f"cadc:{number}" for number in range(20)]
    for uri in uris:
        federation.publish(uri, uri.encode())
    assert federation.tick() == [BatchResult(stored=20, stored_bytes=sum(map(len, uris)))]
    assert [sorted(call) for call in federation.inventory.calls] == [sorted(uris)]
    assert all(stored_content(federation, uri) == uri.encode() for uri in uris)


def test_an_empty_file_is_pulled_too(federation: Federation) -> None:
    federation.publish(URI, b"")
    federation.tick()
    assert stored_content(federation) == b""


def test_an_unknown_sha256_is_filled_in_and_a_known_one_is_verified(federation: Federation) -> None:
    row = federation.publish(URI, CONTENT)
    Artifact.objects.update(content_sha256=None)
    federation.tick()
    assert bytes(Artifact.objects.get().content_sha256 or b"") == hashlib.sha256(CONTENT).digest()
    other = federation.publish("cadc:other", CONTENT)
    Artifact.objects.filter(id=other.id).update(content_sha256=b"x" * 32)
    federation.tick()
    assert attempt().last_reason == "checksum_mismatch"
    assert StorageLocation.objects.get().artifact_id == row.id


SURVIVED: list[tuple[str, Fault]] = [
    ("cut midway", files.cut(len(CONTENT) // 2)),
    ("flipped bit", files.flip(1000)),
    ("not found", files.status(404)),
    ("forbidden", files.status(403)),
    ("broken", files.status(500)),
    ("wrong digest header", files.header("Digest", "md5=1B2M2Y8AsgTpgAmY7PhCfg==")),
    ("shorter file", files.shorter(3)),
]


@pytest.mark.parametrize("fault", [case[1] for case in SURVIVED], ids=[case[0] for case in SURVIVED])
def test_a_bad_source_is_survived_by_a_good_one(federation: Federation, fault: Fault) -> None:
    federation.publish(URI, CONTENT, federation.alpha, federation.gamma)
    federation.alpha.usually = fault
    assert federation.tick() == [BatchResult(stored=1, stored_bytes=len(CONTENT))]
    assert stored_content(federation) == CONTENT


def test_bytes_that_no_source_has_right_are_never_stored(federation: Federation) -> None:
    federation.publish(URI, CONTENT, federation.alpha, federation.gamma)
    federation.alpha.usually = federation.gamma.usually = files.flip(7)
    assert federation.tick() == [BatchResult(failed=1)]
    assert not StorageLocation.objects.exists()
    assert list(federation.store.iterate()) == []
    assert attempt().last_reason == "checksum_mismatch"
    assert (len(federation.alpha.asked), len(federation.gamma.asked)) == (1, 1)


FAILED: list[tuple[str, Fault, str, float]] = [
    ("gone everywhere", files.status(404), "remote_refused", 5),
    ("down for now", files.status(503), "remote_unavailable", 1),
    ("another artifact", files.header("x-artifact-id", "00000000-0000-0000-0000-000000000000"), "remote_protocol", 5),
]


@pytest.mark.parametrize(
    ("fault", "reason", "seconds"), [case[1:] for case in FAILED], ids=[case[0] for case in FAILED]
)
def test_a_failure_is_recorded_with_its_reason_and_its_next_try(
    federation: Federation, fault: Fault, reason: str, seconds: float
) -> None:
    federation.publish(URI, CONTENT)
    federation.alpha.usually = fault
    assert federation.tick() == [BatchResult(failed=1)]
    row = attempt()
    assert (row.last_reason, row.attempts, row.lease_holder) == (reason, 1, None)
    assert "alpha" in row.last_error
    assert row.last_tried_at is not None
    waited = (row.next_try_at - row.last_tried_at).total_seconds()
    assert seconds <= waited < seconds * 2 + 1
    assert federation.tick() == []
    federation.alpha.usually = files.well
    make_due()
    assert federation.tick() == [BatchResult(stored=1, stored_bytes=len(CONTENT))]


def test_a_file_that_the_global_does_not_know_waits_for_news(federation: Federation) -> None:
    federation.publish(URI, CONTENT)
    del federation.alpha.files[URI]
    assert federation.tick() == [BatchResult(failed=1)]
    assert attempt().last_reason == "no_source"
    assert "no artifact" in attempt().last_error


def test_a_file_that_was_replaced_elsewhere_is_not_pulled_under_the_old_id(federation: Federation) -> None:
    federation.publish(URI, CONTENT)
    federation.alpha.hold(URI, b"newer", new_content().artifact_id)
    assert federation.tick() == [BatchResult(failed=1)]
    assert "it was replaced" in attempt().last_error
    assert not federation.alpha.asked


def test_this_site_never_asks_itself(federation: Federation, settings: Settings) -> None:
    settings.INVENTORY_PUBLIC_URL = federation.alpha.url
    federation.publish(URI, CONTENT, federation.alpha, federation.gamma)
    federation.tick()
    assert not federation.alpha.asked
    assert stored_content(federation) == CONTENT


def test_without_a_global_nothing_is_counted_against_the_files(federation: Federation) -> None:
    federation.publish(URI, CONTENT)
    federation.inventory.statuses.append(503)
    assert federation.tick() == [BatchResult(is_blocked=True)]
    row = attempt()
    assert (row.attempts, row.lease_holder, row.last_reason) == (0, None, "remote_unavailable")
    make_due()
    assert federation.tick() == [BatchResult(stored=1, stored_bytes=len(CONTENT))]


@pytest.mark.parametrize(("token", "reason"), [("wrong", "remote_refused"), ("global-token", "stored")])
def test_the_globals_token_is_what_was_sealed(federation: Federation, token: str, reason: str) -> None:
    federation.publish(URI, CONTENT)
    RemoteInventory.objects.update(token=seal(token.encode()))
    federation.tick()
    assert (SyncOutcome.objects.filter(reason=reason) or SyncAttempt.objects.filter(last_reason=reason)).exists()


def test_the_next_global_is_asked_when_one_is_down_or_does_not_know(federation: Federation) -> None:
    second = FakeGlobal([federation.alpha, federation.gamma])
    with running(second):
        RemoteInventory.objects.create(name="z", role="global", url=second.url, token=seal(second.token.encode()))
        federation.publish(URI, CONTENT)
        federation.inventory.statuses.append(500)
        assert federation.tick() == [BatchResult(stored=1, stored_bytes=len(CONTENT))]
        federation.inventory.sites = [federation.gamma]
        federation.publish("cadc:known-to-the-second", b"2")
        federation.publish("cadc:known-to-both", b"3", federation.alpha, federation.gamma)
        assert federation.tick() == [BatchResult(stored=2, stored_bytes=2)]


def test_a_disabled_global_is_not_asked(federation: Federation) -> None:
    federation.publish(URI, CONTENT)
    RemoteInventory.objects.update(enabled=False)
    assert federation.tick() == [BatchResult(is_blocked=True)]
    assert not federation.inventory.calls
    assert "no global is configured" in attempt().last_error


def test_a_site_that_cannot_be_reached_does_not_cost_every_file_its_timeout(federation: Federation) -> None:
    for number in range(9):
        federation.publish(f"cadc:{number}", b"x", federation.alpha, federation.gamma)
    federation.alpha.usually = files.status(503)
    assert federation.tick() == [BatchResult(stored=9, stored_bytes=9)]
    assert len(federation.alpha.asked) == 1
    federation.publish("cadc:a", b"x")
    federation.publish("cadc:b", b"x")
    federation.publish("cadc:c", b"x")
    assert federation.tick() == [BatchResult(failed=3)]
    assert len(federation.alpha.asked) == 3


def test_one_bad_file_does_not_keep_the_others(federation: Federation) -> None:
    for number in range(5):
        federation.publish(f"cadc:{number}", b"%d" % number)
    gone = files.status(404)
    # Asked for with the others, and then alone.
    federation.alpha.faults.extend([files.well, files.well, gone, files.well, files.well, gone])
    assert federation.tick() == [BatchResult(stored=4, stored_bytes=4, failed=1)]


def test_an_artifact_deleted_while_it_comes_leaves_obsolete_bytes_and_nothing_attached(federation: Federation) -> None:
    federation.publish(URI, CONTENT)

    def delete() -> None:
        operations.delete_artifact(uri=ArtifactUri.parse(URI))
        connection.close()

    federation.alpha.faults.append(files.midway(delete))
    assert federation.tick() == [BatchResult()]
    assert not StorageLocation.objects.exists()
    assert not StorageLocationEvent.objects.exists()
    assert ObsoleteStorageLocation.objects.count() == 1
    assert not SyncAttempt.objects.exists()
    assert SyncOutcome.objects.get().reason == "obsolete"


def test_an_artifact_replaced_here_while_it_comes_keeps_its_new_content(federation: Federation) -> None:
    federation.publish(URI, CONTENT)
    newer = new_content(b"newer")

    def replace() -> None:
        operations.record_stored(uri=ArtifactUri.parse(URI), content=newer)
        connection.close()

    federation.alpha.faults.append(files.midway(replace))
    federation.tick()
    assert StorageLocation.objects.get().storage_id == newer.located.storage_id
    assert ObsoleteStorageLocation.objects.count() == 1


def test_two_workers_on_one_artifact_store_it_once(federation: Federation) -> None:
    federation.publish(URI, CONTENT)

    def second_worker() -> None:
        make_due()
        assert federation.tick() == [BatchResult(stored=1, stored_bytes=len(CONTENT))]
        connection.close()

    federation.alpha.faults.append(files.midway(second_worker))
    assert federation.tick() == [BatchResult()]
    assert stored_content(federation) == CONTENT
    assert ObsoleteStorageLocation.objects.count() == 1
    assert StorageLocationEvent.objects.count() == 1


def test_a_worker_that_lost_its_lease_stops_and_leaves_the_row_to_the_other(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_operations, "_RENEW_SECONDS", 0.0)
    federation.publish("cadc:1", CONTENT * 20)
    federation.publish("cadc:2", CONTENT * 20)
    others: list[uuid.UUID] = []

    def take_over() -> None:
        # The worker renews without pause: its renewal may hold the rows, or come in between.
        while not others:
            make_due()
            others.extend(attempts.claim(batches=1))
        connection.close()

    federation.alpha.faults.append(files.midway(take_over))
    assert federation.tick() == [BatchResult(failed=1)]
    assert len(federation.alpha.asked) == 1
    assert set(SyncAttempt.objects.values_list("lease_holder", flat=True)) == set(others)
    assert SyncOutcome.objects.get().reason == "race_lost"
    assert not StorageLocation.objects.exists()


@pytest.mark.parametrize("what", ["deleted", "stored", "unwanted"])
def test_what_needs_no_bytes_any_more_costs_no_request(federation: Federation, what: str) -> None:
    row = federation.publish(URI, CONTENT)
    lease = claim_after_scan()
    if what == "deleted":
        operations.delete_artifact(uri=ArtifactUri.parse(URI))
    elif what == "stored":
        operations.attach_location(artifact_id=row.id, located=new_content(CONTENT).located)
    else:
        operations.detach_location(artifact_id=row.id)
        remove_policy(namespace=Namespace.parse("cadc:"))
        rows.insert_artifact(row, None)
    assert sync_batch(lease=lease, store=federation.store) == BatchResult()
    assert not SyncAttempt.objects.exists()
    assert not federation.inventory.calls


def claim_after_scan() -> uuid.UUID:
    scan.note_missing()
    (lease,) = attempts.claim(batches=1)
    return lease


def test_a_lost_copy_is_repaired_although_the_policy_does_not_want_it(federation: Federation) -> None:
    federation.publish(URI, CONTENT)
    federation.tick()
    lost = operations.detach_location(artifact_id=StorageLocation.objects.get().artifact_id)
    assert lost is not None
    set_policy(namespace=Namespace.parse("cadc:"), wanted=False)
    assert federation.tick() == [BatchResult(stored=1, stored_bytes=len(CONTENT))]


def test_narrowing_stops_the_pull_and_widening_brings_it_back(federation: Federation) -> None:
    row = federation.publish(URI, CONTENT)
    change = set_policy(namespace=Namespace.parse("cadc:TEST/"), wanted=False)
    assert change.dropped == 1
    assert federation.tick() == []
    remove_policy(namespace=Namespace.parse("cadc:TEST/"))
    rows.insert_artifact(row, None)
    assert federation.tick() == [BatchResult(stored=1, stored_bytes=len(CONTENT))]


class FullStore(MemoryStore):
    """Tells how much is free."""

    free: int | None = None

    def free_space(self) -> FreeSpace:
        return FreeSpace(total=10**12, free=self.free)


def test_below_the_free_space_mark_nothing_is_claimed_until_there_is_room(
    federation: Federation, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.INVENTORY_SYNC_FREE_BYTES = 1000
    store = FullStore()
    federation.publish(URI, CONTENT)
    federation.store = store
    scan.note_missing()
    store.free = 999
    assert claim_batches(batches=1, store=store) == []
    assert caplog.records[-1].__dict__["facts"]["reason"] == "no_free_space"
    store.free = 1000 + len(CONTENT)
    (lease,) = claim_batches(batches=1, store=store)
    assert sync_batch(lease=lease, store=store) == BatchResult(stored=1, stored_bytes=len(CONTENT))
    assert sync_batch(lease=lease, store=store) is None


def test_a_file_that_would_not_fit_above_the_mark_waits_while_smaller_ones_come(
    federation: Federation, settings: Settings
) -> None:
    settings.INVENTORY_SYNC_FREE_BYTES = 1000
    store = FullStore()
    store.free = 1000 + 100
    federation.store = store
    federation.publish("cadc:large", b"x" * 101)
    federation.publish("cadc:small", b"x" * 100)
    assert federation.tick() == [BatchResult(stored=1, stored_bytes=100, failed=1)]
    assert attempt().last_reason == "no_free_space"
    assert attempt().uri == "cadc:large"


class BrokenStore(MemoryStore):
    """Runs out of space, or breaks in a way nobody foresaw."""

    error: Exception = StorageFullError("no space left")

    def write(
        self, content: ContentSource, facts: ContentFacts, expected: ExpectedContent | None = None
    ) -> StoredObject:
        raise self.error


def test_a_store_that_fails_blocks_the_batch_and_the_rest_is_given_back(federation: Federation) -> None:
    federation.store = BrokenStore()
    for number in range(3):
        federation.publish(f"cadc:{number}", b"x")
    assert federation.tick() == [BatchResult(failed=1, is_blocked=True)]
    assert sorted(SyncAttempt.objects.values_list("last_reason", "attempts", "lease_holder")) == [
        ("", 0, None),
        ("", 0, None),
        ("storage_full", 1, None),
    ]


def test_an_error_of_ours_is_recorded_raised_and_leaves_no_lease(federation: Federation) -> None:
    store = BrokenStore()
    store.error = ZeroDivisionError("surprise")
    federation.store = store
    federation.publish("cadc:0", b"x")
    federation.publish("cadc:1", b"x")
    with pytest.raises(ZeroDivisionError):
        federation.tick()
    assert sorted(SyncAttempt.objects.values_list("last_reason", "lease_holder")) == [("", None), ("unexpected", None)]


def test_one_end_line_says_how_it_went(federation: Federation, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="inventory.sync")
    row = federation.publish(URI, CONTENT, federation.alpha, federation.gamma)
    federation.alpha.usually = files.status(404)
    federation.tick()
    (line,) = [record for record in caplog.records if record.getMessage() == "END event=sync"]
    facts = line.__dict__["facts"]
    assert (facts["artifact"], facts["uri"], facts["bytes"]) == (row.id, URI, len(CONTENT))
    assert (facts["sources"], facts["result"], facts["reason"]) == ("alpha,gamma", "ok", "stored")


def test_a_checksum_of_an_unknown_kind_is_not_pulled_blindly(federation: Federation) -> None:
    federation.publish(URI, CONTENT)
    Artifact.objects.update(content_checksum="adler:0123", content_sha256=None)
    assert federation.tick() == [BatchResult(failed=1)]
    assert attempt().last_reason == "no_digest"
