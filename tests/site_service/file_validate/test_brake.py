"""Applying findings goes through the brake: per policy and day, by namespace, and a whole run before its first row."""

from __future__ import annotations

import io

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client
from pytest_django import Settings

from datamodel import brake
from datamodel.alarms.models import Alarm
from datamodel.errors import DeletionBrakeError
from datamodel.models import BrakeRule, DeletionBrake, StorageLocation
from site_service.file_validate.models import QuarantinedObject, ValidationFinding
from site_service.file_validate.rules import Policy
from tests.site_service.file_validate.conftest import INVENTORY, NOW, Site

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(autouse=True)
def _three_a_day(settings: Settings) -> None:
    settings.INVENTORY_BRAKE_COUNT, settings.INVENTORY_BRAKE_PERCENT = 3, 0


def lose(place: Site, count: int, namespace: str = "cadc:TEST/") -> None:
    for stored in [place.put(f"{namespace}{number}")[1] for number in range(count)]:
        place.store.remove(stored.storage_id)


@pytest.mark.parametrize("policy", [INVENTORY, Policy.STORAGE_IS_ALWAYS_RIGHT])
def test_the_fourth_copy_of_a_day_is_not_taken_out(place: Site, policy: Policy) -> None:
    lose(place, 5)
    place.run(policy)
    with pytest.raises(DeletionBrakeError):
        place.apply()
    assert StorageLocation.objects.count() == 2
    assert ValidationFinding.objects.filter(state="open").count() == 2
    assert Alarm.objects.get(kind="deletion_brake").subject == f"validate:{policy.value}"
    with pytest.raises(DeletionBrakeError):
        place.apply()
    brake.release(brakes=DeletionBrake.objects.all())
    assert all(applied.is_done for applied in place.apply())
    assert not StorageLocation.objects.exists()


def test_what_is_taken_in_or_kept_apart_removes_nothing(place: Site) -> None:
    for number in range(6):
        place.write(f"cadc:TEST/{number}")
    place.run()
    assert len(place.apply()) == 6
    assert QuarantinedObject.objects.count() == 6
    assert not DeletionBrake.objects.exists()


def test_the_command_stops_before_the_first_row_of_a_run_that_would_take_too_much(place: Site) -> None:
    lose(place, 5)
    for _ in range(2):
        with pytest.raises(
            CommandError, match="validate:InventoryIsAlwaysRight would remove 5 artifacts after 0 today; 3 a day"
        ):
            call_command("validate_files", "--apply", stdout=io.StringIO())
    assert StorageLocation.objects.count() == 5
    assert Alarm.objects.filter(kind="deletion_brake").exists()
    call_command("release_brake", "validate:InventoryIsAlwaysRight", stdout=io.StringIO())
    call_command("validate_files", "--apply", stdout=io.StringIO())
    assert not StorageLocation.objects.exists()


def test_a_rule_of_a_namespace_stops_its_files_alone(place: Site) -> None:
    BrakeRule.objects.create(namespace="cadc:RAW/", most_count=0)
    lose(place, 1, "cadc:RAW/")
    lose(place, 2)
    place.run()
    ids = list(ValidationFinding.objects.order_by("uri").values_list("uri", flat=True))
    assert ids[0] == "cadc:RAW/0"
    for finding in ValidationFinding.objects.filter(state="open").order_by("-uri"):
        if finding.uri == "cadc:RAW/0":
            with pytest.raises(DeletionBrakeError, match="1 artifacts of cadc:RAW/"):
                place.apply_one(finding.pk)
        else:
            assert place.apply_one(finding.pk).is_done
    assert StorageLocation.objects.count() == 1


def test_the_admin_says_so_and_applies_nothing(place: Site) -> None:
    lose(place, 4)
    place.run(grace=NOW)
    operator = Client()
    operator.force_login(get_user_model().objects.create_superuser("operator", password="any"))
    chosen = [str(one) for one in ValidationFinding.objects.values_list("id", flat=True)]
    url = "/admin/file_validate/validationfinding/"
    page = operator.post(url, {"action": "apply", "_selected_action": chosen}, follow=True).content.decode()
    assert "would remove 4 artifacts after 0 today" in page
    assert StorageLocation.objects.count() == 4
