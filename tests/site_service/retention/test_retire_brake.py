"""A retirement goes through the brake: foreseen as a whole before it begins, counted in the transaction that drops, told in the preview."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from datamodel import brake
from datamodel.alarms.models import Alarm
from datamodel.auth import create_api_token
from datamodel.errors import DeletionBrakeError
from datamodel.models import BrakeRule, DeletionBrake, StorageLocation
from datamodel.permissions import Grant
from datamodel.uris import Namespace
from site_service.policy.operations import set_policy
from site_service.retention import dropping, retire
from site_service.retention.models import CopyRelease, RetireRun
from site_service.retention.rules import SOURCE
from tests.fakes.releasing import FakeReleasing
from tests.site_service.retention.conftest import NAMESPACE, Copies, advance_to_the_end, begin, outcomes, retired


@pytest.fixture(autouse=True)
def _three_a_day(settings: Settings) -> None:
    settings.INVENTORY_BRAKE_COUNT, settings.INVENTORY_BRAKE_PERCENT = 3, 0


def foreseen(namespace: str = NAMESPACE) -> str:
    return retire.preview(Namespace(namespace)).brake


def release() -> None:
    call_command("release_brake", SOURCE, stdout=io.StringIO())


def test_a_run_that_would_drop_too_much_is_not_begun_until_an_operator_says_that_it_is_meant(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    copies.fill(4)
    assert "retire would remove 4 artifacts after 0 today; 3 a day pass unasked" in foreseen()
    assert not DeletionBrake.objects.exists()
    for _ in range(2):
        with pytest.raises(DeletionBrakeError, match="release_brake"):
            begin()
    assert not RetireRun.objects.exists()
    assert not inventory_of_all.asked
    assert Alarm.objects.get(kind="deletion_brake").subject == SOURCE
    release()
    assert foreseen() == ""
    assert retired().dropped_files == 4
    assert DeletionBrake.objects.get().removed == 4


def test_what_was_dropped_today_counts(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    copies.fill(2)
    copies.fill(2, "cadc:OTHER/")
    assert retired().dropped_files == 2
    assert "would remove 2 artifacts after 2 today" in foreseen("cadc:OTHER/")
    with pytest.raises(DeletionBrakeError):
        begin("cadc:OTHER/")
    assert StorageLocation.objects.count() == 2


def test_what_the_policy_wants_stays_and_does_not_count(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    set_policy(namespace=Namespace(f"{NAMESPACE}kept/"), wanted=True)
    copies.fill(5, f"{NAMESPACE}kept/")
    copies.fill(3)
    assert foreseen() == ""
    assert retired().dropped_files == 3
    assert StorageLocation.objects.count() == 5


def test_a_share_of_what_there_is_passes_too(
    copies: Copies, inventory_of_all: FakeReleasing, settings: Settings
) -> None:
    settings.INVENTORY_BRAKE_PERCENT = 50
    copies.fill(4)
    assert "4 artifacts" in foreseen()
    copies.fill(4, "cadc:OTHER/")
    assert retired().dropped_files == 4


def test_a_rule_of_a_namespace_stops_its_files_and_says_so(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    BrakeRule.objects.create(namespace=f"{NAMESPACE}raw/", most_count=0)
    copies.fill(1, f"{NAMESPACE}raw/")
    copies.fill(2)
    assert f"1 artifacts of {NAMESPACE}raw/" in foreseen()
    with pytest.raises(DeletionBrakeError, match="raw"):
        begin()
    assert retired("cadc:OTHER/").state == "finished"
    assert foreseen("cadc:OTHER/") == ""


def test_what_came_after_a_run_was_begun_is_not_even_asked_for(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    copies.fill(2)
    run = begin()
    copies.fill(5, f"{NAMESPACE}later/")
    advance_to_the_end()
    assert (inventory_of_all.asked, CopyRelease.objects.count()) == ([], 0)
    assert DeletionBrake.objects.get().engaged_at is not None
    release()
    assert retired().id == run.id
    run.refresh_from_db()
    assert (run.state, run.dropped_files) == ("finished", 7)


def test_what_was_granted_waits_for_the_operator(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    """The brake was tightened, or another run went first, between the question and the drop."""
    rows = copies.fill(2)
    run = begin()
    retire._list_next()
    dropping.ask_due()
    BrakeRule.objects.create(namespace=NAMESPACE, most_count=0)
    assert not retire.advance(seconds=30)
    assert outcomes(run) == {row.uri: "granted" for row in rows}
    assert StorageLocation.objects.count() == 2
    brake.release(brakes=DeletionBrake.objects.all(), period=timedelta(hours=1))
    assert retired().dropped_files == 2


def test_http_and_the_command_and_the_admin_say_so(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    copies.fill(4)
    token = create_api_token(name="operator", grants=frozenset({Grant.OPERATE}), now=datetime.now(UTC))
    operator = Client(headers={"authorization": f"Bearer {token}"})
    asked = {"namespace": NAMESPACE}
    preview = operator.post("/retire", json.dumps(asked), "application/json").json()
    assert "would remove 4 artifacts" in preview["brake"]
    out = io.StringIO()
    call_command("retire", NAMESPACE, stdout=out)
    assert "The brake would stop this: retire would remove 4 artifacts" in out.getvalue()
    admin = Client()
    admin.force_login(get_user_model().objects.create_superuser("boss", "", "x"))
    form = {"namespace": NAMESPACE, "reason": "disk is full"}
    assert "retire would remove 4 artifacts" in admin.post("/admin/retention/retirerun/add/", form).content.decode()
    assert not DeletionBrake.objects.exists()
    page = admin.post("/admin/retention/retirerun/add/", form | {"confirm": "on"})
    assert "retire would remove 4 artifacts" in page.content.decode()
    assert DeletionBrake.objects.get().engaged_at is not None
    begun = operator.post("/retire", json.dumps(asked | {"apply": True, "reason": "full"}), "application/json")
    assert (begun.status_code, begun.json()["code"]) == (409, "deletion_brake")
    with pytest.raises(CommandError, match="release_brake"):
        call_command("retire", NAMESPACE, "--apply", "--reason", "full", stdout=io.StringIO())
    assert not RetireRun.objects.exists()
