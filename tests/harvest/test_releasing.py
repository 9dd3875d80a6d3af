"""A copy that its site may drop stays marked at a global, whatever is harvested or compared; only a newer copy counts again."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.db import connection

from datamodel.models import HarvestState, SiteLocation
from datamodel.rules import ArtifactRow
from harvest import exchange
from harvest.reconcile import compare
from harvest.reconcile.models import ReconcileRun
from harvest.reconcile.rules import Mode
from tests.factories import WHEN, artifact_row
from tests.fakes.feed import FakeInventory, event_fields
from tests.harvest.crashes import everything

pytestmark = pytest.mark.usefixtures("from_site")

AGO = WHEN - timedelta(days=1)
LATER = WHEN + timedelta(milliseconds=1)


@pytest.fixture
def row(peer: FakeInventory) -> ArtifactRow:
    """Stored at the peer since WHEN, harvested, and marked as going."""
    row = artifact_row()
    peer.add_artifact(row)
    peer.add("locations", event_fields(row.id, row.uri))
    assert exchange.harvest("peer").is_complete
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE site_location SET releasing_at = inventory_now(), release_id = %s, release_stored_at = %s",
            [uuid.uuid4(), WHEN],
        )
        assert cursor.rowcount == 1
    return row


def is_releasing() -> bool:
    return SiteLocation.objects.get().releasing_at is not None


def harvest_all_again() -> None:
    HarvestState.objects.update(epoch="", cur_txid=0, cur_id=uuid.UUID(int=0))
    assert exchange.harvest("peer").is_complete


def compared() -> ReconcileRun:
    return compare.reconcile("peer", mode=Mode.ALL)


def test_a_harvest_from_the_start_leaves_the_mark(row: ArtifactRow) -> None:
    before = everything()
    harvest_all_again()
    assert everything() == before


def test_an_update_of_the_artifact_leaves_the_mark(peer: FakeInventory, row: ArtifactRow) -> None:
    peer.add_artifact(row)
    harvest_all_again()
    assert is_releasing()


def test_a_copy_stored_later_counts_again(peer: FakeInventory, row: ArtifactRow) -> None:
    peer.remove("locations", str(row.id))
    peer.add("locations", event_fields(row.id, row.uri, LATER))
    assert exchange.harvest("peer").is_complete
    assert not is_releasing()
    assert SiteLocation.objects.get().release_id is None


def test_the_end_of_the_copy_ends_the_mark(peer: FakeInventory, row: ArtifactRow) -> None:
    peer.remove("locations", str(row.id))
    peer.add("deleted-locations", event_fields(row.id, row.uri, LATER))
    assert exchange.harvest("peer").is_complete
    assert not SiteLocation.objects.exists()


def test_news_of_the_end_of_an_earlier_copy_do_not_end_the_mark(peer: FakeInventory, row: ArtifactRow) -> None:
    peer.add("deleted-locations", event_fields(row.id, row.uri, AGO))
    assert exchange.harvest("peer").is_complete
    assert is_releasing()


def test_a_comparison_sees_no_difference_and_leaves_the_mark(row: ArtifactRow) -> None:
    before = everything()
    run = compared()
    assert (run.is_complete, run.differences) == (True, {})
    assert everything() == before


def test_a_comparison_repairs_the_artifact_of_a_marked_copy_and_leaves_the_mark(row: ArtifactRow) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM artifact")
    run = compared()
    assert run.differences == {"B0-missing-here": 1}
    assert is_releasing()


def test_a_comparison_after_the_drop_takes_the_copy_away(peer: FakeInventory, row: ArtifactRow) -> None:
    peer.remove("artifacts", str(row.id))
    peer.remove("locations", str(row.id))
    assert is_releasing()
    run = compared()
    assert run.is_complete
    assert not SiteLocation.objects.exists()
