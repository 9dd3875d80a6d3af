"""A global compares with a site: what is found, what is repaired, and what nobody touches."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from django.db import connection
from pytest_django.fixtures import Settings

from datamodel import rules as model_rules
from datamodel.alarms.models import Alarm
from datamodel.errors import InventoryError, NotReadyError, RemoteProtocolError, RemoteUnavailableError
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    HarvestConflict,
    HarvestRejection,
    HarvestState,
    RemoteInventory,
    SiteLocation,
)
from datamodel.rows import insert_tombstone
from datamodel.rules import ArtifactRow
from harvest import exchange, operations as harvest_operations
from harvest.reconcile import compare, operations as reconcile_operations, scope
from harvest.reconcile.models import ReconcileDifference, ReconcileRun
from harvest.reconcile.peer import Peer
from harvest.reconcile.rules import Mode
from tests.factories import WHEN, artifact_row, insert_artifact_row
from tests.fakes.feed import FakeInventory, event_fields
from tests.harvest.crashes import crash_everywhere, everything

pytestmark = pytest.mark.usefixtures("from_site")


def filled(peer: FakeInventory, count: int = 40) -> list[ArtifactRow]:
    rows = [artifact_row(f"cadc:TEST/{number}") for number in range(count)]
    for row in rows:
        peer.add_artifact(row)
    assert exchange.harvest("peer").is_complete
    return rows


def compared(mode: Mode = Mode.ALL) -> ReconcileRun:
    return compare.reconcile("peer", mode=mode)


def site_id() -> uuid.UUID:
    found = RemoteInventory.objects.get().site_id
    assert found is not None
    return found


def test_equal_inventories_exchange_a_few_hundred_bytes(peer: FakeInventory) -> None:
    filled(peer)
    peer.requests.clear()
    before = everything()
    run = compared(Mode.REPORT)
    assert (run.is_complete, run.rows_here, run.rows_there, run.differences) == (True, 40, 40, {})
    assert len(peer.requests) == run.requests == 1
    assert run.traffic_bytes < 300
    assert everything() == before


def test_every_lost_row_is_found_and_brought_back_and_a_repeat_finds_nothing(peer: FakeInventory) -> None:
    rows = filled(peer)
    SiteLocation.objects.filter(artifact_id__in=[rows[0].id, rows[1].id]).delete()
    Artifact.objects.filter(id__in=[rows[1].id, rows[2].id]).delete()
    expected = {"B5-copy-missing-here": 1, "B0-missing-here": 2}
    before = everything()
    assert compared(Mode.REPORT).differences == expected
    assert everything() == before, "a report changes nothing"
    run = compared(Mode.ADD)
    assert (run.differences, run.applied) == (expected, expected)
    assert SiteLocation.objects.count() == Artifact.objects.count() == 40
    before = everything()
    again = compared(Mode.ALL)
    assert (again.differences, again.requests) == ({}, 1)
    assert everything() == before


@pytest.mark.parametrize(("place", "most", "scans"), [(scope, 100, 16), (compare, 2, 1)], ids=["first", "below"])
def test_what_is_too_much_for_one_scan_is_compared_in_sections(
    peer: FakeInventory, monkeypatch: pytest.MonkeyPatch, place: ModuleType, most: int, scans: int
) -> None:
    rows = filled(peer, 600)
    monkeypatch.setattr(place, "ROWS_OF_A_SCAN", most)
    equal = compared(Mode.REPORT)
    assert (equal.is_complete, equal.rows_here, equal.rows_there, equal.differences) == (True, 600, 600, {})
    assert equal.requests == scans
    Artifact.objects.filter(id__in=[row.id for row in rows[:70]]).delete()
    run = compared(Mode.ADD)
    assert (run.differences, run.applied) == ({"B0-missing-here": 70}, {"B0-missing-here": 70})
    assert compared(Mode.REPORT).differences == {}


def test_copies_that_the_site_does_not_have_are_reported_and_removed_only_when_told(peer: FakeInventory) -> None:
    rows = filled(peer)
    for row in rows[:3]:
        peer.remove("artifacts", str(row.id))
    peer.add("deleted-locations", event_fields(rows[0].id, rows[0].uri))
    peer.add_tombstone(rows[1])
    # Their news were read, and then lost here.
    assert exchange.harvest("peer").is_complete
    DeletedArtifactEvent.objects.all().delete()
    insert_artifact_row(rows[1])
    SiteLocation.objects.bulk_create(SiteLocation(artifact_id=row.id, site_id=site_id()) for row in rows[:2])
    expected = {"A1-deleted-there": 1, "A2-copy-dropped-there": 1, "A5-copy-unknown-there": 1}
    before = everything()
    run = compared(Mode.ADD)
    assert (run.differences, run.applied) == (expected, {})
    assert everything() == before
    assert Alarm.objects.get().text.startswith("3 rows here should go")
    assert compared(Mode.ALL).applied == expected
    assert not SiteLocation.objects.filter(artifact_id__in=[row.id for row in rows[:3]]).exists()
    known = set(Artifact.objects.values_list("id", flat=True))
    assert {rows[0].id, rows[2].id} <= known, "an artifact without copies stays"
    assert rows[1].id not in known
    assert DeletedArtifactEvent.objects.get().id == rows[1].id
    assert compared().differences == {}


def test_what_harvest_will_bring_is_left_to_it(peer: FakeInventory) -> None:
    rows = filled(peer)
    peer.add_artifact(artifact_row("cadc:TEST/new"))
    peer.delete(rows[0])
    peer.remove("artifacts", str(rows[1].id))
    peer.add("deleted-locations", event_fields(rows[1].id, rows[1].uri))
    assert compared(Mode.REPORT).differences == {"D0-not-harvested-yet": 3}
    assert compared(Mode.ALL).differences == {}, "it harvests first"


def test_news_that_never_end_do_not_keep_a_comparison_from_beginning(
    peer: FakeInventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = filled(peer, 5)
    SiteLocation.objects.filter(artifact_id=rows[0].id).delete()
    monkeypatch.setattr(compare, "_TURN_SECONDS", 0.2)
    added: list[int] = []

    def arrive(name: str) -> None:
        if name == "news":
            added.append(peer.add_artifact(artifact_row(f"cadc:TEST/late{len(added)}")))

    peer.before = arrive
    run = compared(Mode.ADD)
    assert run.applied == {"B5-copy-missing-here": 1}
    assert len(added) > 1


def test_nothing_is_concluded_from_another_epoch(peer: FakeInventory) -> None:
    rows = filled(peer)
    peer.epoch = "f" * 16
    peer.remove("artifacts", str(rows[0].id))
    SiteLocation.objects.filter(artifact_id=rows[1].id).delete()
    assert compared(Mode.REPORT).differences == {"D0-not-harvested-yet": 2}


def test_an_empty_inventory_is_filled(peer: FakeInventory) -> None:
    for number in range(30):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    assert compared(Mode.ADD).is_complete
    assert Artifact.objects.count() == 30
    SiteLocation.objects.all().delete()
    Artifact.objects.all().delete()
    run = compared(Mode.ADD)
    assert (run.applied, run.rows_here, run.rows_there) == ({"B0-missing-here": 30}, 0, 30)
    assert SiteLocation.objects.count() == Artifact.objects.count() == 30


def test_an_empty_site_is_believed_when_told(peer: FakeInventory) -> None:
    filled(peer, 5)
    peer.rows["artifacts"].clear()
    run = compared(Mode.ADD)
    assert (run.differences, run.applied) == ({"A5-copy-unknown-there": 5}, {})
    assert compared(Mode.ALL).applied == {"A5-copy-unknown-there": 5}
    assert (SiteLocation.objects.count(), Artifact.objects.count()) == (0, 5)


def test_newer_metadata_win_whichever_side_has_them(peer: FakeInventory) -> None:
    rows = filled(peer)

    def updated(row: ArtifactRow, seconds: int) -> ArtifactRow:
        changed = replace(row, content_type="x/y", meta_modified_at=WHEN + timedelta(seconds=seconds))
        return replace(changed, meta_checksum=model_rules.meta_checksum_of(changed))

    for row, seconds in ((rows[0], 5), (rows[1], -5)):
        changed = updated(row, seconds)
        state = next(r for r in peer.rows["artifacts"] if r["id"] == str(row.id))
        txid = state["txid"]
        peer.add_artifact(changed)
        # As if its place had been passed without being seen.
        next(r for r in peer.rows["artifacts"] if r["id"] == str(row.id))["txid"] = txid
    run = compared()
    assert run.differences == {"C3-newer-there": 1, "C4-newer-here": 1}
    assert run.applied == {"C3-newer-there": 1}
    assert Artifact.objects.get(id=rows[0].id).content_type == "x/y"
    assert Artifact.objects.get(id=rows[1].id).content_type is None
    before = everything()
    assert compared().differences == {"C4-newer-here": 1}
    assert everything() == before


def test_of_two_artifacts_of_one_uri_the_later_stands(peer: FakeInventory) -> None:
    rows = filled(peer, 4)
    for row, hours in ((rows[0], 1), (rows[1], -1)):
        rival = artifact_row(row.uri, content_last_modified=WHEN + timedelta(hours=hours))
        Artifact.objects.filter(id=row.id).delete()
        SiteLocation.objects.filter(artifact_id=row.id).delete()
        insert_artifact_row(rival)
    expected = {"C1-theirs-wins": 1, "C2-ours-wins": 1}
    assert compared(Mode.ADD).applied == {}
    assert compared(Mode.ALL).applied == expected
    assert HarvestConflict.objects.count() == 2
    assert Artifact.objects.filter(id=rows[1].id).exists()
    assert DeletedArtifactEvent.objects.filter(id=rows[0].id).exists()
    assert compared().differences == {"B1-deleted-here": 1}, "until the site has harvested the deletion"


def test_what_was_deleted_here_does_not_come_back(peer: FakeInventory) -> None:
    rows = filled(peer, 4)
    SiteLocation.objects.filter(artifact_id=rows[0].id).delete()
    Artifact.objects.filter(id=rows[0].id).delete()
    insert_tombstone(rows[0].id, rows[0].uri, deleted_at=WHEN)
    run = compared()
    assert (run.differences, run.applied) == ({"B1-deleted-here": 1}, {})


def test_a_row_with_a_false_checksum_is_set_aside(peer: FakeInventory) -> None:
    rows = filled(peer, 4)
    SiteLocation.objects.filter(artifact_id=rows[0].id).delete()
    Artifact.objects.filter(id=rows[0].id).delete()
    next(r for r in peer.rows["artifacts"] if r["id"] == str(rows[0].id))["contentLength"] = "99"
    run = compared()
    assert run.is_complete
    assert not Artifact.objects.filter(id=rows[0].id).exists()
    assert HarvestRejection.objects.count() == 1


def test_rows_outside_of_our_namespaces_are_not_compared_and_go_only_when_told(
    peer: FakeInventory, settings: Settings
) -> None:
    filled(peer, 4)
    settings.INVENTORY_NAMESPACES = ["cadc:TEST/"]
    outside = artifact_row("other:x")
    insert_artifact_row(outside)
    peer.add_artifact(artifact_row("other:y"))
    assert exchange.harvest("peer").is_complete
    run = compared(Mode.ADD)
    assert (run.differences, run.applied, run.rows_there) == ({"A0-filter-excludes": 1}, {}, 4)
    assert compared(Mode.ALL).applied == {"A0-filter-excludes": 1}
    assert Artifact.objects.count() == SiteLocation.objects.count() == 4
    assert compared(Mode.ALL).differences == {}


@pytest.mark.parametrize("pages", [(7, 3), (3, 100)])
def test_listings_of_many_pages_find_the_same(
    peer: FakeInventory, monkeypatch: pytest.MonkeyPatch, pages: tuple[int, int]
) -> None:
    rows = filled(peer, 120)
    lost = {row.id for row in rows[::3]}
    SiteLocation.objects.filter(artifact_id__in=lost).delete()
    Artifact.objects.filter(id__in=lost).delete()
    peer.rows["artifacts"] = [row for row in peer.rows["artifacts"] if row["id"] != str(rows[1].id)]
    monkeypatch.setattr(compare, "_PAGE_ROWS", pages[0])
    monkeypatch.setattr(compare, "_BATCH", pages[1])
    assert compared().applied == {"B0-missing-here": 40, "A5-copy-unknown-there": 1}
    assert compared().differences == {}


# --- peers that lie, break or change meanwhile


@pytest.mark.parametrize("answer", ["tree", "listing", "rows"])
@pytest.mark.parametrize("fault", ["cut", "gone", "count"])
def test_an_answer_that_is_not_whole_changes_nothing(peer: FakeInventory, answer: str, fault: str) -> None:
    rows = filled(peer)
    SiteLocation.objects.filter(artifact_id=rows[0].id).delete()
    before = everything()

    def break_it(name: str) -> None:
        if name == answer:
            peer.cut_after = 150 if fault == "cut" else None
            peer.status = {answer: 503} if fault == "gone" else {}
            if fault == "count":
                peer.twist = {"tree": _drop_end, "listing": _drop_end, "artifacts": _drop_end}

    peer.before = break_it
    expected: type[InventoryError] = RemoteUnavailableError if fault != "count" else InventoryError
    if fault == "count":
        return _expect_protocol_error(answer, peer)
    with pytest.raises(expected):
        compared(Mode.REPORT)
    run = ReconcileRun.objects.get()
    assert not run.is_complete
    assert run.error.startswith("remote_unavailable")
    assert everything() == before
    return None


def _drop_end(body: bytes) -> bytes:
    return body + b"nonsense\n"


def _expect_protocol_error(answer: str, peer: FakeInventory) -> None:
    with pytest.raises(RemoteProtocolError):
        compared(Mode.REPORT)
    assert ReconcileRun.objects.get().error.startswith("remote_protocol"), answer
    assert peer.requests


LIES: list[Callable[[bytes], bytes]] = [
    lambda body: body + body,
    lambda body: body.replace(b"\t", b" "),
    lambda body: body + b"zz\t1\t0000000000000000\n",
    lambda body: body + b"0\t0\t0000000000000000\n",
    lambda body: b"\xff\xfe\n",
]


@pytest.mark.parametrize("lie", range(len(LIES)))
@pytest.mark.parametrize("answer", ["tree", "listing"])
def test_nonsense_is_refused(peer: FakeInventory, answer: str, lie: int) -> None:
    rows = filled(peer)
    SiteLocation.objects.filter(artifact_id=rows[0].id).delete()
    peer.twist = {answer: LIES[lie]}
    with pytest.raises(RemoteProtocolError):
        compared(Mode.ALL)
    assert SiteLocation.objects.count() == 39


def test_a_tree_that_claims_emptiness_removes_nothing_that_the_site_has(peer: FakeInventory) -> None:
    filled(peer)
    peer.twist = {"tree": lambda _: b"", "listing": lambda _: b""}
    run = compared(Mode.ALL)
    assert (run.differences, run.applied) == ({}, {}), "each row is asked for by itself before anything is done"
    assert SiteLocation.objects.count() == 40


def test_rows_that_change_between_the_listing_and_the_repair_are_judged_as_they_are(peer: FakeInventory) -> None:
    rows = filled(peer)
    SiteLocation.objects.filter(artifact_id__in=[rows[0].id, rows[1].id]).delete()
    gone = next(r for r in peer.rows["artifacts"] if r["id"] == str(rows[2].id))
    peer.remove("artifacts", str(rows[2].id))
    seen: list[str] = []

    def change(name: str) -> None:
        if name == "rows" and not seen:
            seen.append(name)
            SiteLocation.objects.create(artifact_id=rows[0].id, site_id=site_id())
            peer.delete(rows[1])
            peer.rows["artifacts"].append(gone)
            connection.close()

    peer.before = change
    run = compared()
    assert seen
    assert run.differences == {}, "settled, or deleted beyond our cursor while our set has it not"
    assert SiteLocation.objects.filter(artifact_id=rows[2].id).exists()
    peer.before = lambda _: None
    assert compared().differences == {}
    assert not Artifact.objects.filter(id=rows[1].id).exists()


def test_nobody_harvests_between_the_look_and_the_repair(peer: FakeInventory) -> None:
    rows = filled(peer)
    SiteLocation.objects.filter(artifact_id=rows[0].id).delete()
    busy: list[bool] = []

    def harvest_too(name: str) -> None:
        if name == "rows":
            busy.append(exchange.harvest("peer").is_busy)
            connection.close()

    peer.before = harvest_too
    assert compared().applied == {"B5-copy-missing-here": 1}
    assert busy == [True]
    assert RemoteInventory.objects.get().lease_holder is None


def test_a_crash_anywhere_in_a_repair_leaves_all_or_nothing(
    peer: FakeInventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = filled(peer, 6)
    peer.remove("artifacts", str(rows[0].id))
    peer.delete(rows[1])
    assert exchange.harvest("peer").is_complete
    DeletedArtifactEvent.objects.all().delete()
    insert_artifact_row(rows[1])
    SiteLocation.objects.create(artifact_id=rows[1].id, site_id=site_id())
    SiteLocation.objects.filter(artifact_id=rows[2].id).delete()
    Artifact.objects.filter(id=rows[2].id).delete()
    before = everything()
    arguments: dict[str, Any] = {}

    def remember(**given: Any) -> list[Any]:
        arguments.update(given)
        return []

    settle = reconcile_operations.settle
    monkeypatch.setattr(reconcile_operations, "settle", remember)
    monkeypatch.setattr(Peer, "rows", _kept_open(Peer.rows))
    compared()
    lease = harvest_operations.claim_remote("peer")

    def check() -> None:
        assert everything() == before

    crashes = crash_everywhere(lambda: settle(**(arguments | {"lease": lease})), check)
    assert crashes > 15
    assert not SiteLocation.objects.filter(artifact_id__in=[rows[0].id, rows[1].id]).exists()
    assert SiteLocation.objects.filter(artifact_id=rows[2].id).exists()


def _kept_open(fetch: Callable[..., Any]) -> Callable[..., Any]:
    def rows(*arguments: Any) -> Any:
        return [replace(page, rows=_Unclosed(page.rows.read())) for page in fetch(*arguments)]

    return rows


class _Unclosed(io.BytesIO):
    def close(self) -> None:
        """The test reads it again."""


# --- reports


def test_a_run_lists_a_bounded_number_and_counts_all(peer: FakeInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = filled(peer, 12)
    SiteLocation.objects.all().delete()
    monkeypatch.setattr(reconcile_operations, "_LISTED_PER_RUN", 5)
    monkeypatch.setattr(reconcile_operations, "_RUNS_KEPT", 2)
    run = compared(Mode.REPORT)
    assert run.differences == {"B5-copy-missing-here": 12}
    assert ReconcileDifference.objects.filter(run=run).count() == 5
    assert {each.uri for each in ReconcileDifference.objects.all()} <= {row.uri for row in rows}
    for _ in range(3):
        compared(Mode.REPORT)
    assert ReconcileRun.objects.count() == 2


def test_a_run_that_was_stopped_is_not_complete(peer: FakeInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(peer, 3)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reconcile_operations, "settle_excluded", stop)
    with pytest.raises(KeyboardInterrupt):
        compared(Mode.REPORT)
    run = ReconcileRun.objects.get()
    assert (run.is_complete, run.error.partition(":")[0], run.finished_at is None) == (False, "interrupted", False)


def test_a_site_that_was_never_met_cannot_be_compared(peer: FakeInventory) -> None:
    with pytest.raises(NotReadyError, match="harvest it first"):
        compared(Mode.REPORT)
    assert ReconcileRun.objects.get().error
    with pytest.raises(NotReadyError, match="no enabled remote"):
        compare.reconcile("other", mode=Mode.REPORT)
    assert not HarvestState.objects.exists()
