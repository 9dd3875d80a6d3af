"""What a global has from a site as it was served there is not told to that site again; everything else is."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test import Client
from pytest_django.fixtures import Settings

from datamodel.identity import restamp_feed
from datamodel.models import Artifact, FeedReader, HarvestedPage, HarvestState, InventoryIdentity, RemoteInventory
from datamodel.positions import read_identity
from datamodel.rows import database_now
from datamodel.rules import ArtifactRow
from harvest import echo, exchange, feed, listening, tasks
from harvest.listening import RemoteListener
from harvest.streams import ARTIFACTS
from tests.factories import artifact_row
from tests.fakes.feed import FakeInventory
from tests.harvest.test_at_global import later

_FILL_SQL = """
    INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified,
        meta_checksum, meta_modified_at, txid)
    SELECT gen_random_uuid(), 'cadc:FILL/' || n, '00000', 'md5:x', now(), 1, now(), 'md5:x', now(), 0 FROM generate_series(1, %s) n
"""


@pytest.fixture
def ask(harvest_token: str) -> Client:
    return Client(headers={"authorization": f"Bearer {harvest_token}"})


def told(ask: Client, sender: uuid.UUID | None) -> set[str]:
    """The uris of all artifacts that somebody reads who names this sender, and of none."""
    query = {"sender": str(sender)} if sender is not None else {}
    response = ask.get("/harvest/artifacts", query)
    assert response.status_code == 200
    lines = b"".join(response.streaming_content).decode().splitlines()  # type: ignore[attr-defined]
    return {line.split("\t")[2] for line in lines[1:-1]}


def has_news(ask: Client, sender: uuid.UUID | None, after: int = 1) -> bool:
    query = {"after": str(after)} | ({"sender": str(sender)} if sender is not None else {})
    return "artifacts" in json.loads(ask.get("/harvest/news", query).content)["streams"]


def bring(peer: FakeInventory, *names: str) -> list[ArtifactRow]:
    """The site has new files, of which the global hears in one page."""
    rows = [artifact_row(f"cadc:TEST/{name}") for name in names]
    for row in rows:
        peer.add_artifact(row)
    assert exchange.harvest("peer").is_complete
    return rows


@pytest.mark.usefixtures("from_site")
def test_a_site_is_not_told_what_came_from_it_and_all_others_are(peer: FakeInventory, ask: Client) -> None:
    bring(peer, "a", "b")
    bring(peer, "c")
    everything = {"cadc:TEST/a", "cadc:TEST/b", "cadc:TEST/c"}
    assert told(ask, peer.inventory_id) == set()
    assert told(ask, uuid.uuid4()) == told(ask, None) == everything
    assert not has_news(ask, peer.inventory_id)
    assert has_news(ask, uuid.uuid4())
    assert has_news(ask, None)


@pytest.mark.usefixtures("from_site")
def test_the_cursor_of_a_site_passes_its_own_rows(peer: FakeInventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_SCAN_ROWS", 2)
    for name in "abc":
        bring(peer, name)
    cursor, pages = None, 0
    while True:
        page = feed.read_page(feed.PageRequest(ARTIFACTS, cursor, 10, sender=peer.inventory_id))
        pages, cursor = pages + 1, page.next_cursor
        page.rows.close()
        assert page.count == 0
        if not page.more:
            break
    assert pages == 2
    assert cursor.txid == Artifact.objects.order_by("-txid")[0].txid


@pytest.mark.usefixtures("from_site")
def test_what_has_changed_at_the_global_since_is_told(peer: FakeInventory, ask: Client) -> None:
    changed, _ = bring(peer, "changed", "same")
    Artifact.objects.filter(id=changed.id).update(content_type="image/fits")
    assert told(ask, peer.inventory_id) == {"cadc:TEST/changed"}
    assert has_news(ask, peer.inventory_id)


@pytest.mark.usefixtures("from_site")
def test_rows_of_a_page_of_which_some_were_known_are_told(peer: FakeInventory, ask: Client) -> None:
    (known,) = bring(peer, "known")
    peer.add_artifact(later(known, content_type="image/fits"))
    bring(peer, "new")
    assert told(ask, peer.inventory_id) == {"cadc:TEST/known", "cadc:TEST/new"}


@pytest.mark.usefixtures("from_site")
def test_the_winner_over_what_a_site_has_is_told_though_it_came_from_there(peer: FakeInventory, ask: Client) -> None:
    (winner,) = bring(peer, "same")
    earlier = artifact_row(
        winner.uri, b"earlier", content_last_modified=winner.content_last_modified - timedelta(days=1)
    )
    peer.add_artifact(earlier)
    assert exchange.harvest("peer").is_complete
    assert told(ask, peer.inventory_id) == {winner.uri}


@pytest.mark.usefixtures("from_site")
def test_more_rows_than_are_looked_at_are_news_that_move_the_cursor(peer: FakeInventory, ask: Client) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FILL_SQL, [1000])
        echo.note_page(peer.inventory_id)
    assert has_news(ask, peer.inventory_id)
    newest = Artifact.objects.order_by("-txid")[0].txid
    assert not has_news(ask, peer.inventory_id, newest + 1)
    assert told(ask, peer.inventory_id) == set()


@pytest.mark.usefixtures("from_site")
def test_a_page_that_is_undone_leaves_no_note(
    peer: FakeInventory, ask: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.add_artifact(artifact_row("cadc:TEST/a"))
    with monkeypatch.context() as broken:

        def fail(site_id: uuid.UUID) -> None:
            echo.note_page(site_id)
            raise RuntimeError("killed here")

        broken.setattr("harvest.apply_artifacts.note_page", fail)
        with pytest.raises(RuntimeError):
            exchange.harvest("peer")
    assert (HarvestedPage.objects.count(), Artifact.objects.count()) == (0, 0)
    RemoteInventory.objects.update(lease_holder=None, lease_until=None)
    assert exchange.harvest("peer").is_complete
    assert (HarvestedPage.objects.count(), told(ask, peer.inventory_id)) == (1, set())


@pytest.mark.usefixtures("from_site")
def test_after_a_restore_of_the_global_everything_is_told(peer: FakeInventory, ask: Client) -> None:
    bring(peer, "a")
    restamp_feed()
    # As if transaction ids had begun again: the same number now means something else.
    HarvestedPage.objects.update(txid=Artifact.objects.get().txid)
    assert told(ask, peer.inventory_id) == {"cadc:TEST/a"}
    assert echo.prune() == 1


@pytest.fixture
def notes(inventory: InventoryIdentity) -> uuid.UUID:
    """A site of which three pages are noted: transactions 5, 6 and 7."""
    site_id = uuid.uuid4()
    for txid in (5, 6, 7):
        HarvestedPage.objects.create(txid=txid, epoch=inventory.epoch, site_id=site_id)
    return site_id


def reads(site_id: uuid.UUID, txid: int, *, caller: str = "its token") -> FeedReader:
    return FeedReader.objects.create(
        caller=caller, inventory_id=site_id, epoch=read_identity().epoch, txid=txid, asked_at=database_now()
    )


def test_notes_serve_until_the_site_has_passed_them(notes: uuid.UUID) -> None:
    reads(notes, 9)
    reads(notes, 6, caller="another of its tokens")
    tasks.expire_events()
    assert [page.txid for page in HarvestedPage.objects.all()] == [7]
    assert echo.prune() == 0


def test_notes_for_a_site_that_does_not_read_are_forgotten(notes: uuid.UUID) -> None:
    retired = reads(notes, 5)
    FeedReader.objects.filter(pk=retired.pk).update(retired_at=database_now())
    reads(uuid.uuid4(), 1)
    assert echo.prune() == 3


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("path", ["artifacts", "news"])
def test_a_site_knows_no_senders(ask: Client, settings: Settings, path: str) -> None:
    settings.INVENTORY_ROLE = "site"
    refused = ask.get(f"/harvest/{path}", {"sender": str(uuid.uuid4())})
    assert (refused.status_code, "leave it out" in refused.json()["detail"]) == (400, True)
    settings.INVENTORY_ROLE = "global"
    assert ask.get(f"/harvest/{path}", {"sender": "alpha"}).status_code == 400


@pytest.mark.usefixtures("from_global", "policy")
def test_a_site_says_who_it_is_to_pages_and_to_what_it_listens_to_but_not_at_the_floor(
    peer: FakeInventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked for without waiting moves the cursors past echoes: nothing that hangs on them waits for ever."""
    own = [str(InventoryIdentity.objects.get().inventory_id)]
    peer.add_artifact(artifact_row())
    exchange.harvest("peer")
    assert all(query["sender"] == own for query in peer.asked("artifacts"))
    assert not any("sender" in query for query in peer.asked("news"))
    peer.requests.clear()
    monkeypatch.setattr(listening, "WAIT_SECONDS", 0)
    RemoteListener(RemoteInventory.objects.get(), exchange.harvest_heard, lambda _: True)._listen_once()
    assert [query["sender"] for query in peer.asked("news")] == [own]


@pytest.mark.usefixtures("from_site")
def test_a_global_asks_its_sites_as_nobody(peer: FakeInventory) -> None:
    bring(peer, "a")
    assert HarvestState.objects.get(name="artifacts").epoch == peer.epoch
    assert not any("sender" in query for stream in ("artifacts", "news") for query in peer.asked(stream))
