"""The steps of restoring a site that its store answers: repeated after a crash anywhere they end in the same state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from datamodel import restoration
from datamodel.models import Restoration, RetiredArtifact, StorageLocation
from datamodel.restoration import StepOptions
from datamodel.rows import database_now, insert_tombstone
from site_service.file_validate import recovery, runs
from site_service.retention import dropping, retire
from site_service.retention.models import RetireRun
from tests.factories import artifact_row, insert_artifact_row
from tests.fakes.releasing import FakeReleasing, fake_releasing
from tests.harvest.crashes import crash_at_write, dies
from tests.site_service.file_validate.conftest import Site
from tests.site_service.retention.conftest import begin, let_time_pass, meet, outcomes

OPTIONS = StepOptions(by="test", at_most=10_000)
FORGET_SQL = """
    WITH forgotten AS (DELETE FROM artifact WHERE uri = %s RETURNING id)
    DELETE FROM storage_location WHERE artifact_id IN (SELECT id FROM forgotten)
"""
STATE_SQL = """
    SELECT coalesce(a.uri, t.uri, r.uri), a.content_checksum, l.artifact_id IS NOT NULL, e.id IS NOT NULL, d.id IS NOT NULL,
        t.id IS NOT NULL, r.state
    FROM artifact a FULL JOIN deleted_artifact_event t ON t.id = a.id FULL JOIN retired_artifact r ON r.id = coalesce(a.id, t.id)
        LEFT JOIN storage_location l ON l.artifact_id = a.id LEFT JOIN storage_location_event e ON e.id = a.id
        LEFT JOIN deleted_storage_location_event d ON d.id = a.id
    WHERE coalesce(a.uri, t.uri, r.uri) LIKE %s ORDER BY 1, 2
"""


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Recovery goes through a store in 4096 steps, however small it is; nobody waits for bytes to be recorded here."""
    monkeypatch.setattr(runs, "_MOST_DIGITS", 0)
    monkeypatch.setattr(runs, "_FEW_DIGITS", 0)
    settings.INVENTORY_VALIDATE_GRACE_SECONDS = 0
    settings.RESTORATION_STEPS = [
        ("recover", "site_service.file_validate.recovery.recover"),
        ("validate", "site_service.file_validate.recovery.validate"),
    ]


@pytest.fixture
def inventory_of_all(place: Site) -> Iterator[FakeReleasing]:
    del place
    with fake_releasing() as inventory:
        meet(inventory)
        yield inventory


def lose(place: Site, prefix: str) -> None:
    """What an old backup says, and what the store has, of each kind that the steps tell apart."""
    place.put(f"{prefix}well")
    row, _ = place.put(f"{prefix}unknown")
    forget(row.uri)
    row, _ = place.put(f"{prefix}deleted")
    forget(row.uri)
    insert_tombstone(row.id, row.uri, deleted_at=database_now())
    old, _ = place.put(f"{prefix}replaced", b"old")
    while (new := place.write(f"{prefix}replaced", b"new")).written_at <= old.content_last_modified:
        place.store.remove(new.storage_id)  # of the same millisecond
    _, stored = place.put(f"{prefix}gone")
    place.store.remove(stored.storage_id)
    row, _ = place.put(f"{prefix}known")
    forget(row.uri)
    insert_artifact_row(row)
    insert_artifact_row(artifact_row(f"{prefix}believed"))


def forget(uri: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(FORGET_SQL, [uri])


def state(prefix: str) -> list[tuple[Any, ...]]:
    """(what, checksum, is stored, said to be here, said to be gone, id is deleted, what is retained)."""
    with connection.cursor() as cursor:
        cursor.execute(STATE_SQL, [f"{prefix}%"])
        return [(row[0].removeprefix(prefix), *row[1:]) for row in cursor.fetchall()]


def restored() -> None:
    """`restore --resume`, with the two steps of a site."""
    if restoration.current() is None:
        restoration.begin(source="test", by="test", taken_at=None)
    while not restoration.resume(options=OPTIONS, say=lambda _: None):
        pass


def test_each_kind_is_brought_back_as_it_should(place: Site) -> None:
    content, old, new = ("md5:" + hashlib.md5(data).hexdigest() for data in (b"content", b"old", b"new"))
    # A new artifact is news enough of its copy.
    born, here, gone, nowhere = (True, False, False), (True, True, False), (False, False, True), (False, False, False)
    lose(place, "cadc:TEST/")
    restored()
    assert state("cadc:TEST/") == [
        ("believed", content, *gone, False, None),
        ("deleted", None, *nowhere, True, "retained"),
        ("gone", content, *gone, False, None),
        ("known", content, *here, False, None),
        ("replaced", new, *born, False, None),
        ("replaced", None, *nowhere, True, "retained"),
        ("unknown", content, *born, False, None),
        ("well", content, *born, False, None),
    ]
    assert RetiredArtifact.objects.get(content_checksum=old).uri == "cadc:TEST/replaced"


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long), 24])
def test_after_a_crash_at_any_write_the_steps_end_in_the_same_state(place: Site, stride: int) -> None:
    lose(place, "cadc:TEST/whole/")
    restored()
    whole = state("cadc:TEST/whole/")
    for number in count(0, stride):
        prefix = f"cadc:TEST/{number}/"
        lose(place, prefix)
        if not dies(restored, crash_at_write(number)):
            break
        restored()
        assert state(prefix) == whole, number
    assert number > 40
    assert Restoration.objects.get().step == "open"


def test_what_a_backup_says_was_granted_is_not_dropped(place: Site, inventory_of_all: FakeReleasing) -> None:
    """The run may have been cancelled since, and another site been allowed to drop its copy because this one stays."""
    row, _ = place.put("cadc:TEST/granted")
    run = begin()
    retire._list_next()
    dropping.ask_due()
    assert outcomes(run) == {row.uri: "granted"}
    recovery.recover(OPTIONS)
    let_time_pass()
    retire.advance(seconds=30)
    assert StorageLocation.objects.filter(artifact_id=row.id).exists()
    assert outcomes(run) == {row.uri: "refused cancelled"}
    assert inventory_of_all.marked == {}
    assert RetireRun.objects.get().state == "cancelled"
