"""The operator's pages of snapshots."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from datamodel.models import InventoryIdentity, RemoteInventory
from datamodel.rows import database_now
from datamodel.snapshots import operations
from datamodel.snapshots.models import PinSource, Snapshot, SnapshotAcknowledgement, SnapshotSchedule
from datamodel.uris import Namespace


@pytest.fixture
def operator(inventory: InventoryIdentity) -> Client:
    del inventory
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("operator", password="x"))
    return client


def take(name: str = "one") -> Snapshot:
    return operations.create_snapshot(name=name, namespace=Namespace.parse("cadc:A/"), created_by="test")


def test_snapshots_are_shown_with_their_state_and_acknowledgements(operator: Client) -> None:
    snapshot = take()
    remote = RemoteInventory.objects.create(name="alpha", role="site", url="http://alpha.test")
    SnapshotAcknowledgement.objects.create(snapshot=snapshot, remote=remote, acknowledged_at=database_now())
    PinSource.objects.create(remote=remote, url=remote.url, heard_until=database_now(), heard_at=database_now())
    assert b"pinning" in operator.get("/admin/snapshots/snapshot/").content
    assert b"cadc:A/" in operator.get("/admin/snapshots/snapshot/", {"q": "cadc:A"}).content
    assert b"alpha" in operator.get(f"/admin/snapshots/snapshot/{snapshot.id}/change/").content
    assert b"alpha" in operator.get("/admin/snapshots/pinsource/").content


def test_an_operator_deletes_snapshots_but_not_those_of_a_global(operator: Client) -> None:
    own, other = take(), take("other")
    RemoteInventory.objects.create(name="global", role="global", url="http://global.test")
    Snapshot.objects.filter(id=other.id).update(source="global")
    asked = {"action": "release", "_selected_action": [str(own.id), str(other.id)]}
    page = operator.post("/admin/snapshots/snapshot/", asked, follow=True).content
    assert b"Deleted: one" in page
    assert b"delete it there" in page
    assert [str(found) for found in Snapshot.objects.all()] == ["global:other"]


def test_a_schedule_is_made_and_a_wrong_one_refused_with_the_reason(operator: Client) -> None:
    good = {
        "name": "nightly",
        "namespace": "cadc:A/",
        "hourly": 0,
        "daily": 7,
        "monthly": 0,
        "yearly": 0,
        "enabled": "on",
    }
    for wrong, reason in (
        ({"namespace": "cadc:A"}, b"must end with"),
        ({"name": "a/b"}, b"use letters"),
        ({"daily": 0}, b"snapshot_schedule_keeps_some"),
    ):
        assert reason in operator.post("/admin/snapshots/snapshotschedule/add/", good | wrong).content
    assert operator.post("/admin/snapshots/snapshotschedule/add/", good).status_code == 302
    assert SnapshotSchedule.objects.get().daily == 7
    assert b"nightly" in operator.get("/admin/snapshots/snapshotschedule/").content


def test_a_snapshot_is_taken_by_name_and_namespace(operator: Client) -> None:
    asked = {"name": "one", "namespace": "cadc:A/"}
    assert operator.post("/admin/snapshots/snapshot/add/", asked).status_code == 302
    found = Snapshot.objects.get()
    assert (found.name, found.namespace, found.state, found.created_by) == ("one", "cadc:A/", "pinning", "operator")
    for wrong, reason in ((asked, b"of this name"), (asked | {"name": "b", "namespace": "x"}, b"must end with")):
        assert reason in operator.post("/admin/snapshots/snapshot/add/", wrong).content
    assert b"cadc:A/" in operator.get(f"/admin/snapshots/snapshot/{found.id}/change/").content
