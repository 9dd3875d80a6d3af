"""The brake: a peer whose news would remove too much is stopped before the first row, alone, until somebody lets it pass."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from datamodel import brake
from datamodel.alarms.models import Alarm
from datamodel.deletion import Limits, governing
from datamodel.errors import DeletionBrakeError
from datamodel.models import Artifact, BrakeRule, DeletedArtifactEvent, DeletionBrake, RemoteInventory
from datamodel.rules import ArtifactRow
from harvest import exchange
from tests.factories import artifact_row
from tests.fakes.feed import FakeInventory, serve
from tests.harvest.conftest import remote_to


@pytest.fixture
def known(from_site: RemoteInventory, peer: FakeInventory, settings: Settings) -> list[ArtifactRow]:
    """Ten artifacts of a site that we, a global, know; three removals a day pass unasked."""
    assert from_site.enabled
    settings.INVENTORY_BRAKE_COUNT, settings.INVENTORY_BRAKE_PERCENT = 3, 10
    rows = [artifact_row(f"cadc:TEST/{number}") for number in range(10)]
    for row in rows:
        peer.add_artifact(row)
    exchange.harvest("peer")
    return rows


def remaining() -> int:
    return Artifact.objects.count()


def stopped() -> None:
    with pytest.raises(DeletionBrakeError):
        exchange.harvest("peer")


def test_few_deletions_pass_and_are_counted(peer: FakeInventory, known: list[ArtifactRow]) -> None:
    for row in known[:3]:
        peer.delete(row)
    assert exchange.harvest("peer").is_complete
    assert remaining() == 7
    found = DeletionBrake.objects.get()
    assert (found.source, found.removed, found.engaged_at) == ("harvest:peer", 3, None)


def test_too_many_stop_the_peer_before_the_first_row_and_its_artifacts_with_them(
    peer: FakeInventory, known: list[ArtifactRow]
) -> None:
    for row in known[:4]:
        peer.delete(row)
    peer.add_artifact(artifact_row("cadc:TEST/new"))
    for _ in range(2):
        stopped()
        assert remaining() == 10
        assert not DeletedArtifactEvent.objects.exists()
    found = DeletionBrake.objects.get()
    assert found.engaged_at is not None
    assert "would remove 4 artifacts after 0 today; 3 a day pass unasked" in found.reason
    assert RemoteInventory.objects.get().last_error.startswith("deletion_brake: harvest:peer would remove 4")


def test_pages_of_one_day_add_up_and_what_passed_before_stands(
    peer: FakeInventory, known: list[ArtifactRow], settings: Settings
) -> None:
    settings.INVENTORY_HARVEST_BATCH = 2
    for row in known:
        peer.delete(row)
    stopped()
    assert remaining() == 8
    assert DeletionBrake.objects.get().removed == 2


def test_a_new_day_counts_from_nothing_but_does_not_free_who_was_stopped(
    peer: FakeInventory, known: list[ArtifactRow]
) -> None:
    for row in known[:3]:
        peer.delete(row)
    exchange.harvest("peer")
    DeletionBrake.objects.update(day=timezone.now().date() - timedelta(days=1))
    for row in known[3:6]:
        peer.delete(row)
    assert exchange.harvest("peer").is_complete
    assert DeletionBrake.objects.get().removed == 3
    peer.delete(known[6])
    stopped()
    DeletionBrake.objects.update(day=timezone.now().date() - timedelta(days=1))
    stopped()
    assert remaining() == 4


def test_whoever_an_operator_lets_pass_goes_on_for_that_time(peer: FakeInventory, known: list[ArtifactRow]) -> None:
    for row in known:
        peer.delete(row)
    peer.add_artifact(artifact_row("cadc:TEST/new"))
    stopped()
    out = StringIO()
    call_command("release_brake", stdout=out)
    assert "harvest:peer: 0 removed on " in out.getvalue()
    assert "STOPPED: harvest:peer would remove 10" in out.getvalue()
    call_command("release_brake", "harvest:peer", "--hours", "1", stdout=out)
    assert exchange.harvest("peer").is_complete
    assert [artifact.uri for artifact in Artifact.objects.all()] == ["cadc:TEST/new"]
    DeletionBrake.objects.update(released_until=timezone.now())
    peer.delete(artifact_row("cadc:TEST/new", id=Artifact.objects.get().id))
    stopped()
    with pytest.raises(CommandError, match="no source harvest:nobody"):
        call_command("release_brake", "harvest:nobody")


def test_one_stopped_peer_does_not_stop_another(peer: FakeInventory, known: list[ArtifactRow]) -> None:
    for row in known:
        peer.delete(row)
    stopped()
    with serve() as other:
        other.add_site(resource_id="ivo://fake/other")
        other.add_artifact(artifact_row("cadc:OTHER/1"))
        remote_to(other, role="site", name="other")
        assert exchange.harvest("other").is_complete
    assert remaining() == 11


def test_deletions_of_what_is_not_known_here_are_no_removals(peer: FakeInventory, known: list[ArtifactRow]) -> None:
    assert known
    for number in range(20):
        peer.add_tombstone(artifact_row(f"cadc:ELSE/{number}"))
    assert exchange.harvest("peer").is_complete
    assert DeletedArtifactEvent.objects.count() == 20


@pytest.mark.usefixtures("inventory")
def test_a_share_keeps_large_inventories_working() -> None:
    limits = Limits(count=10, share=0.05)
    assert [limits.allowance(total) for total in (0, 100, 200, 1000)] == [10, 10, 10, 50]
    assert not limits.exceeded(removed=40, more=10, total=1000)
    assert limits.exceeded(removed=41, more=10, total=1000)


def test_the_operator_lets_pass_in_the_admin_and_the_metrics_tell(
    peer: FakeInventory, known: list[ArtifactRow], settings: Settings
) -> None:
    settings.INVENTORY_METRICS_PUBLIC = True
    for row in known:
        peer.delete(row)
    stopped()
    assert (
        'inventory_deletion_brake_engaged{namespace="",source="harvest:peer"} 1.0'
        in Client().get("/metrics").content.decode()
    )
    operator = Client()
    operator.force_login(get_user_model().objects.create_superuser("operator", password="any"))
    url = "/admin/datamodel/deletionbrake/"
    assert "would remove 10 artifacts" in operator.get(url).content.decode()
    chosen = {"action": "release", "_selected_action": [str(DeletionBrake.objects.get().pk)]}
    assert "1 may pass for 24 hours" in operator.post(url, chosen, follow=True).content.decode()
    assert exchange.harvest("peer").is_complete
    text = Client().get("/metrics").content.decode()
    assert 'inventory_deletion_brake_engaged{namespace="",source="harvest:peer"} 0.0' in text
    assert 'inventory_deletions_today{namespace="",source="harvest:peer"} 10.0' in text


@pytest.mark.usefixtures("inventory")
def test_what_a_stopped_transaction_counted_is_undone_with_it(settings: Settings) -> None:
    settings.INVENTORY_BRAKE_COUNT = 3
    uris = [f"cadc:TEST/{number}" for number in range(4)]
    with pytest.raises(DeletionBrakeError) as stopped, transaction.atomic():
        brake.count_removals(source="run", uris=uris)
    assert not DeletionBrake.objects.exists()
    brake.engage(stopped.value)
    brake.engage(DeletionBrakeError("again", source="run", namespace=""))
    assert DeletionBrake.objects.get().reason.startswith("run would remove 4 artifacts after 0 today")


def test_a_namespace_with_a_rule_is_judged_by_it_alone_and_the_longest_decides(
    peer: FakeInventory, known: list[ArtifactRow], settings: Settings
) -> None:
    settings.INVENTORY_BRAKE_COUNT = 100
    BrakeRule.objects.create(namespace="cadc:", most_count=50)
    BrakeRule.objects.create(namespace="cadc:TEST/", most_count=2)
    for row in known[:3]:
        peer.delete(row)
    stopped()
    assert remaining() == 10
    found = DeletionBrake.objects.get()
    assert (found.namespace, found.engaged_at is not None) == ("cadc:TEST/", True)
    assert "3 artifacts of cadc:TEST/ after 0 today; 2 a day pass" in found.reason
    assert Alarm.objects.get().subject == "harvest:peer cadc:TEST/"
    with pytest.raises(CommandError, match="no source"):
        call_command("release_brake", "harvest:peer", "--namespace", "")
    call_command("release_brake", "harvest:peer", "--namespace", "cadc:TEST/", stdout=StringIO())
    assert Alarm.objects.get().cleared_at is not None
    assert exchange.harvest("peer").is_complete
    assert remaining() == 7


def test_a_generous_rule_lets_a_scratch_namespace_be_emptied_and_does_not_count_for_the_others(
    peer: FakeInventory, known: list[ArtifactRow]
) -> None:
    BrakeRule.objects.create(namespace="cadc:TEST/", most_count=0, most_percent=100)
    precious = [artifact_row(f"cadc:PRECIOUS/{number}") for number in range(4)]
    for row in precious:
        peer.add_artifact(row)
    exchange.harvest("peer")
    for row in [*known, *precious[:3]]:
        peer.delete(row)
    assert exchange.harvest("peer").is_complete
    assert dict(DeletionBrake.objects.values_list("namespace", "removed")) == {"cadc:TEST/": 10, "": 3}
    peer.delete(precious[3])
    stopped()
    assert remaining() == 1


def test_a_share_of_a_namespace_is_counted_no_further_than_needed() -> None:
    limits = Limits(count=1, share=0.1)
    assert [limits.total_that_allows(removals) for removals in (0, 4, 9)] == [10, 50, 100]
    assert all(limits.allowance(limits.total_that_allows(removals)) >= removals for removals in range(1000))
    assert Limits(count=1, share=0).total_that_allows(7) == 0


@pytest.mark.parametrize(
    ("uri", "namespace"),
    [("cadc:A/b/1", "cadc:A/b/"), ("cadc:A/1", "cadc:A/"), ("cadc:1", ""), ("", ""), ("cadc:A/b", "cadc:A/")],
)
def test_the_longest_namespace_governs(uri: str, namespace: str) -> None:
    assert governing(uri, ["cadc:A/", "cadc:A/b/", "x:"]) == namespace


@pytest.mark.usefixtures("inventory")
def test_rules_are_made_in_the_admin_and_nonsense_is_refused() -> None:
    operator = Client()
    operator.force_login(get_user_model().objects.create_superuser("operator", password="any"))
    url = "/admin/datamodel/brakerule/add/"
    assert (
        "must end with"
        in operator.post(url, {"namespace": "cadc", "most_count": 1, "most_percent": 0}).content.decode()
    )
    operator.post(url, {"namespace": "cadc:X/", "most_count": 7, "most_percent": 0})
    assert BrakeRule.objects.get().most_count == 7
