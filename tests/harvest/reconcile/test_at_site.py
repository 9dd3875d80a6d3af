"""A site compares with a global: what its policy wants and what it stores, against what the global knows of that."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from datamodel import operations as model_operations
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    DeletedStorageLocationEvent,
    HarvestState,
    InventoryIdentity,
    RetiredArtifact,
    StorageLocation,
)
from datamodel.rules import ArtifactRow, meta_checksum_of
from datamodel.uris import ArtifactUri, Namespace
from harvest import exchange, operations
from harvest.reconcile import compare, queries
from harvest.reconcile.models import ReconcileRun
from harvest.reconcile.rules import Mode
from site_service.policy.models import SyncPolicy
from site_service.policy.queries import harvest_selection
from tests.factories import artifact_row, insert_artifact_row, new_content
from tests.fakes.feed import FakeInventory
from tests.harvest.crashes import everything
from tests.harvest.selections import Wishes

pytestmark = pytest.mark.usefixtures("from_global", "policy")


def filled(peer: FakeInventory, count: int = 30) -> list[ArtifactRow]:
    rows = [artifact_row(f"cadc:TEST/{number}") for number in range(count)]
    for row in rows:
        peer.add_artifact(row)
    assert exchange.harvest("peer").is_complete
    return rows


def compared(mode: Mode = Mode.ALL) -> ReconcileRun:
    return compare.reconcile("peer", mode=mode)


def own_id() -> str:
    return str(InventoryIdentity.objects.get().inventory_id)


def put(uri: str, data: bytes = b"content") -> ArtifactRow:
    return model_operations.record_stored(uri=ArtifactUri.parse(uri), content=new_content(data)).artifact


def test_equal_sets_need_one_request(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted, policy.excluded = ["cadc:"], ["cadc:TEST/raw/"]
    filled(peer)
    peer.add_artifact(artifact_row("cadc:TEST/raw/1"))
    peer.add_artifact(artifact_row("other:x"))
    peer.add_artifact(put("other:held"), holder=own_id())
    assert exchange.harvest("peer").is_complete
    before = everything()
    run = compared(Mode.REPORT)
    assert (run.differences, run.requests, run.rows_here, run.rows_there) == ({}, 1, 31, 31)
    (query,) = peer.asked("tree")
    assert (query["set"], query["namespace"], query["except"]) == (["known"], ["cadc:"], ["cadc:TEST/raw/"])
    assert everything() == before


def test_a_policy_is_asked_for_with_all_its_rules(peer: FakeInventory) -> None:
    for namespace, wanted in (("a:", True), ("a:b/", False), ("a:b/c/", True)):
        SyncPolicy.objects.create(namespace=namespace, wanted=wanted, priority=0)
    selection = harvest_selection()
    assert selection.rules == (
        (Namespace.parse("a:"), True),
        (Namespace.parse("a:b/"), False),
        (Namespace.parse("a:b/c/"), True),
    )
    for uri in ("a:x", "a:b/x", "a:b/c/x", "z:x"):
        chosen = queries.filter_of(selection)
        assert chosen.matches(uri) == selection.is_wanted(uri), uri


def test_a_lost_row_comes_back_and_a_repeat_finds_nothing(peer: FakeInventory) -> None:
    rows = filled(peer)
    Artifact.objects.filter(id__in=[rows[0].id, rows[1].id]).delete()
    run = compared(Mode.ADD)
    assert run.applied == {"B0-missing-here": 2}
    assert Artifact.objects.count() == 30
    before = everything()
    assert compared(Mode.ALL).differences == {}
    assert everything() == before


def test_a_deletion_that_was_missed_is_made_up_for_and_the_bytes_are_retained(peer: FakeInventory) -> None:
    filled(peer, 5)
    mine = put("cadc:TEST/mine")
    peer.add_tombstone(mine, datetime.now(UTC) + timedelta(seconds=5))
    HarvestState.objects.filter(name="deleted-artifacts").update(cur_txid=peer.txid)
    run = compared(Mode.ADD)
    assert (run.differences, run.applied) == ({"A1-deleted-there": 1}, {})
    assert StorageLocation.objects.exists()
    assert compared(Mode.ALL).applied == {"A1-deleted-there": 1}
    assert RetiredArtifact.objects.get().id == DeletedArtifactEvent.objects.get().id == mine.id
    assert not Artifact.objects.filter(id=mine.id).exists()


def test_content_put_again_after_the_deletion_stays_under_a_new_id(peer: FakeInventory) -> None:
    filled(peer, 5)
    mine = put("cadc:TEST/mine")
    Artifact.objects.filter(id=mine.id).update(reaffirmed_at=datetime.now(UTC) + timedelta(seconds=60))
    peer.add_tombstone(mine, datetime.now(UTC))
    HarvestState.objects.filter(name="deleted-artifacts").update(cur_txid=peer.txid)
    assert compared(Mode.ALL).applied == {"A1-deleted-there": 1}
    kept = StorageLocation.objects.get()
    assert kept.artifact_id != mine.id
    assert kept.artifact.uri == mine.uri


def test_what_only_we_have_is_told_and_left(peer: FakeInventory) -> None:
    rows = filled(peer, 5)
    mine = put("cadc:TEST/mine")
    peer.remove("artifacts", str(rows[0].id))
    before = everything()
    run = compared(Mode.ALL)
    assert (run.differences, run.applied) == ({"A4-only-here": 2}, {})
    assert everything() == before
    assert Artifact.objects.filter(id=mine.id).exists()


def test_copies_that_the_global_counts_wrongly_are_its_own_affair(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = ["cadc:"]
    filled(peer, 5)
    stored, never_here = put("other:stored"), artifact_row("other:never")
    peer.add_artifact(stored)
    peer.add_artifact(never_here, holder=own_id())
    before = None
    for _ in range(2):
        run = compared(Mode.ALL)
        assert (run.differences, run.applied) == ({"A3-copy-not-recorded-there": 1, "B8-not-wanted-here": 1}, {})
        assert before in {None, str(everything())}
        before = str(everything())


def test_rows_that_policy_no_longer_wants_go_only_if_nothing_of_them_is_here(
    peer: FakeInventory, policy: Wishes
) -> None:
    filled(peer, 5)
    held, lost, unwanted = put("other:held"), put("other:lost"), artifact_row("other:unwanted")
    for row in (held, lost):
        peer.add_artifact(row, holder=own_id())
    model_operations.detach_location(artifact_id=lost.id)
    insert_artifact_row(unwanted)
    assert exchange.harvest("peer").is_complete
    assert DeletedStorageLocationEvent.objects.get().id == lost.id
    run = compared(Mode.ADD)
    assert (run.differences.get("A0-filter-excludes"), run.applied) == (1, {})
    assert compared(Mode.ALL).applied == {"A0-filter-excludes": 1}
    remaining = set(Artifact.objects.filter(uri__startswith="other:").values_list("id", flat=True))
    assert remaining == {held.id, lost.id}


def test_what_a_backfill_will_bring_is_left_to_it(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = ["cadc:A/"]
    peer.add_artifact(artifact_row("cadc:A/1"))
    peer.add_artifact(artifact_row("cadc:B/1"))
    assert exchange.harvest("peer").is_complete
    policy.wanted = ["cadc:A/", "cadc:B/"]
    assert compared(Mode.REPORT).differences == {"D0-not-harvested-yet": 1}, "neither covered nor begun"
    operations.request_backfill([Namespace.parse("cadc:B/")])
    assert compared(Mode.REPORT).differences == {"D0-not-harvested-yet": 1}, "begun, not passed"
    assert compared(Mode.ALL).differences == {}
    assert Artifact.objects.count() == 2
    Artifact.objects.filter(uri="cadc:B/1").delete()
    assert compared(Mode.ALL).applied == {"B0-missing-here": 1}, "joined and lost again"


def test_newer_metadata_are_taken(peer: FakeInventory) -> None:
    rows = filled(peer, 5)
    changed = replace(rows[0], content_type="x/y", meta_modified_at=rows[0].meta_modified_at + timedelta(seconds=5))
    peer.add_artifact(replace(changed, meta_checksum=meta_checksum_of(changed)))
    HarvestState.objects.filter(name="artifacts").update(cur_txid=peer.txid, cur_id=uuid.UUID(int=2**128 - 1))
    assert compared(Mode.ADD).applied == {"C3-newer-there": 1}
    assert Artifact.objects.get(id=rows[0].id).content_type == "x/y"


def test_a_policy_of_very_many_namespaces_is_posted(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = [f"cadc:{'long' * 20}{number}/" for number in range(90)]
    row = artifact_row(f"{policy.wanted[7]}x")
    peer.add_artifact(row)
    assert exchange.harvest("peer").is_complete
    Artifact.objects.all().delete()
    assert compared().applied == {"B0-missing-here": 1}
    assert len(peer.asked("tree")[0]["namespace"]) == 90


def test_a_site_that_wants_nothing_compares_what_it_stores(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = []
    held = put("cadc:TEST/held")
    peer.add_artifact(held, holder=own_id())
    peer.add_artifact(artifact_row("cadc:TEST/other"))
    assert exchange.harvest("peer").is_complete
    run = compared(Mode.ALL)
    assert (run.differences, run.rows_here, run.rows_there) == ({}, 1, 1)
