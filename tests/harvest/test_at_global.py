"""A global harvests a site: what arrives, what wins, what is set aside; and that repeating any of it changes nothing."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from pytest_django.fixtures import Settings

from datamodel import rows, rules, sealing
from datamodel.alarms.models import Alarm
from datamodel.audit.models import AuditEntry
from datamodel.errors import CursorGoneError, InventoryError, RaceLostError, RemoteProtocolError, RemoteUnavailableError
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    HarvestConflict,
    HarvestRejection,
    HarvestState,
    RemoteInventory,
    SiteLocation,
    StorageSite,
)
from datamodel.queries import artifact_by_id
from datamodel.remotes import save_remote
from datamodel.rules import ArtifactRow
from datamodel.service_tokens import Credential
from harvest import ahead, client, exchange, operations, staging
from harvest.client import Remote
from harvest.exchange import Harvested
from harvest.pages import Page, PageQuery
from harvest.proof import Prover
from harvest.streams import ARTIFACTS
from tests import peers
from tests.factories import WHEN, artifact_row
from tests.fakes.feed import TOKEN, FakeInventory, event_fields, serve, stamp
from tests.harvest.crashes import crash_everywhere, everything

pytestmark = pytest.mark.usefixtures("from_site")


def rewind() -> None:
    HarvestState.objects.update(epoch="", cur_txid=0, cur_id=uuid.UUID(int=0))


def harvest() -> Harvested:
    found = exchange.harvest("peer")
    assert found.is_complete
    return found


def known(row: ArtifactRow) -> ArtifactRow:
    found = artifact_by_id(row.id)
    assert found is not None
    return found.artifact


def later(row: ArtifactRow, **changes: Any) -> ArtifactRow:
    """The same artifact after an update of its metadata."""
    changed = replace(row, meta_modified_at=row.meta_modified_at + timedelta(seconds=5), **changes)
    return replace(changed, meta_checksum=rules.meta_checksum_of(changed))


def test_a_new_artifact_is_known_with_its_site_and_our_own_time(peer: FakeInventory) -> None:
    row = artifact_row(content_type="text/plain")
    peer.add_artifact(row)
    assert harvest().changed > 0
    found = known(row)
    assert found == replace(row, last_modified=found.last_modified)
    assert datetime.now(UTC) - found.last_modified < timedelta(minutes=1)
    assert SiteLocation.objects.get().pk == (row.id, StorageSite.objects.get().id)
    remote = RemoteInventory.objects.get()
    assert (remote.inventory_id, remote.site_id, remote.lease_holder) == (peer.inventory_id, peer.inventory_id, None)
    assert remote.last_contact_at is not None


def test_a_settled_federation_sends_no_rows_and_changes_none(peer: FakeInventory) -> None:
    for number in range(3):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    peer.add_tombstone(artifact_row("cadc:TEST/gone"))
    peer.add("locations", event_fields(uuid.uuid4(), "cadc:TEST/elsewhere"))
    harvest()
    before = everything()
    peer.requests.clear()
    assert harvest() == Harvested(is_complete=True)
    assert len(peer.requests) == 1, "a settled remote is asked for news and nothing else"
    rewind()
    assert harvest().rows == 6
    assert everything() == before


@pytest.mark.parametrize("tells_deletions", [True, False])
@pytest.mark.parametrize("names_streams", [True, False])
def test_only_streams_with_news_are_asked_and_every_cursor_moves(
    peer: FakeInventory, *, names_streams: bool, tells_deletions: bool
) -> None:
    peer.names_streams, peer.tells_deletions = names_streams, tells_deletions
    harvest()
    peer.requests.clear()
    peer.add_artifact(artifact_row())
    harvest()
    paths = [request.partition("?")[0].rpartition("/")[2] for request in peer.requests]
    quiet = [] if names_streams else ["sites", "deleted-locations", "locations"]
    deletions = [] if tells_deletions else ["deleted-artifacts"]
    assert paths == ["news", *quiet, "artifacts", *deletions, "news"]
    assert {state.cur_txid for state in HarvestState.objects.all()} == {peer.txid}
    peer.add_tombstone(artifact_row("cadc:TEST/gone"))
    peer.add_artifact(artifact_row("cadc:TEST/born"))
    harvest()
    assert DeletedArtifactEvent.objects.count() == 1
    assert {state.cur_txid for state in HarvestState.objects.all()} == {peer.txid}


def test_repeating_every_page_changes_nothing(peer: FakeInventory, settings: Settings) -> None:
    settings.INVENTORY_HARVEST_BATCH = 2
    old = artifact_row("cadc:TEST/0", b"old", content_last_modified=WHEN - timedelta(days=1))
    rows.insert_artifact(old, None)
    lost = artifact_row("cadc:TEST/1", b"lost", content_last_modified=WHEN + timedelta(days=1))
    rows.insert_artifact(lost, None)
    for number in range(5):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    peer.add_artifact(artifact_row("cadc:TEST/bad", meta_checksum="md5:" + "0" * 32))
    harvest()
    before = everything()
    assert [len(before[table]) for table in ("artifact", "harvest_conflict", "harvest_rejection")] == [5, 2, 1]
    rewind()
    harvest()
    assert everything() == before


def test_newer_metadata_are_taken_and_stamped_with_our_time(peer: FakeInventory) -> None:
    row = artifact_row()
    peer.add_artifact(row)
    harvest()
    first = known(row)
    update = later(row, content_type="image/fits")
    peer.add_artifact(update)
    harvest()
    found = known(row)
    assert found == replace(update, last_modified=found.last_modified)
    assert found.last_modified > first.last_modified


def test_older_metadata_change_nothing_but_ours_is_offered_again(peer: FakeInventory) -> None:
    row = artifact_row()
    ours = later(row, content_type="image/fits")
    rows.insert_artifact(ours, None)
    txid = Artifact.objects.get().txid
    peer.add_artifact(row)
    harvest()
    assert known(row) == ours
    assert Artifact.objects.get().txid > txid, (
        "the sender did not see it while we did not know that it holds the artifact"
    )


def test_of_equal_metadata_the_later_time_stands_and_last_modified_stays(peer: FakeInventory) -> None:
    row = artifact_row()
    peer.add_artifact(row)
    harvest()
    first = known(row)
    peer.add_artifact(later(row))
    harvest()
    assert known(row) == replace(first, meta_modified_at=later(row).meta_modified_at)


def test_a_missing_sha256_is_filled_in(peer: FakeInventory) -> None:
    row = artifact_row()
    rows.insert_artifact(replace(row, content_sha256=None), None)
    peer.add_artifact(row)
    harvest()
    assert known(row).content_sha256 == row.content_sha256


def test_an_opencadc_peer_without_our_columns_is_understood(peer: FakeInventory) -> None:
    for name in ("contentSha256", "metaModified"):
        peer.columns["artifacts"].remove(name)
    peer.columns["deleted-artifacts"].remove("deletedAt")
    row, gone = artifact_row(last_modified=WHEN + timedelta(hours=1)), artifact_row("cadc:TEST/gone")
    peer.add_artifact(row)
    peer.add_tombstone(gone, WHEN + timedelta(hours=2))
    harvest()
    assert (known(row).meta_modified_at, known(row).content_sha256) == (row.last_modified, None)
    assert DeletedArtifactEvent.objects.get().deleted_at == WHEN + timedelta(hours=2)


def test_a_newer_version_with_unknown_columns_is_applied(peer: FakeInventory) -> None:
    peer.version = "7"
    peer.columns["artifacts"] = ["colour", *peer.columns["artifacts"][::-1], "taste"]
    row = artifact_row()
    peer.add_artifact(row, colour="blue\tand green", taste=None)
    harvest()
    assert known(row).uri == row.uri


def test_a_deleted_artifact_leaves_and_never_returns(peer: FakeInventory) -> None:
    row = artifact_row()
    peer.add_artifact(row)
    harvest()
    peer.delete(row, WHEN)
    harvest()
    assert not Artifact.objects.exists()
    assert not SiteLocation.objects.exists()
    event = DeletedArtifactEvent.objects.get()
    assert (event.id, event.uri, event.deleted_at) == (row.id, row.uri, WHEN)
    assert datetime.now(UTC) - event.last_modified < timedelta(minutes=1), "our own time: it is news to the sites"
    peer.add_artifact(row)
    peer.add("locations", event_fields(row.id, row.uri))
    harvest()
    assert not Artifact.objects.exists()
    assert not SiteLocation.objects.exists()


def test_a_copy_that_left_takes_its_site_location_along(peer: FakeInventory) -> None:
    row = artifact_row()
    peer.add_artifact(row)
    harvest()
    peer.remove("artifacts", str(row.id))
    peer.add("deleted-locations", event_fields(row.id, row.uri))
    harvest()
    assert Artifact.objects.filter(id=row.id).exists()
    assert not SiteLocation.objects.exists()


def test_a_site_goes_only_when_no_copy_of_it_is_known(peer: FakeInventory) -> None:
    peer.add_artifact(artifact_row())
    harvest()
    RemoteInventory.objects.update(site=None)
    site = SiteLocation.objects.get().site_id
    with pytest.raises(IntegrityError, match=f"{site} is still named by site_location"), transaction.atomic():
        StorageSite.objects.filter(id=site).delete()
    with pytest.raises(IntegrityError, match=f"{site} is still named by site_location"), transaction.atomic():
        StorageSite.objects.filter(id=site).update(id=uuid.uuid4())
    SiteLocation.objects.all().delete()
    assert StorageSite.objects.filter(id=site).delete()[0] == 1


def test_location_news_may_come_before_the_artifact_and_do_not_touch_it(peer: FakeInventory) -> None:
    row, other = artifact_row(), artifact_row("cadc:TEST/other")
    rows.insert_artifact(other, None)
    txid = Artifact.objects.get().txid
    peer.add("locations", event_fields(row.id, row.uri))
    peer.add("locations", event_fields(other.id, other.uri))
    harvest()
    assert SiteLocation.objects.count() == 2
    assert Artifact.objects.get().txid == txid


def test_a_location_and_its_deletion_inside_one_poll_leave_no_copy(peer: FakeInventory) -> None:
    row = artifact_row()
    rows.insert_artifact(row, None)
    harvest()
    peer.add("locations", event_fields(row.id, row.uri))
    peer.remove("locations", str(row.id))
    peer.add("deleted-locations", event_fields(row.id, row.uri))
    harvest()
    assert not SiteLocation.objects.exists()


def test_a_copy_that_left_between_two_requests_of_one_pass_leaves_no_location(peer: FakeInventory) -> None:
    row = artifact_row()
    peer.add_artifact(row)
    left: list[int] = []

    def leave(stream: str) -> None:
        if stream == "deleted-artifacts" and not left:
            peer.remove("artifacts", str(row.id))
            left.append(peer.add("deleted-locations", event_fields(row.id, row.uri)))

    peer.before = leave
    harvest()
    assert left
    assert not SiteLocation.objects.exists()


def test_a_replacement_at_the_source_is_no_collision_whenever_it_happens(peer: FakeInventory) -> None:
    old = artifact_row(data=b"old")
    peer.add_artifact(old)
    harvest()
    # Its clock went back: by content time the old one would win.
    new = artifact_row(data=b"new", content_last_modified=WHEN - timedelta(days=1))
    replaced: list[int] = []

    def replace_now(stream: str) -> None:
        if stream == "artifacts" and not replaced:
            peer.remove("artifacts", str(old.id))
            replaced.append(peer.add_artifact(new))
            peer.add_tombstone(old, same_transaction=True)

    peer.before = replace_now
    peer.add_artifact(artifact_row("cadc:TEST/reason-to-look"))
    harvest()
    assert replaced
    assert known(new).uri == new.uri
    assert not HarvestConflict.objects.exists()
    assert not DeletedArtifactEvent.objects.filter(id=new.id).exists()


@pytest.mark.parametrize("seconds", [-10, 10])
@pytest.mark.parametrize("data", [b"other", b"content"])
def test_colliding_artifacts_converge_on_the_later_one(peer: FakeInventory, seconds: int, data: bytes) -> None:
    site = StorageSite.objects.create(
        id=uuid.uuid4(), resource_id="ivo://other", name="other", last_modified=WHEN, meta_checksum="md5:x"
    )
    ours = artifact_row(data=data)
    rows.insert_artifact(ours, None)
    SiteLocation.objects.create(artifact_id=ours.id, site=site)
    txid = Artifact.objects.get().txid
    theirs = artifact_row(content_last_modified=WHEN + timedelta(seconds=seconds))
    peer.add_artifact(theirs)
    harvest()
    winner, loser = (theirs, ours) if seconds > 0 else (ours, theirs)
    assert Artifact.objects.get().id == winner.id
    event = DeletedArtifactEvent.objects.get()
    assert (event.id, event.deleted_at) == (loser.id, winner.content_last_modified)
    conflict = HarvestConflict.objects.get()
    assert (conflict.winner_id, conflict.loser_id, conflict.same_content) == (winner.id, loser.id, data == b"content")
    assert conflict.loser_site_id == (site.id if loser is ours else peer.inventory_id)
    assert (conflict.loser_checksum, conflict.loser_length) == (loser.content_checksum, loser.content_length)
    assert Alarm.objects.filter(kind="lost_collision").exists() == (data == b"other")
    harvest()
    entry = AuditEntry.objects.get(action="collision")
    assert (entry.who, entry.method, entry.subject, entry.outcome) == ("peer", "peer", loser.uri, "refused")
    assert (entry.details["loser"], entry.details["winner"]) == (str(loser.id), str(winner.id))
    assert entry.details["checksum"] == loser.content_checksum
    assert ("same content" in entry.reason) == conflict.same_content
    holders = {location.site_id for location in SiteLocation.objects.filter(artifact_id=winner.id)}
    assert holders == ({peer.inventory_id} if winner is theirs else {site.id})
    assert not SiteLocation.objects.filter(artifact_id=loser.id).exists()
    assert Artifact.objects.get().txid > txid, "the loser's site must see the winner, wherever its cursor is"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metaChecksum": "md5:" + "0" * 32}, "metaChecksum does not fit"),
        ({"contentLength": "99"}, "metaChecksum does not fit"),
        ({"contentLength": "-1"}, "contentLength is malformed"),
        ({"contentLength": "many"}, "contentLength is malformed"),
        ({"contentLength": str(2**63)}, "contentLength is malformed"),
        ({"contentLength": None}, "contentLength is missing"),
        ({"id": "nobody"}, "id is malformed"),
        ({"uri": "cadc:TEST/a b"}, "uri is malformed"),
        ({"contentType": "text/\0plain"}, "contentType is malformed"),
        ({"uri": "cadc:" + "x" * 600}, "uri is malformed"),
        ({"uri": None}, "uri is missing"),
        ({"contentChecksum": "md5:abc"}, "contentChecksum is malformed"),
        ({"contentSha256": "abc"}, "contentSha256 is malformed"),
        ({"contentType": "x" * 129}, "contentType is malformed"),
        ({"contentLastModified": "2026-13-01T00:00:00.000"}, "contentLastModified is malformed"),
        ({"contentLastModified": "yesterday"}, "contentLastModified is malformed"),
        ({"lastModified": "2199-01-01T00:00:00.000"}, "lastModified is out of range"),
        ({"metaModified": "2199-01-01T00:00:00.000"}, "metaModified is out of range"),
    ],
)
def test_a_false_row_is_set_aside_and_the_rest_goes_on(
    peer: FakeInventory, changes: dict[str, str | None], reason: str
) -> None:
    bad, good = artifact_row("cadc:TEST/bad"), artifact_row("cadc:TEST/good")
    peer.add_artifact(bad, **changes)
    peer.add_artifact(good)
    assert harvest().rejected == 1
    assert [artifact.id for artifact in Artifact.objects.all()] == [good.id]
    rejection = HarvestRejection.objects.get()
    assert rejection.reason.startswith(reason)
    assert rejection.stream == "artifacts"
    assert rejection.row_id == (None if "id" in changes else bad.id)
    assert "cadc" in rejection.row or "uri" in changes
    assert Alarm.objects.get().kind == "rejected_rows"
    rewind()
    harvest()
    assert HarvestRejection.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"content_length": 99},
        {"content_checksum": "md5:" + "1" * 32},
        {"uri": "cadc:TEST/other"},
        {"content_last_modified": WHEN + timedelta(seconds=1)},
        {"content_sha256": b"x" * 32},
    ],
)
def test_a_row_that_contradicts_its_id_is_set_aside(peer: FakeInventory, change: dict[str, Any]) -> None:
    ours = artifact_row()
    rows.insert_artifact(ours, None)
    before = known(ours)
    lie = replace(ours, **change, meta_modified_at=WHEN + timedelta(hours=1))
    if "uri" in change:
        lie = replace(lie, uri_bucket=artifact_row(lie.uri).uri_bucket)
    peer.add_artifact(replace(lie, meta_checksum=rules.meta_checksum_of(lie)))
    harvest()
    assert known(ours) == before
    assert HarvestRejection.objects.get().reason == "the id is known with other content"
    assert not SiteLocation.objects.exists()


def test_a_tombstone_of_another_uri_is_set_aside(peer: FakeInventory) -> None:
    ours = artifact_row()
    rows.insert_artifact(ours, None)
    peer.add("deleted-artifacts", event_fields(ours.id, "cadc:TEST/other") | {"deletedAt": stamp(WHEN)})
    harvest()
    assert known(ours) == ours
    assert HarvestRejection.objects.get().reason == "the id is known with another uri"


def test_one_uri_twice_in_a_page_keeps_the_winner(peer: FakeInventory) -> None:
    loser, winner = artifact_row(data=b"1"), artifact_row(data=b"2", content_last_modified=WHEN + timedelta(seconds=1))
    peer.add_artifact(winner)
    peer.add_artifact(loser)
    harvest()
    assert Artifact.objects.get().id == winner.id
    assert HarvestRejection.objects.get().row_id == loser.id
    before = everything()
    rewind()
    harvest()
    assert everything() == before


def test_duplicate_and_reordered_rows_do_no_harm(peer: FakeInventory) -> None:
    rows = [artifact_row(f"cadc:TEST/{number}") for number in range(4)]
    for row in rows:
        peer.add_artifact(row)
    peer.twist["artifacts"] = lambda body: b"".join(reversed([*body.splitlines(keepends=True)] * 2))
    assert harvest().rejected == 0
    assert {artifact.id for artifact in Artifact.objects.all()} == {row.id for row in rows}


def test_a_page_that_is_no_table_is_refused_and_nothing_moves(peer: FakeInventory) -> None:
    peer.add_artifact(artifact_row())
    peer.twist["artifacts"] = lambda body: body.replace(b"\t", b"\t\t", 1)
    with pytest.raises(RemoteProtocolError, match="not a table"):
        exchange.harvest("peer")
    remote = RemoteInventory.objects.get()
    assert remote.last_error.startswith("remote_protocol: a page of artifacts is not a table")
    assert remote.last_error_at is not None
    assert remote.lease_holder is None
    assert HarvestState.objects.get(name="artifacts").epoch == ""
    peer.twist.clear()
    harvest()
    assert RemoteInventory.objects.get().last_error == ""


def test_a_site_that_says_it_is_several_or_another_is_refused(peer: FakeInventory) -> None:
    harvest()
    peer.add_site(identity=uuid.uuid4(), resource_id="ivo://fake/other")
    with pytest.raises(RemoteProtocolError, match="says now that it is"):
        exchange.harvest("peer")
    peer.rows["sites"].clear()
    peer.add_site(allow_write=False)
    peer.add_site(identity=uuid.uuid4(), resource_id="ivo://fake/third")
    with pytest.raises(RemoteProtocolError, match="2 sites"):
        exchange.harvest("peer")
    assert StorageSite.objects.count() == 1


def test_a_site_that_became_another_inventory_is_refused(peer: FakeInventory) -> None:
    harvest()
    peer.inventory_id = uuid.uuid4()
    with pytest.raises(RemoteProtocolError, match="add it as a new remote"):
        exchange.harvest("peer")


def test_a_site_that_has_moved_is_known_again_and_its_next_file_arrives(peer: FakeInventory) -> None:
    harvest()
    remote = RemoteInventory.objects.get()
    save_remote(name=remote.name, role=remote.role, url=remote.url.replace("127.0.0.1", "localhost"), token=None)
    row = artifact_row()
    peer.add_artifact(row)
    harvest()
    assert RemoteInventory.objects.get().site_id == peer.inventory_id
    assert SiteLocation.objects.get().pk == (row.id, peer.inventory_id)


def test_switches_of_a_site_arrive(peer: FakeInventory) -> None:
    harvest()
    before = StorageSite.objects.get()
    peer.add_site(allow_write=False, resource_id=before.resource_id)
    harvest()
    after = StorageSite.objects.get()
    assert (after.allow_read, after.allow_write) == (True, False)
    assert after.last_modified > before.last_modified


def test_two_remotes_cannot_be_one_site(peer: FakeInventory) -> None:
    harvest()
    with serve(FakeInventory(inventory_id=peer.inventory_id)) as twin:
        twin.add_site(resource_id="ivo://fake/twin")
        twin.add_artifact(artifact_row())
        RemoteInventory.objects.create(name="twin", role="site", url=twin.url, token=sealing.seal(TOKEN.encode()))
        with pytest.raises(RemoteProtocolError, match="which is peer"):
            exchange.harvest("twin")
    assert not Artifact.objects.exists()


def test_a_paired_inventory_describes_no_other_site(peer: FakeInventory) -> None:
    RemoteInventory.objects.update(inventory_id=peer.inventory_id)
    peers.pair(RemoteInventory.objects.get())
    peer.rows["sites"].clear()
    peer.add_site(identity=uuid.uuid4())
    with pytest.raises(RemoteProtocolError, match="and says that it is site"):
        exchange.harvest("peer")
    assert not StorageSite.objects.exists()


def test_a_site_that_does_not_say_who_it_is_gives_no_copies(peer: FakeInventory) -> None:
    peer.rows["sites"].clear()
    peer.add_artifact(artifact_row())
    with pytest.raises(RemoteProtocolError, match="has not said"):
        exchange.harvest("peer")
    assert not Artifact.objects.exists()


def test_a_new_epoch_is_read_from_the_start(peer: FakeInventory) -> None:
    first, second = artifact_row("cadc:TEST/1"), artifact_row("cadc:TEST/2")
    peer.add_artifact(first)
    harvest()
    before = everything()
    peer.epoch = "f" * 16
    harvest()
    assert everything() == before
    peer.epoch, peer.txid = "e" * 16, 3
    peer.rows["artifacts"].clear()
    peer.rows["sites"].clear()
    peer.add_site(resource_id=StorageSite.objects.get().resource_id)
    peer.add_artifact(second)
    harvest()
    assert Artifact.objects.count() == 2
    assert {state.epoch for state in HarvestState.objects.all()} == {"e" * 16}


def test_a_new_epoch_in_the_middle_of_a_pass_is_read_from_the_start(peer: FakeInventory, settings: Settings) -> None:
    settings.INVENTORY_HARVEST_BATCH = 1
    for number in range(3):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    asked = []

    def restamp(stream: str) -> None:
        asked.append(stream)
        if asked.count("artifacts") == 2:
            peer.epoch = "f" * 16

    peer.before = restamp
    harvest()
    assert Artifact.objects.count() == 3
    assert {state.epoch for state in HarvestState.objects.all()} == {"f" * 16}


def test_a_remote_without_any_start_is_given_up(peer: FakeInventory) -> None:
    harvest()
    peer.status["artifacts"] = 410
    peer.add_artifact(artifact_row())
    with pytest.raises(CursorGoneError):
        exchange.harvest("peer")


def test_a_remote_with_eternal_news_and_no_rows_is_given_up(peer: FakeInventory) -> None:
    peer._has_rows = lambda after: after > 0  # type: ignore[method-assign]
    with pytest.raises(RemoteProtocolError, match="serves none"):
        exchange.harvest("peer")


@pytest.mark.parametrize("stream", ["sites", "deleted-locations", "locations", "deleted-artifacts", "artifacts"])
def test_a_failing_remote_leaves_the_others_alone(peer: FakeInventory, stream: str) -> None:
    peer.status[stream] = 503
    peer.add_artifact(artifact_row("cadc:TEST/failing"))
    with serve() as good:
        good.add_site(resource_id="ivo://fake/good")
        row = artifact_row("cadc:TEST/good")
        good.add_artifact(row)
        RemoteInventory.objects.create(name="good", role="site", url=good.url, token=sealing.seal(TOKEN.encode()))
        with pytest.raises(RemoteUnavailableError):
            exchange.harvest("peer")
        assert exchange.harvest("good").is_complete
    assert known(row).uri == row.uri
    assert RemoteInventory.objects.get(name="peer").last_error.startswith("remote_unavailable")
    assert RemoteInventory.objects.get(name="good").last_error == ""


def test_a_limited_global_asks_for_its_namespaces_and_starts_again_when_they_grow(
    peer: FakeInventory, settings: Settings
) -> None:
    settings.INVENTORY_NAMESPACES = ["cadc:A/"]
    inside, outside = artifact_row("cadc:A/1"), artifact_row("cadc:B/1")
    peer.add_artifact(inside)
    peer.add_artifact(outside)
    harvest()
    assert [artifact.uri for artifact in Artifact.objects.all()] == [inside.uri]
    assert all(
        query["namespace"] == ["cadc:A/"] for stream in ("locations", "artifacts") for query in peer.asked(stream)
    )
    settings.INVENTORY_NAMESPACES = []
    harvest()
    assert Artifact.objects.count() == 2


def test_a_turn_ends_in_time_and_the_next_goes_on(peer: FakeInventory, settings: Settings) -> None:
    settings.INVENTORY_HARVEST_BATCH = 1
    for number in range(3):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    turns = 0
    while (found := exchange.harvest("peer", turn_seconds=0)).is_interrupted:
        turns += 1
        assert turns < 50
        exchange.harvest("peer", turn_seconds=0.5)
    assert found.is_complete
    assert Artifact.objects.count() == 3


def test_the_next_page_is_on_its_way_while_one_is_applied(peer: FakeInventory, settings: Settings) -> None:
    settings.INVENTORY_HARVEST_BATCH = 1
    for number in range(3):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    asked = threading.Semaphore(0)
    is_ahead: list[bool] = []

    def watch(stream: str) -> None:
        if stream == "artifacts":
            asked.release()
        elif stream == "deleted-artifacts":
            # The page that is applied next, and the one after it.
            is_ahead.append(asked.acquire(timeout=10) and (len(is_ahead) > 0 or asked.acquire(timeout=10)))

    peer.before = watch
    assert harvest().is_complete
    assert is_ahead[:2] == [True, True]
    assert Artifact.objects.count() == 3


def test_a_page_ahead_that_fails_is_asked_for_again(peer: FakeInventory, settings: Settings) -> None:
    settings.INVENTORY_HARVEST_BATCH = 1
    for number in range(3):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    asked: list[str] = []

    def fail_once(stream: str) -> None:
        if stream == "artifacts":
            asked.append(stream)
            peer.status = {"artifacts": 503} if len(asked) == 2 else {}

    peer.before = fail_once
    assert harvest().is_complete
    assert Artifact.objects.count() == 3


def test_pages_of_news_are_proven_while_the_one_before_is_applied(
    peer: FakeInventory, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.INVENTORY_HARVEST_BATCH = 1
    rows = [artifact_row(f"cadc:TEST/{number}") for number in range(6)]
    for number, row in enumerate(rows):
        peer.add_artifact(row, **({"contentLength": "0"} if number in {3, 5} else {}))
    begin, provers = staging._prover_of, []

    def watched(page: Page) -> Prover:
        provers.append(threading.current_thread().name)
        return begin(page)

    monkeypatch.setattr(staging, "_prover_of", watched)
    assert harvest().rejected == 2
    assert provers.count("page-ahead") >= 3
    assert {artifact.uri for artifact in Artifact.objects.all()} == {rows[n].uri for n in (0, 1, 2, 4)}
    assert {str(rejection.row_id) for rejection in HarvestRejection.objects.all()} == {str(rows[n].id) for n in (3, 5)}
    provers.clear()
    rewind()
    assert harvest().changed == 0
    assert "page-ahead" not in provers


@pytest.mark.parametrize("error", [RemoteProtocolError("no table"), OperationalError("the server went away")])
def test_a_page_ahead_that_cannot_be_proven_is_asked_for_again(
    peer: FakeInventory, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    settings.INVENTORY_HARVEST_BATCH = 1
    for number in range(4):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    pages: list[Page] = []

    def fail(page: Page) -> Page:
        pages.append(page)
        with page:
            raise error

    monkeypatch.setattr(ahead, "prove", fail)
    assert harvest().is_complete
    assert len(pages) >= 2
    assert Artifact.objects.count() == 4


def fetch(peer: FakeInventory, limit: int = 100) -> Page:
    return client.fetch_page(Remote("peer", peer.url, Credential(token=TOKEN)), PageQuery(ARTIFACTS, None, limit))


@pytest.fixture
def lease(peer: FakeInventory) -> operations.Lease:
    harvest()
    rewind()
    claimed = operations.claim_remote("peer")
    assert claimed is not None
    return claimed


def test_one_process_at_a_time_harvests_a_remote(lease: operations.Lease) -> None:
    assert operations.claim_remote("peer") is None
    assert exchange.harvest("peer").is_busy
    operations.release_remote(lease)
    assert exchange.harvest("peer").is_complete


def test_a_dead_holder_loses_the_lease_and_can_write_nothing_more(peer: FakeInventory, lease: operations.Lease) -> None:
    peer.add_artifact(artifact_row())
    with fetch(peer) as page:
        RemoteInventory.objects.update(lease_until=datetime.now(UTC) - timedelta(seconds=1))
        assert operations.claim_remote("peer") is not None
        with pytest.raises(RaceLostError):
            operations.apply_batch(lease=lease, page=page)
    assert not Artifact.objects.exists()


def test_a_page_whose_cursor_was_moved_is_not_applied(peer: FakeInventory, lease: operations.Lease) -> None:
    peer.add_artifact(artifact_row())
    with fetch(peer) as page:
        HarvestState.objects.filter(name="artifacts").update(epoch=peer.epoch, cur_txid=1)
        with pytest.raises(RaceLostError):
            operations.apply_batch(lease=lease, page=page)
    assert not Artifact.objects.exists()


def test_a_disabled_remote_stops_at_the_next_batch(peer: FakeInventory, lease: operations.Lease) -> None:
    with fetch(peer) as page:
        RemoteInventory.objects.update(enabled=False)
        with pytest.raises(RaceLostError):
            operations.apply_batch(lease=lease, page=page)
    assert exchange.harvest("peer").is_busy, "nobody gets the lease of a disabled remote"


def test_a_crash_anywhere_in_a_batch_leaves_rows_and_cursor_together(
    peer: FakeInventory, lease: operations.Lease
) -> None:
    ours = artifact_row("cadc:TEST/0", b"old", content_last_modified=WHEN - timedelta(days=1))
    rows.insert_artifact(ours, None)
    for number in range(3):
        peer.add_artifact(artifact_row(f"cadc:TEST/{number}"))
    peer.add_artifact(artifact_row("cadc:TEST/bad", meta_checksum="md5:" + "0" * 32))
    before = everything()

    def check() -> None:
        assert everything() == before
        assert HarvestState.objects.get(name="artifacts").epoch == ""

    with fetch(peer) as page:
        crashes = crash_everywhere(lambda: operations.apply_batch(lease=lease, page=page), check)
    assert crashes > 20
    assert HarvestState.objects.get(name="artifacts").cur_txid == peer.txid
    assert Artifact.objects.count() == 3


def test_a_row_that_a_request_writes_at_the_same_time_repeats_the_batch(
    peer: FakeInventory, lease: operations.Lease
) -> None:
    """The other writer commits between our look and our insert: the constraint tells, and the collision is decided."""
    ours = artifact_row(data=b"ours", content_last_modified=WHEN - timedelta(days=1))
    theirs = artifact_row(data=b"theirs")
    peer.add_artifact(theirs)
    intruded: list[str] = []

    def intrude(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if "INSERT INTO artifact (id" in sql and not intruded:
            intruded.append(sql)
            other = connection.copy()
            with other.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, "
                    "last_modified, meta_checksum, meta_modified_at, txid) VALUES (%s, %s, %s, %s, %s, 4, now(), 'md5:x', "
                    "now(), 0)",
                    [ours.id, ours.uri, ours.uri_bucket, ours.content_checksum, ours.content_last_modified],
                )
            other.close()
        return execute(sql, *arguments)

    with fetch(peer) as page, connection.execute_wrapper(intrude):
        operations.apply_batch(lease=lease, page=page)
    assert intruded
    assert Artifact.objects.get().id == theirs.id
    assert HarvestConflict.objects.get().loser_id == ours.id


def test_a_cut_in_any_stream_leaves_what_came_before(peer: FakeInventory) -> None:
    harvest()
    peer.add_artifact(artifact_row())
    peer.cut_after = 10
    with pytest.raises(InventoryError):
        exchange.harvest("peer")
    peer.cut_after = None
    harvest()
    assert Artifact.objects.count() == 1
