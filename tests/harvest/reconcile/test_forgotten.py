"""What one side has and the other may have deleted and forgotten: neither brought back nor removed, but asked about."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pytest_django import Settings

from datamodel import operations as model_operations
from datamodel.alarms.models import Alarm
from datamodel.errors import DeletionBrakeError
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    DeletedStorageLocationEvent,
    FeedReader,
    HarvestState,
    InventoryIdentity,
    RemoteInventory,
    StorageLocation,
)
from datamodel.positions import read_identity
from datamodel.rows import database_now
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from datamodel.wire import time_text
from harvest import exchange
from harvest.reconcile import compare
from harvest.reconcile.models import ReconcileRun
from harvest.reconcile.rules import Mode
from site_service.file_validate.models import QuarantinedObject
from tests.factories import artifact_row, new_content
from tests.fakes.feed import FakeInventory


def put(uri: str) -> ArtifactRow:
    return model_operations.record_stored(uri=ArtifactUri.parse(uri), content=new_content()).artifact


def compared(mode: Mode = Mode.ADD) -> ReconcileRun:
    return compare.reconcile("peer", mode=mode)


def the_peer_has_read_us(peer: FakeInventory) -> None:
    """Up to now."""
    FeedReader.objects.create(
        caller="peer",
        inventory_id=peer.inventory_id,
        epoch=read_identity().epoch,
        txid=max(Artifact.objects.values_list("txid", flat=True)),
        asked_at=database_now(),
    )


def everything_until_now_may_be_forgotten(peer: FakeInventory) -> None:
    peer.expired_until = time_text(database_now() + timedelta(seconds=1))


@pytest.fixture
def mine(from_global: RemoteInventory, policy: object, peer: FakeInventory) -> list[ArtifactRow]:
    """Five files that only we have; the global has others."""
    assert from_global.enabled
    assert policy
    peer.add_artifact(artifact_row("cadc:TEST/theirs"))
    assert exchange.harvest("peer").is_complete
    return [put(f"cadc:TEST/mine{number}") for number in range(5)]


def test_a_site_keeps_apart_what_the_global_knew_and_may_have_deleted(
    peer: FakeInventory, mine: list[ArtifactRow]
) -> None:
    the_peer_has_read_us(peer)
    everything_until_now_may_be_forgotten(peer)
    assert compared(Mode.REPORT).applied == {}
    run = compared()
    assert run.differences == run.applied == {"A6-perhaps-deleted-there": 5}
    held = QuarantinedObject.objects.filter(state="quarantined")
    assert set(held.values_list("artifact_id", flat=True)) == {row.id for row in mine}
    assert not StorageLocation.objects.exists()
    assert [artifact.uri for artifact in Artifact.objects.all()] == ["cadc:TEST/theirs"]
    assert not DeletedArtifactEvent.objects.exists(), "nothing is deleted anywhere"
    assert DeletedStorageLocationEvent.objects.count() == 5
    assert Alarm.objects.get(kind="quarantined_object").count == 5
    assert compared().differences == {}


@pytest.mark.usefixtures("mine")
def test_what_the_global_has_not_read_yet_is_new_and_stays(peer: FakeInventory) -> None:
    the_peer_has_read_us(peer)
    everything_until_now_may_be_forgotten(peer)
    new = put("cadc:TEST/new")
    run = compared()
    assert run.differences == {"A6-perhaps-deleted-there": 5, "A4-only-here": 1}
    assert StorageLocation.objects.get().artifact_id == new.id


@pytest.mark.parametrize("memory", ["never expired", "older than the files", "read by nobody"])
@pytest.mark.usefixtures("mine")
def test_without_proof_that_it_was_forgotten_nothing_is_touched(peer: FakeInventory, memory: str) -> None:
    if memory != "read by nobody":
        the_peer_has_read_us(peer)
    if memory == "older than the files":
        peer.expired_until = time_text(database_now() - timedelta(days=1))
    if memory == "read by nobody":
        everything_until_now_may_be_forgotten(peer)
    run = compared(Mode.ALL)
    assert (run.differences, run.applied) == ({"A4-only-here": 5}, {})
    assert StorageLocation.objects.count() == 5


@pytest.mark.usefixtures("mine")
def test_a_global_that_forgot_everything_meets_the_brake(peer: FakeInventory, settings: Settings) -> None:
    settings.INVENTORY_BRAKE_COUNT, settings.INVENTORY_BRAKE_PERCENT = 3, 0
    the_peer_has_read_us(peer)
    everything_until_now_may_be_forgotten(peer)
    with pytest.raises(DeletionBrakeError):
        compared()
    assert StorageLocation.objects.count() == 5
    assert not QuarantinedObject.objects.exists()


def test_a_site_that_was_away_too_long_goes_on_from_the_present_and_is_compared(
    peer: FakeInventory, mine: list[ArtifactRow]
) -> None:
    the_peer_has_read_us(peer)
    everything_until_now_may_be_forgotten(peer)
    peer.txid += 50
    peer.gone_txid = peer.txid
    peer.add_artifact(artifact_row("cadc:TEST/after"))
    late = artifact_row("cadc:TEST/deleted-later")
    peer.add_tombstone(late)
    found = exchange.harvest("peer")
    assert found.is_complete
    assert found.must_reconcile
    assert HarvestState.objects.get(name="deleted-artifacts").cur_txid >= peer.gone_txid
    assert DeletedArtifactEvent.objects.get().id == late.id
    assert Artifact.objects.filter(uri="cadc:TEST/after").exists()
    assert StorageLocation.objects.count() == len(mine), "harvest alone takes nothing away"
    assert Alarm.objects.get().kind == "history_gone"
    assert not exchange.harvest("peer").must_reconcile
    assert compared().applied == {"A6-perhaps-deleted-there": 5}
    assert Alarm.objects.get(kind="history_gone").cleared_at is not None


def test_a_global_does_not_bring_back_what_it_may_have_deleted(from_site: RemoteInventory, peer: FakeInventory) -> None:
    assert from_site.enabled
    rows = [artifact_row(f"cadc:TEST/{number}") for number in range(3)]
    for row in rows:
        peer.add_artifact(row)
    assert exchange.harvest("peer").is_complete
    Artifact.objects.filter(id=rows[0].id).delete()
    InventoryIdentity.objects.update(events_gone_at=rows[0].content_last_modified)
    run = compared(Mode.ALL)
    assert (run.differences, run.applied) == ({"B6-perhaps-deleted-here": 1}, {})
    assert not Artifact.objects.filter(id=rows[0].id).exists()
    assert Alarm.objects.get().kind == "forgotten_artifacts"
    InventoryIdentity.objects.update(events_gone_at=rows[0].content_last_modified - timedelta(seconds=1))
    assert compared(Mode.ALL).applied == {"B0-missing-here": 1}
