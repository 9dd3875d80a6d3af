"""The queue: what gets into it, in which order it is claimed, and what a lease is worth."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from pytest_django import Settings

from datamodel import operations, rows
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri, Namespace
from site_service.file_sync import attempts, scan
from site_service.file_sync.models import SyncAttempt, SyncScan
from site_service.policy.operations import set_policy
from tests.factories import artifact_row, new_content

pytestmark = pytest.mark.usefixtures("site")

CADC, PART = Namespace.parse("cadc:"), Namespace.parse("cadc:A/")


def know(uri: str, data: bytes = b"content") -> ArtifactRow:
    row = artifact_row(uri, data)
    rows.insert_artifact(row, None)
    return row


def store(uri: str) -> ArtifactRow:
    return operations.record_stored(uri=ArtifactUri.parse(uri), content=new_content(uri.encode())).artifact


def queued() -> set[str]:
    return set(SyncAttempt.objects.values_list("uri", flat=True))


def claimed(lease: uuid.UUID) -> list[str]:
    return [row.uri for row in attempts.take_up(lease=lease, holder=uuid.uuid4())]


def expire_leases() -> None:
    SyncAttempt.objects.exclude(lease_until=None).update(lease_until=rows.database_now() - timedelta(seconds=1))


def test_what_is_wanted_and_not_stored_is_queued_once() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:A/missing")
    know("gemini:unwanted")
    store("cadc:A/stored")
    assert scan.note_missing() == 1
    assert queued() == {"cadc:A/missing"}
    assert scan.note_missing() == 0


def test_news_are_found_and_what_was_read_is_not_read_again() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:old")
    scan.note_missing()
    SyncAttempt.objects.all().delete()
    know("cadc:new")
    assert scan.note_missing() == 1
    assert queued() == {"cadc:new"}


def test_a_row_that_commits_late_is_not_missed() -> None:
    set_policy(namespace=CADC, wanted=True)
    stamped, may_commit = threading.Event(), threading.Event()

    def slow_harvest() -> None:
        with transaction.atomic():
            know("cadc:late")
            stamped.set()
            may_commit.wait(30)
        connection.close()

    thread = threading.Thread(target=slow_harvest)
    thread.start()
    stamped.wait(30)
    know("cadc:early")
    scan.note_missing()
    assert queued() == {"cadc:early"}
    may_commit.set()
    thread.join()
    know("cadc:later")
    scan.note_missing()
    assert queued() == {"cadc:early", "cadc:late", "cadc:later"}


def test_a_lost_copy_is_queued_whatever_the_policy_says() -> None:
    row = store("gemini:unwanted")
    scan.note_missing()
    operations.detach_location(artifact_id=row.id)
    assert scan.note_missing() == 1
    assert SyncAttempt.objects.get().is_repair
    set_policy(namespace=CADC, wanted=True)
    scan.note_missing()
    assert queued() == {"gemini:unwanted"}


def test_a_lost_copy_that_was_already_queued_becomes_a_repair() -> None:
    set_policy(namespace=CADC, wanted=True)
    row = know("cadc:f")
    scan.note_missing()
    operations.attach_location(artifact_id=row.id, located=new_content().located)
    operations.detach_location(artifact_id=row.id)
    scan.note_missing()
    assert SyncAttempt.objects.get().is_repair


def test_pages_are_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PAGE", 3)
    set_policy(namespace=CADC, wanted=True)
    names = {f"cadc:{number}" for number in range(10)}
    for name in names:
        know(name)
    store("cadc:stored")
    assert scan.note_missing() == 10
    assert queued() == names


def test_pages_within_one_transaction_are_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PAGE", 3)
    set_policy(namespace=CADC, wanted=True)
    with transaction.atomic():
        for number in range(10):
            know(f"cadc:{number}")
    assert scan.note_missing() == 10


def test_a_scan_out_of_time_goes_on_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PAGE", 3)
    set_policy(namespace=CADC, wanted=True)
    for number in range(10):
        know(f"cadc:{number}")
    assert [scan.note_missing(seconds=-1) for _ in range(5)] == [3, 3, 3, 1, 0]


def test_a_wider_policy_finds_what_was_known_before() -> None:
    know("cadc:A/f")
    scan.note_missing()
    assert not queued()
    set_policy(namespace=CADC, wanted=True)
    assert scan.note_missing() == 1


def test_a_long_queue_is_judged_again_page_by_page_and_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PAGE", 3)
    set_policy(namespace=CADC, wanted=True)
    for number in range(7):
        know(f"cadc:A/{number}")
    scan.note_missing()
    set_policy(namespace=CADC, wanted=True, priority=5)

    def judged() -> list[bool]:
        priorities = SyncAttempt.objects.order_by("artifact_id").values_list("priority", flat=True)
        return [priority == 5 for priority in priorities]

    know("cadc:A/new")
    found = []
    for expected in (3, 6, 7):
        found.append(scan.note_missing(seconds=-1))
        assert judged() == [True] * expected + [False] * (7 - expected)
    assert found == [0, 0, 0]
    # Only then all that is known is read again, and what is new found.
    assert scan.note_missing() == 1
    assert judged() == [True] * 8


def test_a_policy_that_changes_while_the_queue_is_judged_is_what_all_of_it_is_judged_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan, "PAGE", 3)
    set_policy(namespace=CADC, wanted=True)
    for number in range(7):
        know(f"cadc:A/{number}")
    scan.note_missing()
    set_policy(namespace=CADC, wanted=True, priority=5)
    scan.note_missing(seconds=-1)
    set_policy(namespace=CADC, wanted=True, priority=6)
    scan.note_missing()
    assert set(SyncAttempt.objects.values_list("priority", flat=True)) == {6}


def test_a_narrower_policy_empties_the_queue_and_new_priorities_reach_it() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:A/f")
    know("cadc:B/f")
    scan.note_missing()
    set_policy(namespace=PART, wanted=False)
    set_policy(namespace=CADC, wanted=True, priority=5)
    scan.note_missing()
    assert list(SyncAttempt.objects.values_list("uri", "priority")) == [("cadc:B/f", 5)]


def test_another_epoch_reads_everything_again() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:f")
    scan.note_missing()
    SyncAttempt.objects.all().delete()
    SyncScan.objects.update(epoch="another", known_txid=2**60)
    assert scan.note_missing() == 1


def test_two_scans_at_once_do_not_wait_for_each_other() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:f")
    SyncScan.objects.create(id=1)
    locked, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            SyncScan.objects.select_for_update().get(id=1)
            locked.set()
            may_end.wait(30)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(30)
    assert scan.note_missing() == 0
    may_end.set()
    thread.join()
    assert scan.note_missing() == 1


def test_the_queue_is_claimed_by_priority_then_age() -> None:
    set_policy(namespace=CADC, wanted=True)
    set_policy(namespace=PART, wanted=True, priority=1)
    for uri in ("cadc:1", "cadc:A/2", "cadc:3", "cadc:A/4"):
        know(uri)
        scan.note_missing()
    (lease,) = attempts.claim(batches=1)
    assert claimed(lease) == ["cadc:A/2", "cadc:A/4", "cadc:1", "cadc:3"]


def test_a_claim_makes_batches_and_keeps_within_its_bound(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.INVENTORY_SYNC_THREADS = 3
    monkeypatch.setattr(attempts, "LEAST_BATCH_FILES", 2)
    monkeypatch.setattr(attempts, "MOST_BATCH_FILES", 2)
    set_policy(namespace=CADC, wanted=True)
    for number in range(9):
        know(f"cadc:{number}")
    scan.note_missing()
    first = attempts.claim(batches=2)
    assert len(first) == 2
    assert len(attempts.claim(batches=2)) == 1
    assert attempts.claim(batches=2) == []
    attempts.finish([row.artifact_id for row in attempts.take_up(lease=first[0], holder=uuid.uuid4())])
    assert len(attempts.claim(batches=2)) == 1


def test_few_files_are_shared_and_many_are_taken_in_large_batches(settings: Settings) -> None:
    settings.INVENTORY_SYNC_THREADS = 2
    set_policy(namespace=CADC, wanted=True)
    for number in range(130):
        know(f"cadc:{number}")
    scan.note_missing()
    leases = attempts.claim(batches=2)
    sizes = [len(attempts.take_up(lease=lease, holder=uuid.uuid4())) for lease in leases]
    assert sizes == [65, 65]


def test_two_claims_at_once_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "LEAST_BATCH_FILES", 10)
    monkeypatch.setattr(attempts, "MOST_BATCH_FILES", 10)
    set_policy(namespace=CADC, wanted=True)
    for number in range(40):
        know(f"cadc:{number}")
    scan.note_missing()
    barrier = threading.Barrier(4)
    leases: list[uuid.UUID] = []

    def run() -> None:
        barrier.wait(30)
        leases.extend(attempts.claim(batches=1))
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while more := attempts.claim(batches=1):
        leases += more
    uris = [uri for lease in leases for uri in claimed(lease)]
    assert sorted(uris) == sorted({f"cadc:{number}" for number in range(40)})


def test_a_lease_is_taken_up_once() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:f")
    scan.note_missing()
    (lease,) = attempts.claim(batches=1)
    assert claimed(lease) == ["cadc:f"]
    assert claimed(lease) == []
    assert SyncAttempt.objects.get().attempts == 1


def test_an_expired_lease_is_claimed_by_the_next_and_its_holder_has_nothing_left() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:f")
    scan.note_missing()
    (lease,) = attempts.claim(batches=1)
    holder = uuid.uuid4()
    attempts.take_up(lease=lease, holder=holder)
    assert attempts.claim(batches=1) == []
    expire_leases()
    (second,) = attempts.claim(batches=1)
    assert not attempts.renew(holder=holder)
    attempts.fail(holder=holder, artifact_id=SyncAttempt.objects.get().artifact_id, reason="x", detail="", seconds=9)
    attempts.release(holder=holder)
    assert SyncAttempt.objects.get().lease_holder == second


def test_renewing_puts_off_the_end() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:f")
    scan.note_missing()
    (lease,) = attempts.claim(batches=1)
    SyncAttempt.objects.update(lease_until=rows.database_now() + timedelta(seconds=1))
    assert attempts.renew(holder=lease)
    until = SyncAttempt.objects.get().lease_until
    assert until is not None
    assert until > rows.database_now() + timedelta(seconds=60)


def test_a_released_row_is_due_at_once_and_the_attempt_does_not_count() -> None:
    set_policy(namespace=CADC, wanted=True)
    know("cadc:f")
    scan.note_missing()
    (lease,) = attempts.claim(batches=1)
    holder = uuid.uuid4()
    attempts.take_up(lease=lease, holder=holder)
    attempts.release(holder=holder)
    assert SyncAttempt.objects.get().attempts == 0
    assert len(attempts.claim(batches=1)) == 1


def test_a_failed_row_waits_and_can_be_told_not_to() -> None:
    set_policy(namespace=CADC, wanted=True)
    row = know("cadc:f")
    scan.note_missing()
    (lease,) = attempts.claim(batches=1)
    attempts.fail(holder=lease, artifact_id=row.id, reason="no_source", detail="nobody", seconds=900)
    assert attempts.claim(batches=1) == []
    assert attempts.try_now([uuid.uuid4()]) == 0
    assert attempts.try_now() == 1
    assert len(attempts.claim(batches=1)) == 1
    kept = SyncAttempt.objects.get()
    assert (kept.last_reason, kept.last_error) == ("no_source", "nobody")


def test_the_database_refuses_half_a_lease() -> None:
    with pytest.raises(IntegrityError, match="sync_attempt_lease_whole"):
        SyncAttempt.objects.create(
            artifact_id=uuid.uuid4(),
            uri="cadc:f",
            content_length=0,
            created_at=rows.database_now(),
            next_try_at=rows.database_now(),
            lease_holder=uuid.uuid4(),
        )
