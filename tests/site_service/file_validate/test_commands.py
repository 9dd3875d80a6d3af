"""What an operator types and sees."""

from __future__ import annotations

import io
import time
import uuid
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command

from datamodel.models import StorageLocation
from datamodel.rows import database_now
from site_service.file_validate import runs
from site_service.file_validate.models import QuarantinedObject, ValidationFinding, ValidationRun
from site_service.file_validate.surveyors import surveyor_of
from site_service.management.commands import validate_files
from site_service.storage.registry import get_store
from tests.site_service.file_validate.conftest import INVENTORY, Site


def manage(name: str, *argv: str) -> str:
    out = io.StringIO()
    call_command(name, *argv, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_the_report_is_a_table_and_changes_nothing(place: Site) -> None:
    place.put("cadc:TEST/here")
    orphan = place.write("cadc:TEST/orphan", b"1234567890")
    report = manage("validate_files", "--grace", "0")
    assert "1 stored artifacts, 2 objects, 17 bytes" in report
    assert "no-matching-artifact" in report
    assert "quarantine_object" in report
    assert orphan.storage_id in report
    assert "cadc:TEST/orphan" in report
    assert not QuarantinedObject.objects.exists()


def test_the_grace_time_of_the_settings_holds_unless_another_is_said(place: Site) -> None:
    place.write()
    assert "no-matching-artifact" not in manage("validate_files")
    assert ValidationFinding.objects.get().label == "delay"


def test_applying_is_asked_for_and_told(place: Site) -> None:
    place.write()
    report = manage("validate_files", "--grace", "0", "--apply", "--by", "jane")
    assert "quarantined" in report
    assert QuarantinedObject.objects.get().quarantined_by == "jane"
    assert "Applied" not in manage("validate_files", "--grace", "0")


def test_what_would_take_away_too_much_is_not_applied_at_all(place: Site) -> None:
    stored = [place.put(f"cadc:TEST/{number}")[1] for number in range(5)]
    for one in stored:
        place.store.remove(one.storage_id)
    with pytest.raises(CommandError, match="would take away 5 copies or objects, more than --at-most 4"):
        manage("validate_files", "--apply", "--at-most", "4")
    assert StorageLocation.objects.count() == 5
    manage("validate_files", "--apply", "--at-most", "5")
    assert not StorageLocation.objects.exists()


def test_only_the_asked_labels_and_buckets_are_applied(place: Site) -> None:
    _, lost = place.put("cadc:TEST/lost")
    place.store.remove(lost.storage_id)
    orphan = place.write("cadc:TEST/orphan")
    other = "0" if orphan.storage_bucket[0] != "0" else "1"
    manage("validate_files", "--grace", "0", "--apply", "--label", "no-matching-artifact", "--bucket", other)
    assert not QuarantinedObject.objects.exists()
    manage("validate_files", "--grace", "0", "--apply", "--label", "no-matching-artifact")
    assert QuarantinedObject.objects.exists()
    assert StorageLocation.objects.exists()


def test_a_store_that_does_not_answer_ends_the_command_with_the_reason(place: Site) -> None:
    (place.root / "objects").rename(place.root / "away")
    with pytest.raises(CommandError, match="Nothing was concluded"):
        manage("validate_files")
    with pytest.raises(CommandError, match="hex digits"):
        manage("validate_files", "--bucket", "xyz")


def test_a_run_that_another_process_is_at_is_gone_on_with_after_it(place: Site) -> None:
    place.put("cadc:TEST/here")
    runs.open_run(policy=INVENTORY, started_by="beat")
    soon = database_now() + timedelta(seconds=1)
    ValidationRun.objects.update(lease_holder=uuid.uuid4(), lease_until=soon)
    assert "1 stored artifacts, 1 objects" in manage("validate_files")
    assert database_now() > soon


def test_a_run_that_another_process_ends_is_reported(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put("cadc:TEST/here")
    run = runs.open_run(policy=INVENTORY, started_by="beat")
    ValidationRun.objects.update(lease_holder=uuid.uuid4(), lease_until="2100-01-01T00:00:00Z")

    def end(_: float) -> None:
        runs.take_over(policy=INVENTORY, since=run.started_at)
        runs.advance(run_id=run.id, surveyor=surveyor_of(get_store()), seconds=60)

    monkeypatch.setattr(time, "sleep", end)
    assert "1 stored artifacts, 1 objects" in manage("validate_files")
    assert ValidationRun.objects.get().started_by == "beat"


def test_a_run_that_another_process_does_not_leave_is_left_to_it(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    del place
    monkeypatch.setattr(validate_files, "_PATIENCE_SECONDS", 0.0)
    runs.open_run(policy=INVENTORY, started_by="beat")
    ValidationRun.objects.update(lease_holder=uuid.uuid4(), lease_until="2100-01-01T00:00:00Z")
    with pytest.raises(CommandError, match="another process"):
        manage("validate_files")


def test_quarantine_is_listed_given_back_and_purged(place: Site) -> None:
    kept, gone = place.write("cadc:TEST/kept"), place.write("cadc:TEST/gone")
    manage("validate_files", "--grace", "0", "--apply")
    listed = manage("quarantine", "list")
    assert "cadc:TEST/kept" in listed
    assert "cadc:TEST/gone" in listed
    ids = {held.uri: str(held.id) for held in QuarantinedObject.objects.all()}
    assert "is stored again" in manage("quarantine", "restore", ids["cadc:TEST/kept"])
    assert "its bytes are gone" in manage("quarantine", "purge", ids["cadc:TEST/gone"], "--reason", "junk")
    assert place.path(kept).exists()
    assert not place.path(gone).exists()
    for argv in (["restore", ids["cadc:TEST/kept"]], ["purge", str(uuid.uuid4())], ["purge"]):
        with pytest.raises(CommandError):
            manage("quarantine", *argv)
