"""Copies are read back in their turn; bad ones leave service at once, with their bytes kept, whoever dies in between."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from pytest_django import Settings

from datamodel import operations as model, rows
from datamodel.alarms.models import Alarm
from datamodel.errors import StorageUnavailableError
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    DeletedStorageLocationEvent,
    ObsoleteStorageLocation,
    RetiredArtifact,
    StorageLocation,
)
from datamodel.queries import artifact_by_id
from datamodel.uris import ArtifactUri
from site_service.file_validate.rules import Policy
from site_service.file_validate.survey import survey_bucket
from site_service.scrub import leases, operations, queries, scan
from site_service.scrub.models import CopyVerification, DamagedCopy, ScrubOutcome, ScrubPolicy, ScrubProgress
from site_service.scrub.operations import carry_run
from site_service.scrub.reading import Pace
from site_service.storage.contract import ArtifactStore, ByteRange, Readable
from tests.faults import Crash, flip_bit
from tests.site_service.scrub.conftest import CONTENT, URI, Scrubbed, no_beat

DAY = 24 * 3600


def damage_a_bit(scrubbed: Scrubbed, artifact_id: uuid.UUID) -> None:
    flip_bit(scrubbed.file_of(artifact_id), len(CONTENT) // 2)


def truncate(scrubbed: Scrubbed, artifact_id: uuid.UUID) -> None:
    os.truncate(scrubbed.file_of(artifact_id), len(CONTENT) - 1)


def lengthen(scrubbed: Scrubbed, artifact_id: uuid.UUID) -> None:
    with scrubbed.file_of(artifact_id).open("ab") as file:
        file.write(b"x")


def delete(scrubbed: Scrubbed, artifact_id: uuid.UUID) -> None:
    scrubbed.file_of(artifact_id).unlink()


Damage = Callable[[Scrubbed, uuid.UUID], None]
DAMAGES: list[tuple[Damage, str]] = [
    (damage_a_bit, "digest"),
    (truncate, "length"),
    (lengthen, "length"),
    (delete, "missing"),
]


def test_a_put_counts_as_verified_when_it_was_stored_without_a_row(scrubbed: Scrubbed) -> None:
    artifact_id = scrubbed.put()
    assert not CopyVerification.objects.exists()
    (copy,) = queries.verified_copies([URI, "cadc:TEST/other"])
    assert (copy.artifact_id, copy.content_length) == (artifact_id, len(CONTENT))
    assert copy.verified_at == StorageLocation.objects.get().stored_at


def test_the_record_follows_the_feed_and_a_repeat_changes_nothing(scrubbed: Scrubbed) -> None:
    ids = {scrubbed.put(f"cadc:TEST/{number}", b"%d" % number) for number in range(5)}
    schedule = queries.configured_schedule()
    assert scan.follow(schedule) == 5
    assert set(CopyVerification.objects.values_list("location_id", flat=True)) == ids
    assert scan.follow(schedule) == 0
    late = scrubbed.put("cadc:TEST/late")
    assert scan.follow(schedule) == 1
    assert CopyVerification.objects.filter(location_id=late).count() == 1


def test_a_long_feed_is_read_in_pages(scrubbed: Scrubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PAGE", 2)
    for number in range(5):
        scrubbed.put(f"cadc:TEST/{number}", b"%d" % number)
    assert scan.follow(queries.configured_schedule(), seconds=0) == 2
    assert scan.follow(queries.configured_schedule()) == 3


def test_a_good_copy_is_read_and_has_its_next_time(scrubbed: Scrubbed, settings: Settings) -> None:
    settings.INVENTORY_SCRUB_PERIOD_SECONDS = 90 * DAY
    scrubbed.put()
    scrubbed.make_due()
    before = CopyVerification.objects.get()
    result = scrubbed.run()
    assert (result.files, result.bytes, result.damaged) == (1, len(CONTENT), 0)
    row = CopyVerification.objects.get()
    assert row.result == "read"
    assert row.verified_at > before.verified_at
    assert row.next_at is not None
    assert row.verified_at < row.next_at <= row.verified_at + timedelta(days=90, seconds=1)
    assert ScrubOutcome.objects.get(result="read").bytes == len(CONTENT)
    assert [copy.verified_at for copy in queries.verified_copies([URI])] == [row.verified_at]
    assert scrubbed.run().files == 0


def test_a_reading_touches_no_harvested_row(scrubbed: Scrubbed) -> None:
    scrubbed.put()
    before = (Artifact.objects.values().get(), StorageLocation.objects.values().get())
    scrubbed.make_due()
    assert scrubbed.run().files == 1
    assert (Artifact.objects.values().get(), StorageLocation.objects.values().get()) == before


@pytest.mark.parametrize(("damage", "finding"), DAMAGES)
def test_a_bad_copy_leaves_service_with_an_event_and_keeps_its_bytes(
    scrubbed: Scrubbed, damage: Damage, finding: str
) -> None:
    good, bad = scrubbed.put("cadc:TEST/good"), scrubbed.put()
    scrubbed.make_due()
    located, file = scrubbed.place_of(bad), scrubbed.file_of(bad)
    damage(scrubbed, bad)
    kept = file.read_bytes() if file.exists() else None
    result = scrubbed.run()
    assert (result.files, result.damaged) == (2, 1)
    assert scrubbed.is_in_service(good)
    assert not scrubbed.is_in_service(bad)
    assert DeletedStorageLocationEvent.objects.get().id == bad
    assert not DeletedArtifactEvent.objects.exists()
    found = DamagedCopy.objects.get()
    assert (found.artifact_id, found.finding, found.state) == (bad, finding, "damaged")
    assert (found.found_by, found.storage_id) == ("scrub", located.storage_id)
    assert found.last_verified_at < found.found_at
    assert (file.read_bytes() if file.exists() else None) == kept
    assert not ObsoleteStorageLocation.objects.exists()
    assert [copy.artifact_id for copy in queries.verified_copies([URI, "cadc:TEST/good"])] == [good]
    assert CopyVerification.objects.get().location_id == good


def test_a_flipped_bit_is_seen_by_both_digests(scrubbed: Scrubbed) -> None:
    bad = scrubbed.put()
    scrubbed.make_due()
    damage_a_bit(scrubbed, bad)
    scrubbed.run()
    detail = DamagedCopy.objects.get().detail
    assert "md5" in detail
    assert "sha-256" in detail


def test_an_unmounted_disk_takes_nothing_out_of_service(scrubbed: Scrubbed) -> None:
    ids = [scrubbed.put(f"cadc:TEST/{number}") for number in range(5)]
    scrubbed.make_due()
    scrubbed.root.rename(scrubbed.root.with_name("elsewhere"))
    result = scrubbed.run()
    assert result.damaged == 0
    assert result.unreadable == 3
    assert result.is_ended_early
    assert all(scrubbed.is_in_service(one) for one in ids)
    assert queries.damaged_counts()["unreadable"] == 3
    assert [alarm.kind for alarm in Alarm.objects.all()] == ["unreadable_store"]
    scrubbed.root.with_name("elsewhere").rename(scrubbed.root)
    scrubbed.make_due()
    assert scrubbed.run().files == 5
    assert queries.damaged_counts()["unreadable"] == 0


def test_an_unreadable_copy_stays_in_service_and_is_tried_again_later(
    scrubbed: Scrubbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = scrubbed.put(), scrubbed.put("cadc:TEST/good")
    scrubbed.make_due()
    sick, well = scrubbed.place_of(bad).storage_id, scrubbed.store
    verified = CopyVerification.objects.get(location_id=bad).verified_at
    scrubbed.store = _SickStore(well, sick)  # type: ignore[assignment]  # opens, and nothing else is asked of it
    result = scrubbed.run()
    assert (result.files, result.unreadable) == (1, 1)
    assert scrubbed.is_in_service(bad)
    row = CopyVerification.objects.get(location_id=bad)
    assert (row.result, row.failures, row.verified_at) == ("unreadable", 1, verified)
    assert row.next_at is not None
    assert row.next_at > rows.database_now() + timedelta(minutes=50)
    assert CopyVerification.objects.get(location_id=good).result == "read"


class _SickStore:
    """One object gives EIO."""

    def __init__(self, store: ArtifactStore, sick: str) -> None:
        self._store = store
        self._sick = sick
        self.capabilities = store.capabilities

    def open(
        self,
        storage_id: str,
        *,
        expected_length: int,
        byte_range: ByteRange | None = None,
        drop_behind: bool = False,
    ) -> Readable:
        if storage_id == self._sick:
            raise StorageUnavailableError("the store could not read: Input/output error")
        return self._store.open(
            storage_id, expected_length=expected_length, byte_range=byte_range, drop_behind=drop_behind
        )


def test_the_longest_unverified_is_read_first(scrubbed: Scrubbed) -> None:
    ids = [scrubbed.put(f"cadc:TEST/{number}", b"%d" % number) for number in range(4)]
    scrubbed.make_due()
    now = rows.database_now()
    for age, artifact_id in zip((2, 9, 5, 7), ids, strict=True):
        CopyVerification.objects.filter(location_id=artifact_id).update(verified_at=now - timedelta(days=age))
    run = operations.begin_run(seconds=60)
    assert run is not None
    assert run.artifact_ids == [ids[1], ids[3], ids[2], ids[0]]


def test_the_budget_of_a_tick_bounds_what_is_sent(scrubbed: Scrubbed, settings: Settings) -> None:
    for number in range(4):
        scrubbed.put(f"cadc:TEST/{number}")
    scrubbed.make_due()
    settings.INVENTORY_SCRUB_BYTES_PER_SECOND = len(CONTENT) * 3 // 60
    run = operations.begin_run(seconds=60)
    assert run is not None
    assert len(run.artifact_ids) == 2


def test_a_rule_of_the_table_says_otherwise_for_its_namespace(scrubbed: Scrubbed) -> None:
    never, ever = scrubbed.put("cadc:NEVER/a"), scrubbed.put("cadc:TEST/a")
    scrubbed.make_due()
    ScrubPolicy.objects.create(namespace="cadc:NEVER/", period_seconds=0)
    schedule = queries.configured_schedule()
    assert scan.follow(schedule) > 0
    row = CopyVerification.objects.get(location_id=never)
    assert (row.namespace, row.next_at) == ("cadc:NEVER/", None)
    scrubbed.make_due(ever)
    run = operations.begin_run(seconds=60)
    assert run is not None
    assert run.artifact_ids == [ever]
    ScrubPolicy.objects.all().delete()
    scan.follow(queries.configured_schedule())
    row.refresh_from_db()
    assert row.namespace == ""
    assert row.next_at is not None


def test_outside_its_hours_a_rule_reads_nothing(scrubbed: Scrubbed) -> None:
    scrubbed.put()
    hour = rows.database_now().hour
    ScrubPolicy.objects.create(
        namespace="cadc:", period_seconds=DAY, from_hour=(hour + 2) % 24, until_hour=(hour + 3) % 24
    )
    scrubbed.make_due()
    assert operations.begin_run(seconds=60) is None
    ScrubPolicy.objects.update(from_hour=hour, until_hour=(hour + 2) % 24)
    assert operations.begin_run(seconds=60) is not None


def test_one_reads_at_a_time_and_a_message_that_comes_twice_does_nothing(scrubbed: Scrubbed) -> None:
    scrubbed.put()
    scrubbed.make_due()
    run = operations.begin_run(seconds=60)
    assert run is not None
    assert operations.begin_run(seconds=60) is None
    store = scrubbed.store
    assert carry_run(lease=run.lease, artifact_ids=run.artifact_ids, store=store) is not None
    assert carry_run(lease=run.lease, artifact_ids=run.artifact_ids, store=store) is None
    assert carry_run(lease=uuid.uuid4(), artifact_ids=run.artifact_ids, store=store) is None
    assert ScrubOutcome.objects.get(result="read").files == 1


def test_a_run_that_died_is_chosen_again_when_its_lease_is_over(scrubbed: Scrubbed) -> None:
    artifact_id = scrubbed.put()
    scrubbed.make_due()
    first = operations.begin_run(seconds=60)
    assert first is not None
    assert leases.take_up(lease=first.lease, holder=uuid.uuid4())
    assert operations.begin_run(seconds=60) is None
    ScrubProgress.objects.update(lease_until=rows.database_now() - timedelta(seconds=1))
    assert carry_run(lease=first.lease, artifact_ids=first.artifact_ids, store=scrubbed.store) is None
    second = operations.begin_run(seconds=60)
    assert second is not None
    assert second.artifact_ids == [artifact_id]


class _DyingPace(Pace):
    """The process dies after so many steps of reading."""

    def __init__(self, steps: int) -> None:
        super().__init__(beat=no_beat)
        self._steps = steps

    def spend(self, count: int, bytes_per_second: int) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise Crash


@pytest.mark.parametrize("step", range(7))
def test_a_crash_in_the_middle_loses_nothing(scrubbed: Scrubbed, step: int) -> None:
    """Three files of one block each take two steps each, and the second is bad."""
    ids = [scrubbed.put(f"cadc:TEST/{number}") for number in range(3)]
    scrubbed.make_due()
    damage_a_bit(scrubbed, ids[1])
    run = operations.begin_run(seconds=60)
    assert run is not None
    has_crashed = False
    try:
        carry_run(lease=run.lease, artifact_ids=ids, store=scrubbed.store, pace=_DyingPace(step))
    except Crash:
        has_crashed = True
    assert has_crashed == (step < 6)
    scrubbed.run()
    assert not scrubbed.is_in_service(ids[1])
    assert DamagedCopy.objects.count() == 1
    assert DeletedStorageLocationEvent.objects.count() == 1
    assert set(CopyVerification.objects.values_list("location_id", "result")) == {(ids[0], "read"), (ids[2], "read")}


@pytest.mark.parametrize(
    "statement", ["DELETE FROM storage_location", "damaged_copy", "deleted_storage_location_event"]
)
def test_taking_out_is_whole_or_not_at_all(scrubbed: Scrubbed, statement: str) -> None:
    bad = scrubbed.put()
    scrubbed.make_due()
    damage_a_bit(scrubbed, bad)
    seen = []

    def die(execute: Callable[..., object], sql: str, params: object, many: bool, context: object) -> object:
        result = execute(sql, params, many, context)
        is_read = sql.lstrip().startswith(("SELECT", "WITH")) and f"INSERT INTO {statement}" not in sql
        if statement in sql and not is_read:
            seen.append(sql)
            raise Crash
        return result

    with connection.execute_wrapper(die), pytest.raises(Crash):
        scrubbed.run()
    assert seen
    assert scrubbed.is_in_service(bad)
    assert not DamagedCopy.objects.exists()
    assert not DeletedStorageLocationEvent.objects.exists()
    ScrubProgress.objects.update(lease_holder=None, lease_until=None)
    assert scrubbed.run().damaged == 1
    assert not scrubbed.is_in_service(bad)


def test_two_who_find_the_same_damage_take_it_out_once(scrubbed: Scrubbed) -> None:
    bad = scrubbed.put()
    known = artifact_by_id(bad)
    assert known is not None
    assert known.location is not None
    scrubbed.file_of(bad).unlink()
    answers: list[bool] = []

    def report() -> None:
        assert known is not None
        assert known.location is not None
        answers.append(operations.report_missing(artifact=known.artifact, located=known.location, store=scrubbed.store))
        connection.close()

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False, False, False, True]
    assert DamagedCopy.objects.count() == 1


def test_a_copy_that_was_replaced_while_it_was_read_is_left_alone(scrubbed: Scrubbed) -> None:
    old = scrubbed.put()
    known = artifact_by_id(old)
    assert known is not None
    assert known.location is not None
    scrubbed.file_of(old).unlink()
    scrubbed.put(content=b"newer")
    assert not operations.report_missing(artifact=known.artifact, located=known.location, store=scrubbed.store)
    assert not DamagedCopy.objects.exists()
    assert not DeletedStorageLocationEvent.objects.exists()


def test_a_file_that_is_there_is_not_reported(scrubbed: Scrubbed) -> None:
    artifact_id = scrubbed.put()
    known = artifact_by_id(artifact_id)
    assert known is not None
    assert known.location is not None
    assert not operations.report_missing(artifact=known.artifact, located=known.location, store=scrubbed.store)
    assert scrubbed.is_in_service(artifact_id)


def test_bytes_that_come_back_from_retention_are_no_better_than_they_were(scrubbed: Scrubbed) -> None:
    first = scrubbed.put()
    scan.follow(queries.configured_schedule())
    long_ago = rows.database_now() - timedelta(days=400)
    CopyVerification.objects.update(verified_at=long_ago)
    model.delete_artifact(uri=ArtifactUri.parse(URI))
    assert CopyVerification.objects.get().location_id is None
    assert scan.tidy(retention_seconds=0) == (0, 0)
    again = model.undelete_artifact(retired_id=first).artifact.id
    assert again != first
    (copy,) = queries.verified_copies([URI])
    assert (copy.artifact_id, copy.verified_at) == (again, long_ago)
    scan.follow(queries.configured_schedule())
    kept = CopyVerification.objects.get()
    assert (kept.location_id, kept.verified_at) == (again, long_ago)


def test_the_record_of_removed_bytes_goes(scrubbed: Scrubbed) -> None:
    scrubbed.put()
    scan.follow(queries.configured_schedule())
    model.delete_artifact(uri=ArtifactUri.parse(URI))
    RetiredArtifact.objects.update(state="purged")
    assert scan.tidy(retention_seconds=0) == (1, 0)
    assert not CopyVerification.objects.exists()


def test_damaged_bytes_of_what_was_deleted_are_given_up_after_the_retention_time(scrubbed: Scrubbed) -> None:
    bad = scrubbed.put()
    located = scrubbed.place_of(bad)
    scrubbed.make_due()
    damage_a_bit(scrubbed, bad)
    scrubbed.run()
    assert scan.settle() == 0
    assert scan.tidy(retention_seconds=0) == (0, 0)
    model.delete_artifact(uri=ArtifactUri.parse(URI))
    assert scan.settle() == 1
    assert DamagedCopy.objects.get().state == "gone"
    assert scan.tidy(retention_seconds=DAY) == (0, 0)
    assert scan.tidy(retention_seconds=0) == (0, 1)
    assert DamagedCopy.objects.get().state == "released"
    assert ObsoleteStorageLocation.objects.get().storage_id == located.storage_id
    assert scan.tidy(retention_seconds=0) == (0, 0)


def test_damaged_bytes_of_what_lived_twice_are_given_up_too(scrubbed: Scrubbed) -> None:
    """The history still names their place, for the first life."""
    first = scrubbed.put()
    model.delete_artifact(uri=ArtifactUri.parse(URI))
    again = model.undelete_artifact(retired_id=first).artifact.id
    located = scrubbed.place_of(again)
    scrubbed.make_due()
    damage_a_bit(scrubbed, again)
    scrubbed.run()
    model.delete_artifact(uri=ArtifactUri.parse(URI))
    assert scan.settle() == 1
    scan.tidy(retention_seconds=0)
    assert DamagedCopy.objects.get().state == "released"
    assert ObsoleteStorageLocation.objects.get().storage_id == located.storage_id


def test_a_file_that_an_operator_put_back_is_in_service_again_if_it_is_right(scrubbed: Scrubbed) -> None:
    lost = scrubbed.put()
    file = scrubbed.file_of(lost)
    scrubbed.make_due()
    aside = file.with_name("aside")
    content = file.read_bytes()
    file.rename(aside)
    scrubbed.run()
    damaged = DamagedCopy.objects.get()
    assert queries.waiting_damaged() == [damaged.id]
    assert not operations.recheck(damaged_id=damaged.id, store=scrubbed.store)
    file.write_bytes(b"x" * len(content))
    assert not operations.recheck(damaged_id=damaged.id, store=scrubbed.store)
    assert not scrubbed.is_in_service(lost)
    file.write_bytes(content)
    aside.unlink()
    assert operations.recheck(damaged_id=damaged.id, store=scrubbed.store)
    assert scrubbed.is_in_service(lost)
    assert not DeletedStorageLocationEvent.objects.exists()
    assert scan.settle() == 1
    assert DamagedCopy.objects.get().state == "repaired"
    assert not operations.recheck(damaged_id=damaged.id, store=scrubbed.store)
    assert scan.tidy(retention_seconds=0) == (0, 0)
    assert not ObsoleteStorageLocation.objects.exists()


def test_validation_leaves_damaged_bytes_alone(scrubbed: Scrubbed) -> None:
    """Their recorded facts are right, only the bytes are not: to attach them again would serve what is known to be bad."""
    bad = scrubbed.put()
    scrubbed.make_due()
    damage_a_bit(scrubbed, bad)

    def labels() -> set[str]:
        policy = Policy.INVENTORY_IS_ALWAYS_RIGHT
        survey = survey_bucket(store=scrubbed.store, policy=policy, bucket="", grace=timedelta(0))
        return {difference.verdict.label.value for difference in survey.differences}

    assert scrubbed.run().damaged == 1
    assert labels() == set()
    DamagedCopy.objects.all().delete()
    assert labels() == {"null-storageLocation"}
