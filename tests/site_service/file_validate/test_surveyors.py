"""Several processes compare what one would: the same findings, the same failures, and none of them outlives its parent."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from contextlib import suppress

import psutil
import pytest
from django.core.management import CommandError, call_command

from datamodel.processes import wait_until
from site_service.file_validate import runs
from site_service.file_validate.models import ValidationRun
from site_service.file_validate.surveyors import surveyor_processes
from site_service.management.commands import validate_files
from tests.faults import flip_bit
from tests.site_service.file_validate.conftest import INVENTORY, NOW, Site
from tests.site_service.server import PROJECT, site_environment

pytestmark = pytest.mark.django_db(transaction=True)

TWO = ("--processes", "2")
BUCKETS = [f"{number:02x}" for number in range(256)]


@pytest.fixture(autouse=True)
def _theirs(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the processes are told."""
    for name, value in site_environment(place.root).items():
        monkeypatch.setenv(name, value)


def validate(*arguments: str) -> str:
    out = io.StringIO()
    call_command("validate_files", "--grace", "0", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def children() -> list[psutil.Process]:
    """One that is reaped while it is looked at is none any more."""
    living = []
    for one in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if one.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(one.cmdline()):
                living.append(one)
    return living


def test_they_find_what_one_process_finds(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        place.put(f"cadc:TEST/{number}")
    (_, lost), (_, damaged) = place.put("cadc:TEST/lost"), place.put("cadc:TEST/damaged")
    place.store.remove(lost.storage_id)
    flip_bit(place.path(damaged).with_suffix(".json"), 5)
    place.write("cadc:TEST/orphan")
    validate()
    alone, found = ValidationRun.objects.get(), place.found()
    assert len(found) == 3
    monkeypatch.setattr(validate_files, "surveyor_of", None)
    validate(*TWO)
    together = ValidationRun.objects.exclude(id=alone.id).get()
    for what in ("counts", "artifacts", "objects_seen", "bytes_seen", "state", "next_bucket"):
        assert getattr(together, what) == getattr(alone, what)
    assert place.found() == found
    assert not children()


def test_many_files_are_compared_by_processes_without_being_told(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    place.put()
    monkeypatch.setattr(validate_files, "_MANY", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(validate_files, "surveyor_of", None)
    assert "1 stored artifacts, 1 objects" in validate()


@pytest.mark.parametrize(
    ("files", "processors", "memory", "processes"),
    [(0, 64, 64, 1), (1, 1, 64, 1), (1, 4, 64, 4), (1, 64, 64, 8), (1, 64, 3, 3), (1, 64, 0, 1)],
)
def test_there_are_as_many_as_the_machine_bears(
    place: Site, monkeypatch: pytest.MonkeyPatch, files: int, processors: int, memory: int, processes: int
) -> None:
    del place
    monkeypatch.setattr(validate_files, "row_count", lambda _: files * 100_000)
    monkeypatch.setattr(validate_files, "machine_bytes", lambda: memory * 2**28)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert validate_files._usual_processes() == processes


def test_a_store_that_does_not_answer_them_ends_the_command_and_the_run_keeps_its_place(place: Site) -> None:
    stored = [place.put(f"cadc:TEST/{number}")[1] for number in range(20)]
    blocked = max(stored, key=lambda one: one.storage_bucket)
    bucket = place.path(blocked).parent
    bucket.rename(place.root / "away")
    bucket.write_text("no directory")
    with pytest.raises(CommandError, match="Nothing was concluded"):
        validate(*TWO)
    run = ValidationRun.objects.get()
    assert (run.next_bucket, run.lease_holder) == (blocked.storage_bucket[:2], None)
    assert run.last_error.startswith("storage_unavailable: ")
    bucket.unlink()
    (place.root / "away").rename(bucket)
    assert "20 stored artifacts, 20 objects" in validate(*TWO)
    assert ValidationRun.objects.get().counts == {"valid": 20}


def test_one_that_is_killed_ends_the_command_and_the_run_can_go_on(
    place: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put()
    real = runs.record_buckets

    def record_and_kill(**arguments: object) -> None:
        real(**arguments)  # type: ignore[arg-type]  # what it was called with
        for child in children():
            child.kill()

    monkeypatch.setattr(runs, "_GROUP_SECONDS", 0.0)
    monkeypatch.setattr(runs, "record_buckets", record_and_kill)
    with pytest.raises(CommandError, match=r"was killed.*fewer --processes"):
        validate(*TWO)
    run = ValidationRun.objects.get()
    assert run.state == "running"
    assert run.next_bucket > "00"
    assert run.lease_holder is None
    monkeypatch.setattr(runs, "record_buckets", real)
    assert "1 stored artifacts, 1 objects" in validate(*TWO)
    assert ValidationRun.objects.get().id == run.id


def test_what_was_looked_at_ahead_serves_the_next_call(place: Site) -> None:
    place.put()
    with surveyor_processes(2) as surveyor:
        surveys = surveyor(INVENTORY, BUCKETS, NOW)
        seen = [next(surveys)[0] for _ in range(3)]
        surveys.close()
        seen += [bucket for bucket, _ in surveyor(INVENTORY, BUCKETS[3:], NOW)]
        assert seen == BUCKETS
        for child in children():
            child.kill()
        with pytest.raises(BrokenExecutor):
            list(surveyor(INVENTORY, BUCKETS, NOW))


def test_they_end_with_their_parent_though_it_is_killed(place: Site) -> None:
    del place
    script = (
        "import django, os, time; django.setup()\n"
        "from datetime import timedelta\n"
        "from site_service.file_validate.rules import Policy\n"
        "from site_service.file_validate.surveyors import surveyor_processes\n"
        "with surveyor_processes(2) as surveyor:\n"
        "    next(surveyor(Policy.INVENTORY_IS_ALWAYS_RIGHT, ['00', '01', '02', '03'], timedelta()))\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        theirs = psutil.Process(parent.pid).children(recursive=True)
        assert len(theirs) >= 2
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not psutil.wait_procs(theirs, timeout=0)[1], 20, "a process outlived its parent")
