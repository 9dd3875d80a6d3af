"""The steps of restoring a site that its store answers: repeated after a crash anywhere they end in the same state."""

from __future__ import annotations

import pytest

from datamodel.models import StorageLocation
from datamodel.restoration import StepOptions
from site_service.file_validate import recovery, runs
from site_service.retention import dropping, retire
from site_service.retention.models import RetireRun
from tests.fakes.releasing import FakeReleasing, fake_releasing
from tests.site_service.file_validate.conftest import Site
from tests.site_service.retention.conftest import begin, let_time_pass, meet, outcomes

OPTIONS = StepOptions(by="test")


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery goes through a store in 4096 steps, however small it is."""
    monkeypatch.setattr(runs, "_MOST_DIGITS", 1)


@pytest.fixture
def inventory_of_all(place: Site) -> object:
    with fake_releasing() as inventory:
        meet(inventory)
        yield inventory


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
