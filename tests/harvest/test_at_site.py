"""A site harvests a global: what it takes, what it gives up, and that its bytes are neither lost nor fetched twice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from pytest_django.fixtures import Settings

from datamodel import operations as model_operations, sealing
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    HarvestConflict,
    HarvestState,
    InventoryIdentity,
    RemoteInventory,
    RetiredArtifact,
    StorageLocation,
    StorageLocationEvent,
)
from datamodel.operations import Recorded
from datamodel.queries import artifact_by_id, artifact_by_uri
from datamodel.rules import meta_checksum_of
from datamodel.service_tokens import Credential
from datamodel.uris import ArtifactUri, Namespace
from harvest import client, exchange, operations
from harvest.client import Remote
from harvest.exchange import Harvested
from harvest.pages import PageQuery
from harvest.streams import ARTIFACTS, DELETED_ARTIFACTS, Stream
from tests.factories import WHEN, artifact_row, new_content
from tests.fakes.feed import TOKEN, FakeInventory, serve
from tests.harvest.crashes import crash_everywhere, everything
from tests.harvest.selections import Wishes

pytestmark = pytest.mark.usefixtures("from_global", "policy")

URI = "cadc:TEST/file.fits"


def harvest() -> Harvested:
    found = exchange.harvest("peer")
    assert found.is_complete
    return found


def put(data: bytes = b"content", uri: str = URI) -> Recorded:
    return model_operations.record_stored(uri=ArtifactUri.parse(uri), content=new_content(data))


def soon(seconds: float) -> datetime:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).replace(microsecond=0)


def uris() -> set[str]:
    return {artifact.uri for artifact in Artifact.objects.all()}


def states() -> dict[str, HarvestState]:
    return {state.selector: state for state in HarvestState.objects.filter(name="artifacts")}


def asked(peer: FakeInventory) -> list[dict[str, list[str]]]:
    return peer.asked("artifacts")


# --- what it takes


def test_a_wanted_artifact_is_known_unstored_with_the_time_the_global_gave_it(peer: FakeInventory) -> None:
    row = artifact_row(last_modified=WHEN + timedelta(days=1))
    peer.add_artifact(row)
    harvest()
    known = artifact_by_id(row.id)
    assert known is not None
    assert (known.artifact, known.location) == (row, None)
    (query,) = asked(peer)
    assert query["namespace"] == ["cadc:"]
    assert query["holder"] == [str(InventoryIdentity.objects.get().inventory_id)]
    assert "namespace" not in peer.asked("deleted-artifacts")[0], "a deletion concerns everyone"


def test_what_is_neither_wanted_nor_here_is_left(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted, policy.excluded = ["cadc:A/"], ["cadc:A/raw/"]
    holder = str(InventoryIdentity.objects.get().inventory_id)
    for uri in ("cadc:A/1", "cadc:A/raw/1", "cadc:B/1"):
        peer.add_artifact(artifact_row(uri), holder=holder)
    assert harvest().rows == 3
    assert uris() == {"cadc:A/1"}


def test_news_of_what_is_here_are_taken_whatever_policy_says(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = ["cadc:OTHER/"]
    holder = str(InventoryIdentity.objects.get().inventory_id)
    row = put().artifact
    update = replace(row, content_type="image/fits", meta_modified_at=row.meta_modified_at + timedelta(seconds=1))
    update = replace(update, meta_checksum=meta_checksum_of(update))
    peer.add_artifact(update, holder=holder)
    harvest()
    known = artifact_by_id(row.id)
    assert known is not None
    assert known.artifact.content_type == "image/fits"
    assert known.location is not None


def test_a_settled_site_sends_and_changes_nothing(peer: FakeInventory) -> None:
    row = put().artifact
    peer.add_artifact(replace(row, last_modified=row.last_modified + timedelta(days=1)))
    peer.add_artifact(artifact_row("cadc:TEST/other"))
    harvest()
    before = sorted(Artifact.objects.values_list("id", "txid", "last_modified"))
    HarvestState.objects.update(epoch="")
    harvest()
    assert sorted(Artifact.objects.values_list("id", "txid", "last_modified")) == before
    assert harvest() == Harvested(is_complete=True)


def test_an_unwanted_collision_with_what_is_stored_is_decided_too(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = []
    ours = put(b"ours").artifact
    theirs = artifact_row(data=b"theirs", content_last_modified=soon(60))
    peer.add_artifact(theirs, holder=str(InventoryIdentity.objects.get().inventory_id))
    harvest()
    assert DeletedArtifactEvent.objects.get().id == ours.id
    assert not Artifact.objects.exists(), "the winner is not wanted here"
    assert RetiredArtifact.objects.get().state == "retained"


# --- deletions


def test_a_deletion_retires_the_bytes(peer: FakeInventory) -> None:
    row = put().artifact
    peer.add_tombstone(row, soon(10))
    harvest()
    assert not Artifact.objects.exists()
    assert RetiredArtifact.objects.get().id == row.id
    event = DeletedArtifactEvent.objects.get()
    assert event.last_modified == event.deleted_at, "the time that the global gave it"


def test_content_put_again_after_the_deletion_keeps_its_bytes_under_a_new_id(peer: FakeInventory) -> None:
    first = put().artifact
    deleted_at = Artifact.objects.get().content_last_modified
    put()
    located = StorageLocation.objects.get()
    Artifact.objects.update(reaffirmed_at=deleted_at + timedelta(seconds=2))
    peer.add_tombstone(first, deleted_at + timedelta(seconds=1))
    harvest()
    known = artifact_by_uri(URI)
    assert known is not None
    assert known.artifact.id != first.id
    assert known.artifact.content_checksum == first.content_checksum
    assert known.artifact.content_last_modified == deleted_at + timedelta(seconds=2)
    assert known.artifact.meta_checksum == meta_checksum_of(known.artifact)
    assert StorageLocation.objects.get().storage_id == located.storage_id
    assert DeletedArtifactEvent.objects.get().id == first.id
    assert RetiredArtifact.objects.get().state == RetiredArtifact.State.RESTORED
    assert not StorageLocationEvent.objects.exists(), "a new artifact is born here: no copy of another"


def test_content_put_before_the_deletion_is_taken_away(peer: FakeInventory) -> None:
    first = put().artifact
    put()
    peer.add_tombstone(first, soon(60))
    harvest()
    assert not Artifact.objects.exists()
    assert RetiredArtifact.objects.get().id == first.id


def test_content_put_where_it_was_known_but_not_stored_outlives_an_older_deletion(peer: FakeInventory) -> None:
    row = artifact_row()
    peer.add_artifact(row)
    harvest()
    put()
    peer.remove("artifacts", str(row.id))
    peer.add_tombstone(row, WHEN + timedelta(hours=1))
    harvest()
    known = artifact_by_uri(URI)
    assert known is not None
    assert known.location is not None
    assert known.artifact.id != row.id


def test_a_tombstone_in_the_middle_of_a_pass_is_applied_before_its_replacement(peer: FakeInventory) -> None:
    old = put(b"old").artifact
    new = artifact_row(data=b"new", content_last_modified=WHEN)

    def replace_now(stream: str) -> None:
        if stream == "artifacts" and not peer.rows["artifacts"]:
            peer.add_artifact(new)
            peer.add_tombstone(old, soon(60), same_transaction=True)

    peer.before = replace_now
    peer.add_tombstone(artifact_row("cadc:TEST/reason-to-look"))
    harvest()
    assert Artifact.objects.get().id == new.id
    assert not HarvestConflict.objects.exists()


# --- collisions


@pytest.mark.parametrize("is_wanted", [True, False])
@pytest.mark.parametrize("data", [b"content", b"other"])
@pytest.mark.parametrize("seconds", [-3600, 60])
def test_collisions_are_decided_as_everywhere_and_no_bytes_are_lost(
    peer: FakeInventory, policy: Wishes, seconds: int, data: bytes, *, is_wanted: bool
) -> None:
    policy.wanted = ["cadc:"] if is_wanted else []
    ours = put(data).artifact
    located = StorageLocation.objects.get()
    theirs = artifact_row(content_last_modified=soon(seconds))
    peer.add_artifact(theirs, holder=str(InventoryIdentity.objects.get().inventory_id))
    harvest()
    winner, loser = (theirs, ours) if seconds > 0 else (ours, theirs)
    conflict = HarvestConflict.objects.get()
    assert (conflict.winner_id, conflict.loser_id) == (winner.id, loser.id)
    assert conflict.loser_site_id == (InventoryIdentity.objects.get().inventory_id if loser is ours else None)
    event = DeletedArtifactEvent.objects.get()
    assert (event.id, event.deleted_at) == (loser.id, winner.content_last_modified)
    is_same = data == b"content"
    if winner is ours or is_wanted or is_same:
        assert Artifact.objects.get().id == winner.id
    else:
        assert not Artifact.objects.exists()
    if winner is ours or is_same:
        location = StorageLocation.objects.get()
        assert (location.artifact_id, location.storage_id) == (winner.id, located.storage_id)
    if winner is theirs:
        assert RetiredArtifact.objects.get().state == ("restored" if is_same else "retained")
        assert StorageLocationEvent.objects.filter(id=winner.id).exists() == is_same


def test_a_winner_older_than_the_last_put_here_loses_to_it(peer: FakeInventory) -> None:
    """Put here at 1, put elsewhere at 2 (the winner by content time), the same put here again at 3: that is the last word."""
    ours = put(b"ours").artifact
    at = ours.content_last_modified
    Artifact.objects.update(reaffirmed_at=at + timedelta(seconds=2))
    theirs = artifact_row(data=b"theirs", content_last_modified=at + timedelta(seconds=1))
    peer.add_artifact(theirs)
    harvest()
    known = artifact_by_uri(URI)
    assert known is not None
    assert known.artifact.id not in {ours.id, theirs.id}
    assert known.artifact.content_last_modified == at + timedelta(seconds=2)
    assert known.location is not None
    assert {event.id for event in DeletedArtifactEvent.objects.all()} == {ours.id, theirs.id}
    assert HarvestConflict.objects.get().loser_id == theirs.id


def test_equal_content_that_is_retained_is_attached_to_the_new_id(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = []
    old = put().artifact
    located = StorageLocation.objects.get()
    model_operations.delete_artifact(uri=ArtifactUri.parse(URI))
    again = artifact_row()
    peer.add_artifact(again, holder=str(InventoryIdentity.objects.get().inventory_id))
    other = artifact_row("cadc:TEST/elsewhere")
    peer.add_artifact(other, holder=str(InventoryIdentity.objects.get().inventory_id))
    harvest()
    assert RetiredArtifact.objects.get(id=old.id).state == "restored"
    location = StorageLocation.objects.get()
    assert (location.artifact_id, location.storage_id) == (again.id, located.storage_id)
    assert StorageLocationEvent.objects.get().id == again.id
    assert uris() == {URI}, "the same content under another uri is another file"


@pytest.mark.parametrize(
    "change", [{"content_sha256": b"x" * 32}, {"content_length": 8}, {"content_checksum": "md5:" + "1" * 32}]
)
def test_content_that_differs_in_any_digest_is_not_attached(peer: FakeInventory, change: dict[str, Any]) -> None:
    put()
    model_operations.delete_artifact(uri=ArtifactUri.parse(URI))
    row = artifact_row(**change)
    peer.add_artifact(row)
    harvest()
    known = artifact_by_id(row.id)
    assert known is not None
    assert known.location is None
    assert RetiredArtifact.objects.get().state == "retained"


def test_bytes_that_are_being_removed_are_not_attached(peer: FakeInventory) -> None:
    put()
    model_operations.delete_artifact(uri=ArtifactUri.parse(URI))
    RetiredArtifact.objects.update(state="removing")
    peer.add_artifact(artifact_row())
    harvest()
    assert not StorageLocation.objects.exists()


# --- crashes


def test_a_crash_anywhere_in_a_batch_loses_no_bytes_and_no_event(peer: FakeInventory) -> None:
    """A tombstone that retires, one that renews, a collision won and lost, retained bytes attached: all or nothing."""
    harvest()
    gone, kept = put(b"gone", "cadc:C/gone").artifact, put(b"kept", "cadc:C/kept").artifact
    Artifact.objects.filter(id=kept.id).update(reaffirmed_at=soon(60))
    put(b"content", "cadc:C/same")
    put(b"ours", "cadc:C/lost")
    put(b"content", "cadc:C/again")
    model_operations.delete_artifact(uri=ArtifactUri.parse("cadc:C/again"))
    peer.add_tombstone(gone, soon(30))
    peer.add_tombstone(kept, soon(30))
    for name in ("same", "again", "new"):
        peer.add_artifact(artifact_row(f"cadc:C/{name}", content_last_modified=soon(60)))
    peer.add_artifact(artifact_row("cadc:C/lost"))
    HarvestState.objects.update(epoch="")
    lease = operations.claim_remote("peer")
    assert lease is not None
    crashes = []
    for stream in (DELETED_ARTIFACTS, ARTIFACTS):
        before = everything()

        def check(stream: Stream = stream, before: object = before) -> None:
            assert everything() == before
            assert HarvestState.objects.get(name=stream.name).epoch == ""

        with client.fetch_page(Remote("peer", peer.url, Credential(token=TOKEN)), PageQuery(stream, None, 100)) as page:
            crashes.append(crash_everywhere(partial(operations.apply_batch, lease=lease, page=page), check))
    assert min(crashes) > 15
    known = {uri: artifact_by_uri(f"cadc:C/{uri}") for uri in ("gone", "kept", "same", "lost", "again", "new")}
    stored = {uri for uri, artifact in known.items() if artifact is not None and artifact.location is not None}
    assert stored == {"kept", "same", "lost", "again"}
    assert known["gone"] is None
    assert known["new"] is not None
    assert RetiredArtifact.objects.filter(state="retained").count() == 1


# --- which namespaces a cursor serves


def test_a_new_namespace_is_read_from_the_start_and_joins_the_main_cursor(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = ["cadc:A/"]
    peer.add_artifact(artifact_row("cadc:A/1"))
    peer.add_artifact(artifact_row("cadc:B/1"))
    harvest()
    assert states()[""].covers == ["cadc:A/"]
    policy.wanted = ["cadc:A/", "cadc:B/"]
    peer.requests.clear()
    peer.add_artifact(artifact_row("cadc:A/2"))
    harvest()
    assert uris() == {"cadc:A/1", "cadc:A/2", "cadc:B/1"}
    assert {state.selector for state in states().values()} == {""}
    assert states()[""].covers == ["cadc:A/", "cadc:B/"]
    main, backfill = asked(peer)[:2]
    assert (main["namespace"], "cursor" in main) == (["cadc:A/"], True)
    assert (backfill["namespace"], "cursor" in backfill, "holder" in backfill) == (["cadc:B/"], False, False)
    peer.add_artifact(artifact_row("cadc:B/2"))
    harvest()
    assert "cadc:B/2" in uris()


@pytest.mark.parametrize(
    ("epoch", "is_complete", "joins"),
    [("0123456789abcdef", True, True), ("f" * 16, True, False), ("0123456789abcdef", False, False)],
)
def test_joining_takes_the_main_cursor_back_to_where_the_backfill_ended(
    peer: FakeInventory, epoch: str, *, is_complete: bool, joins: bool
) -> None:
    peer.add_artifact(artifact_row())
    harvest()
    main = states()[""]
    HarvestState.objects.create(
        remote=main.remote, name="artifacts", selector="x:", epoch=epoch, cur_txid=7, is_complete=is_complete
    )
    lease = operations.claim_remote("peer")
    assert lease is not None
    operations.join_backfill(lease, "x:")
    assert states()[""].cur_txid == (7 if joins else main.cur_txid)
    assert states()[""].covers == (["cadc:", "x:"] if joins else ["cadc:"])
    assert ("x:" in states()) != joins


def test_a_long_backfill_goes_page_by_page_while_rows_arrive(
    peer: FakeInventory, policy: Wishes, settings: Settings
) -> None:
    policy.wanted = ["cadc:A/"]
    peer.add_artifact(artifact_row("cadc:A/1"))
    for number in range(4):
        peer.add_artifact(artifact_row(f"cadc:B/{number}"))
    harvest()
    policy.wanted = ["cadc:A/", "cadc:B/"]
    settings.INVENTORY_HARVEST_BATCH = 2
    seen: list[str] = []

    def arrive(stream: str) -> None:
        seen.append(stream)
        if stream == "artifacts" and len(seen) < 12:
            peer.add_artifact(artifact_row(f"cadc:B/late{len(seen)}"))

    peer.before = arrive
    harvest()
    assert uris() == {str(row["uri"]) for row in peer.rows["artifacts"]}
    assert len(uris()) > 7


def test_a_first_harvest_needs_no_backfill(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = ["cadc:A/", "cadc:B/"]
    operations.request_backfill([Namespace.parse("cadc:B/")])
    harvest()
    assert states()[""].covers == ["cadc:A/", "cadc:B/"]
    assert all("holder" in query for query in asked(peer))


def test_a_part_that_is_wanted_again_is_read_again(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted, policy.excluded = ["cadc:"], ["cadc:A/"]
    peer.add_artifact(artifact_row("cadc:A/1"))
    harvest()
    assert uris() == set()
    with transaction.atomic():
        policy.excluded = []
        operations.request_backfill([Namespace.parse("cadc:A/")])
    harvest()
    assert uris() == {"cadc:A/1"}
    assert states()[""].covers == ["cadc:"]


def test_a_forgotten_namespace_is_read_anew_when_it_is_wanted_again(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = ["cadc:A/", "cadc:B/"]
    peer.add_artifact(artifact_row("cadc:B/1"))
    harvest()
    policy.wanted = ["cadc:A/"]
    operations.forget_namespaces([Namespace.parse("cadc:B/")])
    Artifact.objects.all().delete()
    assert states()[""].covers == ["cadc:A/"]
    policy.wanted = ["cadc:A/", "cadc:B/"]
    harvest()
    assert uris() == {"cadc:B/1"}


def test_a_namespace_that_is_no_longer_wanted_is_no_longer_asked_for(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = ["cadc:A/", "cadc:B/"]
    harvest()
    policy.wanted = ["cadc:A/x/"]
    peer.add_artifact(artifact_row("cadc:A/x/1"))
    harvest()
    assert states()[""].covers == ["cadc:A/x/"]
    assert asked(peer)[-1]["namespace"] == ["cadc:A/x/"]


def test_a_backfill_that_is_no_longer_wanted_ends(peer: FakeInventory, policy: Wishes) -> None:
    harvest()
    peer.add_artifact(artifact_row())
    harvest()
    operations.request_backfill([Namespace.parse("other:")])
    assert set(states()) == {"", "other:"}
    harvest()
    assert set(states()) == {""}


def test_a_policy_that_changes_while_a_page_is_on_its_way_is_heard(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted, policy.excluded = ["cadc:"], ["cadc:A/"]
    peer.add_artifact(artifact_row("cadc:A/1"))
    changed: list[str] = []

    def change(stream: str) -> None:
        if stream == "deleted-artifacts" and not changed:
            changed.append(stream)
            policy.excluded = []

    peer.before = change
    harvest()
    assert changed
    assert uris() == {"cadc:A/1"}, "the page was fetched under the old policy and applied under the new one"


def test_a_new_epoch_during_a_backfill_starts_everything_again(peer: FakeInventory, policy: Wishes) -> None:
    policy.wanted = ["cadc:A/"]
    peer.add_artifact(artifact_row("cadc:A/1"))
    peer.add_artifact(artifact_row("cadc:B/1"))
    harvest()
    policy.wanted = ["cadc:A/", "cadc:B/"]
    seen = []

    def restamp(stream: str) -> None:
        seen.append(stream)
        if seen.count("artifacts") == 2:
            peer.epoch = "f" * 16

    peer.before = restamp
    harvest()
    assert uris() == {"cadc:A/1", "cadc:B/1"}
    assert set(states()) == {""}
    assert states()[""].epoch == "f" * 16
    assert states()[""].covers == ["cadc:A/", "cadc:B/"]


# --- several globals


def test_a_second_global_takes_over_when_the_first_is_gone(peer: FakeInventory) -> None:
    first, second = artifact_row("cadc:TEST/1"), artifact_row("cadc:TEST/2")
    peer.add_artifact(first)
    harvest()
    peer.status = dict.fromkeys(("news", "artifacts", "deleted-artifacts"), 503)
    with serve() as other:
        RemoteInventory.objects.create(name="other", role="global", url=other.url, token=sealing.seal(TOKEN.encode()))
        for row in (first, second):
            other.add_artifact(row)
        other.add_tombstone(artifact_row("cadc:TEST/3"))
        with pytest.raises(Exception, match="503"):
            exchange.harvest("peer")
        assert exchange.harvest("other").is_complete
        assert uris() == {first.uri, second.uri}
        other.delete(first)
        assert exchange.harvest("other").is_complete
    assert uris() == {second.uri}


def test_a_global_that_was_replaced_at_its_address_is_harvested_from_the_start(peer: FakeInventory) -> None:
    peer.add_artifact(artifact_row("cadc:TEST/1"))
    harvest()
    fresh = FakeInventory(epoch="a" * 16, txid=5)
    fresh.add_artifact(artifact_row("cadc:TEST/2"))
    peer.inventory_id, peer.epoch, peer.txid, peer.rows = fresh.inventory_id, fresh.epoch, fresh.txid, fresh.rows
    harvest()
    assert uris() == {"cadc:TEST/1", "cadc:TEST/2"}
    assert RemoteInventory.objects.get().inventory_id == fresh.inventory_id
