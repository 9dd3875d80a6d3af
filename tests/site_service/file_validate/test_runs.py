"""Report-only runs: what is found, that nothing else changes, and how they go on after whatever breaks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import Settings

from datamodel import operations as model
from datamodel.alarms.models import Alarm
from datamodel.errors import (
    DatabaseUnavailableError,
    InvalidRequestError,
    RaceLostError,
    StorageUnavailableError,
)
from datamodel.models import Artifact, DeletedStorageLocationEvent, RetiredArtifact, StorageLocation
from datamodel.rules import Located
from datamodel.uris import ArtifactUri
from site_service.file_validate import queries, runs
from site_service.file_validate.merge import Placed
from site_service.file_validate.models import QuarantinedObject, ValidationFinding, ValidationRun
from site_service.file_validate.rules import Policy
from site_service.file_validate.survey import survey_bucket
from site_service.file_validate.surveyors import surveyor_of
from site_service.scrub.operations import take_out
from site_service.scrub.reading import Verdict
from site_service.scrub.rules import Finding
from site_service.storage.contract import ArtifactStore, InvalidObject, ListedObject, ListingEnd, StoredObject
from tests.factories import artifact_row, insert_artifact_row
from tests.faults import Crash, CutListing, LossyListing, flip_bit
from tests.plans import nodes
from tests.site_service.file_validate.conftest import INVENTORY, NOW, Site

DAY = timedelta(days=1)


def test_a_sound_site_has_no_findings(place: Site) -> None:
    for number in range(20):
        place.put(f"cadc:TEST/{number}")
    run = place.run()
    assert (run.artifacts, run.objects_seen, run.bytes_seen, run.counts) == (20, 20, 140, {"valid": 20})
    assert run.finished_at is not None
    assert place.found() == []


def test_a_run_reports_who_what_why_and_how_many_bytes_and_changes_nothing(place: Site) -> None:
    lost, lost_object = place.put("cadc:TEST/lost", b"lost")
    _, damaged = place.put("cadc:TEST/damaged", b"damaged")
    orphan = place.write("cadc:TEST/orphan", b"orphan!")
    other, old = place.put("cadc:TEST/other", b"other"), place.write("cadc:TEST/other", b"older")
    place.store.remove(lost_object.storage_id)
    flip_bit(place.path(damaged).with_suffix(".json"), 5)
    rows = set(StorageLocation.objects.values_list("artifact_id", "storage_id"))
    run = place.run()
    assert sorted(place.found()) == sorted(
        [
            ("no-matching-storageLocation", "clear_location", lost_object.storage_id),
            ("invalid-storageLocation", "clear_and_quarantine", damaged.storage_id),
            ("no-matching-artifact", "quarantine_object", orphan.storage_id),
            ("old-storageLocation", "quarantine_object", old.storage_id),
        ]
    )
    row = ValidationFinding.objects.get(label="no-matching-storageLocation")
    assert (row.artifact_id, row.uri, row.content_length) == (lost.id, "cadc:TEST/lost", 4)
    row = ValidationFinding.objects.get(label="no-matching-artifact")
    assert (row.artifact_id, row.uri, row.content_length) == (orphan.facts.artifact_id, "cadc:TEST/orphan", 7)
    assert "md5:" in row.detail
    assert run.counts["valid"] == 1
    assert "differ in 4 places" in Alarm.objects.get(kind="validation_differences").text
    assert set(StorageLocation.objects.values_list("artifact_id", "storage_id")) == rows
    assert other[0].id in {artifact for artifact, _ in rows}
    assert not QuarantinedObject.objects.exists()
    assert not DeletedStorageLocationEvent.objects.exists()


def test_what_is_mended_meanwhile_is_no_finding_of_the_next_run(place: Site) -> None:
    orphan = place.write()
    place.run()
    first = ValidationFinding.objects.get()
    place.run()
    again = ValidationFinding.objects.get()
    assert (again.id, again.first_seen_at) == (first.id, first.first_seen_at)
    assert again.seen_at > first.seen_at
    assert again.run_id != first.run_id
    place.record(orphan)
    place.run()
    assert not ValidationFinding.objects.exists()


def test_bytes_that_other_rows_account_for_are_no_findings(place: Site) -> None:
    row, _ = place.put()
    model.delete_artifact(uri=ArtifactUri(row.uri))
    spare = place.write("cadc:TEST/spare")
    model.mark_obsolete(located=Located(spare.storage_id, spare.storage_bucket))
    assert RetiredArtifact.objects.exists()
    assert place.run().counts == {"valid": 2}
    assert place.found() == []


@pytest.mark.parametrize("policy", list(Policy))
def test_bytes_that_scrub_found_bad_never_come_back_as_content(place: Site, policy: Policy) -> None:
    row, stored = place.put()
    located = Located(stored.storage_id, stored.storage_bucket)
    verdict = Verdict(Finding.DIGEST, "its md5 is another one")
    assert take_out(artifact=row, located=located, verdict=verdict, found_by="scrub")
    place.run(policy)
    assert place.found() == []


def test_whoever_keeps_bytes_without_an_artifact_says_so_in_the_settings(place: Site, settings: Settings) -> None:
    spare = place.write("cadc:TEST/spare")
    model.mark_obsolete(located=Located(spare.storage_id, spare.storage_bucket))
    place.run()
    assert place.found() == []
    settings.INVENTORY_BYTES_KEPT_BY = [("obsolete_storage_location", "k.storage_id <> k.storage_id")]
    place.run()
    assert [label for label, _, _ in place.found()] == ["no-matching-artifact"]


def test_young_objects_are_left_alone_for_the_grace_time(place: Site) -> None:
    orphan = place.write()
    assert place.run(grace=DAY).counts == {"valid": 0, "delay": 1}
    assert place.found() == [("delay", "none", orphan.storage_id)]
    place.run()
    assert place.found() == [("no-matching-artifact", "quarantine_object", orphan.storage_id)]


def test_an_object_that_tells_no_time_is_young_when_it_is_first_seen(place: Site) -> None:
    orphan = place.write()
    place.path(orphan).with_suffix(".json").unlink()
    place.run()
    assert place.found() == [("delay", "none", orphan.storage_id)]
    place.run(grace=DAY)
    assert place.found() == [("delay", "none", orphan.storage_id)]
    place.run()
    assert place.found() == [("invalid-storageLocation", "quarantine_object", orphan.storage_id)]


class PutDuringListing:
    """A store during whose listing a file is put, after its part was read."""

    def __init__(self, place: Site) -> None:
        self._place = place
        self._store = place.store
        self.put: list[StoredObject] = []

    def listing(self, prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        for one in self._store.listing(prefix):
            if isinstance(one, ListingEnd):
                self.put.append(self._place.put(f"cadc:NEW/{len(self.put)}")[1])
            yield one

    def stat(self, storage_id: str) -> StoredObject | InvalidObject:
        return self._store.stat(storage_id)


def test_a_file_put_after_its_part_of_the_listing_was_read_is_not_missing(place: Site) -> None:
    store = PutDuringListing(place)

    def late_rows(bucket: str) -> Iterable[Placed | ListingEnd]:
        """Read when the store's side is at its end: the order in which the original loses files."""
        return queries.placed_artifacts("")

    listed = [one for one in store.listing("") if isinstance(one, ListedObject)]
    assert listed == []
    survey = survey_bucket(store=store, policy=INVENTORY, bucket="", grace=NOW, rows=late_rows)  # type: ignore[arg-type]  # enough of one
    assert len(store.put) == 2
    assert survey.differences == []


def test_a_missing_object_is_believed_only_if_the_store_says_so_of_its_very_id(place: Site) -> None:
    _, stored = place.put()

    class Forgetful(PutDuringListing):
        def listing(self, prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
            yield ListingEnd(0)

    forgetful: ArtifactStore = Forgetful(place)  # type: ignore[assignment]  # enough of one
    assert place.run(store=forgetful).counts == {"valid": 0}
    assert place.found() == []
    place.store.remove(stored.storage_id)
    place.run(store=forgetful)
    assert [label for label, _, _ in place.found()] == ["no-matching-storageLocation"]


@pytest.mark.parametrize("fault", [CutListing, LossyListing])
def test_a_listing_without_proof_concludes_nothing_and_the_run_keeps_its_place(
    place: Site, fault: type[CutListing]
) -> None:
    stored = [place.put(f"cadc:TEST/{number}")[1] for number in range(3)]
    run = runs.open_run(policy=INVENTORY, started_by="test")
    broken: ArtifactStore = fault(place.store, 0)
    with pytest.raises(StorageUnavailableError):
        for _ in range(300):
            runs.advance(run_id=run.id, surveyor=surveyor_of(broken), seconds=60, grace=NOW)
    run.refresh_from_db()
    assert run.state == "running"
    assert run.next_bucket == ("00" if fault is CutListing else min(one.storage_bucket[:2] for one in stored))
    assert run.last_error.startswith("storage_unavailable: ")
    assert run.lease_holder is None
    assert not ValidationFinding.objects.exists()
    done = place.run()
    assert done.id == run.id
    assert (done.objects_seen, done.counts, done.last_error) == (3, {"valid": 3}, "")


def test_an_inventory_listing_that_was_cut_condemns_no_object(place: Site) -> None:
    for number in range(3):
        place.put(f"cadc:TEST/{number}")
    run = runs.open_run(policy=INVENTORY, started_by="test")

    def cut(bucket: str) -> Iterable[Placed | ListingEnd]:
        return islice(queries.placed_artifacts(bucket), 0)

    with pytest.raises(DatabaseUnavailableError):
        runs.advance(run_id=run.id, surveyor=surveyor_of(place.store, rows=cut), seconds=60, grace=NOW)
    assert not ValidationFinding.objects.exists()


def test_an_unmounted_disk_is_an_error_and_not_an_empty_store(place: Site) -> None:
    place.put()
    (place.root / "objects").rename(place.root / "elsewhere")
    run = runs.open_run(policy=INVENTORY, started_by="test")
    with pytest.raises(StorageUnavailableError):
        runs.advance(run_id=run.id, surveyor=surveyor_of(place.store), seconds=60, grace=NOW)
    (place.root / "objects").mkdir()
    (place.root / "store.json").unlink()
    with pytest.raises(StorageUnavailableError):
        runs.advance(run_id=run.id, surveyor=surveyor_of(place.store), seconds=60, grace=NOW)
    assert not ValidationFinding.objects.exists()


def test_a_run_goes_on_where_it_stopped_and_counts_nothing_twice(place: Site) -> None:
    for number in range(30):
        place.put(f"cadc:TEST/{number}")
    orphan = place.write("cadc:TEST/orphan")
    run = runs.open_run(policy=INVENTORY, started_by="test")
    steps = 0
    while True:
        progress = runs.advance(run_id=run.id, surveyor=surveyor_of(place.store), seconds=0, grace=NOW)
        assert progress is not None
        steps += progress.buckets
        if progress.is_complete:
            break
        assert progress.run.next_bucket == f"{steps:02x}"
    assert steps == 256
    assert progress.run.objects_seen == 31
    assert progress.run.counts == {"valid": 30, "no-matching-artifact": 1}
    assert [one for _, _, one in place.found()] == [orphan.storage_id]
    assert runs.advance(run_id=run.id, surveyor=surveyor_of(place.store), seconds=0) is None


def test_a_run_of_one_prefix_looks_at_nothing_else(place: Site) -> None:
    orphans = [place.write(f"cadc:TEST/{number}") for number in range(12)]
    prefix = orphans[0].storage_bucket[:1]
    run = runs.open_run(policy=INVENTORY, started_by="test", bucket_prefix=prefix)
    runs.advance(run_id=run.id, surveyor=surveyor_of(place.store), seconds=60, grace=NOW)
    expected = sorted(one.storage_id for one in orphans if one.storage_id.startswith(prefix))
    assert [storage_id for _, _, storage_id in place.found()] == expected
    assert runs.buckets_of("abc", 3) == ["abc"]
    assert runs.buckets_of("a", 2)[0] == "a0"
    for wrong in ("g", "A", "abcd", "%"):
        with pytest.raises(InvalidRequestError, match="hex digits"):
            runs.open_run(policy=INVENTORY, started_by="test", bucket_prefix=wrong)


def test_two_processes_do_not_work_on_one_run_and_a_dead_ones_lease_expires(place: Site) -> None:
    run = runs.open_run(policy=INVENTORY, started_by="test")
    assert runs.open_run(policy=INVENTORY, started_by="other").id == run.id
    ValidationRun.objects.update(lease_holder=uuid.uuid4(), lease_until="2100-01-01T00:00:00Z")
    assert runs.advance(run_id=run.id, surveyor=surveyor_of(place.store), seconds=60) is None
    ValidationRun.objects.update(lease_until="2000-01-01T00:00:00Z")
    progress = runs.advance(run_id=run.id, surveyor=surveyor_of(place.store), seconds=60)
    assert progress is not None
    assert progress.is_complete


def test_who_lost_the_lease_records_nothing(place: Site) -> None:
    place.write()
    run = runs.open_run(policy=INVENTORY, started_by="test")
    survey = survey_bucket(store=place.store, policy=INVENTORY, bucket="", grace=NOW)
    assert len(survey.differences) == 1
    with pytest.raises(RaceLostError):
        runs.record_buckets(run_id=run.id, holder=uuid.uuid4(), surveys={"00": survey})
    assert not ValidationFinding.objects.exists()


class DyingStore:
    """The process dies when the store is asked for the `number`-th time."""

    def __init__(self, store: ArtifactStore, number: int) -> None:
        self._store = store
        self._left = number

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Crash

    def listing(self, prefix: str = "") -> Iterator[ListedObject | InvalidObject | ListingEnd]:
        self._step()
        return self._store.listing(prefix)

    def stat(self, storage_id: str) -> StoredObject | InvalidObject:
        self._step()
        return self._store.stat(storage_id)


@pytest.mark.parametrize("number", [0, 1, 100, 257])
def test_a_run_that_died_at_any_point_ends_with_the_same_report(place: Site, number: int) -> None:
    for one in range(5):
        place.put(f"cadc:TEST/{one}")
    orphans = sorted(place.write(f"cadc:ORPHAN/{one}").storage_id for one in range(5))
    run = runs.open_run(policy=INVENTORY, started_by="test")
    dying: ArtifactStore = DyingStore(place.store, number)  # type: ignore[assignment]  # enough of one
    with pytest.raises(Crash):
        runs.advance(run_id=run.id, surveyor=surveyor_of(dying), seconds=60, grace=NOW)
    connection.close()
    done = place.run()
    assert done.id == run.id
    assert (done.artifacts, done.objects_seen) == (5, 10)
    assert sorted(storage_id for _, _, storage_id in place.found()) == orphans


def test_the_table_of_findings_is_bounded_and_says_what_was_left_out(place: Site, settings: Settings) -> None:
    settings.INVENTORY_VALIDATE_FINDINGS = 4
    for number in range(7):
        place.write(f"cadc:TEST/{number}")
    run = place.run()
    assert (run.not_kept, ValidationFinding.objects.count()) == (3, 4)
    assert run.counts["no-matching-artifact"] == 7
    assert place.run().not_kept == 3


def test_decided_findings_and_old_runs_are_forgotten_beyond_a_bound(place: Site, settings: Settings) -> None:
    for number in range(5):
        place.write(f"cadc:TEST/{number}")
    place.run()
    ValidationFinding.objects.update(state="applied")
    settings.INVENTORY_VALIDATE_FINDINGS = 2
    assert runs.prune() == 3
    assert ValidationFinding.objects.count() == 2


def test_the_inventory_is_listed_in_pages_with_proof(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGE", 3)
    for number in range(9):
        row = artifact_row(f"cadc:TEST/{number}")
        insert_artifact_row(row, Located(f"{number:032x}", f"{number:03x}"))
    listed = list(queries.placed_artifacts(""))
    assert listed[-1] == ListingEnd(9)
    assert [one.storage_bucket for one in listed[:-1] if isinstance(one, Placed)] == [f"{n:03x}" for n in range(9)]
    assert list(queries.placed_artifacts("1")) == [ListingEnd(0)]
    assert len(list(queries.placed_artifacts("00"))) == 10
    assert Artifact.objects.count() == 9


def test_a_location_that_has_lost_its_artifact_does_not_end_the_listing(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGE", 3)
    for number in range(9):
        insert_artifact_row(artifact_row(f"cadc:TEST/{number}"), Located(f"{number:032x}", f"{number:03x}"))
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("DELETE FROM artifact WHERE uri = 'cadc:TEST/1'")
        cursor.execute("SET session_replication_role = origin")
    *listed, end = queries.placed_artifacts("")
    assert end == ListingEnd(8)
    assert [one.uri for one in listed if isinstance(one, Placed)] == [f"cadc:TEST/{n}" for n in range(9) if n != 1]


@pytest.fixture
def many(place: Site) -> None:
    """Rows of 6000 artifacts whose places are in the buckets that begin with 0, and nothing in the store."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified, "
            "meta_checksum, meta_modified_at, txid) "
            "SELECT gen_random_uuid(), 'cadc:TEST/' || n, '00000', 'md5:0', now(), 1, now(), 'md5:0', now(), 0 FROM generate_series(1, 6000) n"
        )
        cursor.execute(
            "INSERT INTO storage_location (artifact_id, storage_id, storage_bucket, stored_at) "
            "SELECT id, lpad(substr(md5(uri), 3), 32, '0'), '0' || substr(md5(uri), 1, 2), now() FROM artifact"
        )
        cursor.execute("ANALYZE artifact, storage_location")


def pages_of(bucket_prefix: str, *without: str) -> list[dict[str, Any]]:
    """How PostgreSQL comes by each page of a listing, without some of the ways that it prefers where rows are few."""
    asked: list[tuple[str, Any]] = []

    def note(execute: Callable[..., Any], sql: str, parameters: Any, *rest: Any) -> Any:
        asked.append((sql, parameters))
        return execute(sql, parameters, *rest)

    with connection.execute_wrapper(note):
        list(queries.placed_artifacts(bucket_prefix))
    plans = []
    with transaction.atomic(), connection.cursor() as cursor:
        for way in without:
            cursor.execute(f"SET LOCAL enable_{way} = off")
        for sql, parameters in asked:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", parameters)
            plans.append(cursor.fetchone()[0][0]["Plan"])
    return plans


def looked_at(plan: dict[str, Any]) -> int:
    """Pages of tables and indexes."""
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def test_the_last_bucket_is_found_without_reading_those_before_it(many: None) -> None:
    (plan,) = pages_of("fff")
    assert looked_at(plan) < 10


def relations(plan: dict[str, Any]) -> set[str]:
    return {node["Relation Name"] for node in nodes(plan) if "Relation Name" in node}


def test_a_page_is_cut_before_its_artifacts_are_looked_for(many: None) -> None:
    plans = pages_of("0")
    assert len(plans) == 6000 // queries.PAGE + 1
    for plan in plans:
        (cut,) = [node for node in nodes(plan) if node["Node Type"] == "Limit"]
        assert (relations(cut), relations(plan)) == ({"storage_location"}, {"storage_location", "artifact"})
        assert cut["Actual Rows"] <= queries.PAGE


def test_the_locations_of_a_page_are_read_from_their_index_alone(many: None) -> None:
    for plan in pages_of("0", "seqscan", "bitmapscan"):
        (read,) = [node for node in nodes(plan) if node.get("Relation Name") == "storage_location"]
        assert read["Node Type"] == "Index Only Scan"
