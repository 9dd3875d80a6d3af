"""Events go when they are old and everybody has passed them; whoever has not is told, goes on, and asks about what only it has."""

from __future__ import annotations

import uuid
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.test import Client
from pytest_django import Settings

from datamodel import auth, operations
from datamodel.checks import check_settings
from datamodel.models import (
    ApiToken,
    Artifact,
    DeletedArtifactEvent,
    DeletedStorageLocationEvent,
    FeedReader,
    InventoryIdentity,
    RemoteInventory,
    StorageLocationEvent,
)
from datamodel.permissions import ALL_GRANTS
from datamodel.positions import read_identity
from datamodel.rows import database_now
from datamodel.uris import ArtifactUri
from harvest import expiry, readers
from harvest.expiry import expire_events
from tests.factories import new_content

pytestmark = pytest.mark.usefixtures("site")
PEER = uuid.UUID(int=7)


@pytest.fixture(autouse=True)
def _forget_readers() -> None:
    readers.recent.clear()


@pytest.fixture
def client() -> Client:
    """Somebody who may speak for the peer."""
    token = auth.create_api_token(name="peer", grants=ALL_GRANTS, now=database_now())
    return Client(headers={"Authorization": f"Bearer {token}", "X-Inventory-Reader": str(PEER)})


def delete_files(count: int, *, days: int = 0) -> None:
    """So many tombstones of an age."""
    before = set(DeletedArtifactEvent.objects.values_list("id", flat=True))
    for number in range(count):
        uri = ArtifactUri.parse(f"cadc:TEST/{number}")
        operations.record_stored(uri=uri, content=new_content(uuid.uuid4().bytes))
        operations.delete_artifact(uri=uri)
    age(days, exclude=before)


def age(days: int, exclude: set[uuid.UUID]) -> None:
    """Without a new place in the feed."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE deleted_artifact_event DISABLE TRIGGER USER")
        DeletedArtifactEvent.objects.exclude(id__in=exclude).update(
            last_modified=F("last_modified") - timedelta(days=days)
        )
        cursor.execute("ALTER TABLE deleted_artifact_event ENABLE TRIGGER USER")


def ask_news(client: Client, after: int) -> None:
    readers.recent.clear()
    assert client.get(f"/harvest/news?epoch={read_identity().epoch}&after={after}").status_code == 200


def page(client: Client, stream: str = "deleted-artifacts", **query: str) -> tuple[int, str]:
    """Read to the end, which closes the spooled page."""
    answer = client.get(f"/harvest/{stream}", query)
    return answer.status_code, answer.getvalue().decode()


def next_cursor(text: str) -> str:
    return text.rstrip().split("\t")[-3]


def newest() -> int:
    return max(DeletedArtifactEvent.objects.values_list("txid", flat=True), default=0)


def test_old_events_that_every_peer_has_passed_go_and_young_ones_stay(client: Client) -> None:
    delete_files(5, days=200)
    passed = newest()
    delete_files(2, days=100)
    ask_news(client, newest() + 1)
    found = expire_events()
    assert (found.events, found.blocked_by) == (5, ())
    assert DeletedArtifactEvent.objects.count() == 2
    identity = InventoryIdentity.objects.get()
    assert identity.events_gone_txid >= passed
    assert identity.events_expired == 5
    assert expire_events().events == 0


def test_a_peer_that_is_behind_keeps_what_it_has_not_passed_until_it_is_retired(client: Client) -> None:
    delete_files(2, days=200)
    first = newest()
    delete_files(3, days=200)
    ask_news(client, first + 1)
    found = expire_events()
    assert (found.events, found.blocked_by) == (2, (str(PEER),))
    assert expire_events().events == 0
    assert readers.retire_readers(readers=FeedReader.objects.all()) == 1
    assert expire_events() == expiry.Expired(3, ())


def test_a_peer_that_went_back_blocks_again_and_a_revoked_one_does_not(client: Client) -> None:
    delete_files(3, days=200)
    ask_news(client, newest() + 1)
    assert client.get(f"/harvest/news?epoch={read_identity().epoch}&after=0").status_code == 200
    assert expire_events() == expiry.Expired(0, (str(PEER),))
    auth.revoke_api_tokens(tokens=ApiToken.objects.all(), now=database_now() - timedelta(seconds=1))
    assert expire_events().events == 3


def test_an_enabled_remote_that_never_asked_blocks(client: Client) -> None:
    delete_files(3, days=200)
    ask_news(client, newest() + 1)
    remote = RemoteInventory.objects.create(
        name="silent", role="global", url="http://silent", inventory_id=uuid.uuid4()
    )
    assert expire_events() == expiry.Expired(0, ("silent",))
    RemoteInventory.objects.filter(id=remote.id).update(enabled=False)
    assert expire_events().events == 3


def test_all_three_kinds_go_and_nothing_else(client: Client) -> None:
    stored = operations.record_stored(uri=ArtifactUri.parse("cadc:TEST/kept"), content=new_content())
    when = database_now() - timedelta(days=200)
    for model in (StorageLocationEvent, DeletedStorageLocationEvent):
        model.objects.create(id=uuid.uuid4(), uri="cadc:TEST/1", last_modified=when, meta_checksum="md5:x")
    delete_files(1, days=200)
    ask_news(client, newest() + 1)
    assert expire_events().events == 3
    assert Artifact.objects.get().id == stored.artifact.id


def test_a_sweep_that_is_stopped_goes_on_and_serves_no_hole(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    delete_files(5, days=200)
    ask_news(client, newest() + 1)
    monkeypatch.setattr(expiry, "_DELETED_AT_ONCE", 2)
    assert expire_events(seconds=0).events == 0
    assert InventoryIdentity.objects.get().events_gone_txid == newest()
    assert page(client)[1].count("\n") == 2, "no rows: all of them are condemned"
    assert expire_events().events == 5


def test_many_events_of_one_transaction_and_a_small_window_still_go(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "_LOOKED_AT", 2)
    when = database_now() - timedelta(days=200)
    DeletedArtifactEvent.objects.bulk_create(
        DeletedArtifactEvent(
            id=uuid.uuid4(), uri=f"cadc:T/{n}", last_modified=when, meta_checksum="md5:x", deleted_at=when
        )
        for n in range(5)
    )
    delete_files(1)
    ask_news(client, newest() + 1)
    assert expire_events().events == 5
    expire_events()
    assert DeletedArtifactEvent.objects.count() == 1


def test_a_cursor_older_than_the_mark_gets_a_clear_410_and_the_place_to_go_on(client: Client) -> None:
    delete_files(2, days=200)
    cursor = next_cursor(page(client, limit="1")[1])
    ask_news(client, newest() + 1)
    expire_events()
    gone = client.get(f"/harvest/deleted-artifacts?cursor={cursor}")
    assert gone.status_code == 410
    assert gone.json()["code"] == "history_gone"
    assert "reconcile" in gone.json()["detail"]
    assert page(client, cursor=gone.json()["cursor"])[0] == 200
    assert page(client, "artifacts", cursor=cursor)[0] == 200
    news = client.get(f"/harvest/news?epoch={read_identity().epoch}&after=1").json()
    assert "deleted-artifacts" in news["streams"], "else the stale cursor would be passed over in silence"
    assert news["expiredUntil"] is not None
    assert page(client, cursor=next_cursor(page(client)[1]))[0] == 200


def test_a_retired_peer_that_has_caught_up_is_known_again(client: Client) -> None:
    delete_files(2, days=200)
    ask_news(client, 2)
    readers.retire_readers(readers=FeedReader.objects.all())
    expire_events()
    ask_news(client, 2)
    assert FeedReader.objects.get().retired_at is not None
    ask_news(client, InventoryIdentity.objects.get().events_gone_txid + 1)
    assert FeedReader.objects.get().retired_at is None


def test_zero_days_keep_everything_and_a_backup_older_than_the_memory_is_refused(
    client: Client, settings: Settings
) -> None:
    delete_files(1, days=10_000)
    ask_news(client, newest() + 1)
    settings.INVENTORY_EVENT_RETENTION_DAYS = 0
    assert expire_events().events == 0
    assert "inventory.E021" not in [message.id for message in check_settings(app_configs=None)]
    settings.INVENTORY_EVENT_RETENTION_DAYS, settings.INVENTORY_OLDEST_BACKUP_DAYS = 30, 31
    assert "inventory.E021" in [message.id for message in check_settings(app_configs=None)]


def test_a_reader_that_says_nonsense_is_refused(client: Client) -> None:
    answer = client.get("/harvest/news", headers={"X-Inventory-Reader": "me"})
    assert answer.status_code == 400
    assert not FeedReader.objects.exists()


def test_how_far_a_peer_is_is_written_every_ten_seconds_only(client: Client) -> None:
    ask_news(client, 5)
    client.get(f"/harvest/news?epoch={read_identity().epoch}&after=9")
    assert FeedReader.objects.get().txid == 4
    client.get(f"/harvest/news?epoch={read_identity().epoch}&after=3")
    assert FeedReader.objects.get().txid == 2, "at once when it has gone back"


def test_metrics_tell_who_blocks_and_the_command_and_admin_retire(client: Client, settings: Settings) -> None:
    settings.INVENTORY_METRICS_PUBLIC = True
    delete_files(1, days=200)
    ask_news(client, 2)
    text = Client().get("/metrics").content.decode()
    assert f'inventory_event_expiry_blocked{{peer="{PEER}"}} 1.0' in text
    assert "inventory_oldest_event_seconds 1.72" in text
    assert "inventory_events_expired_total 0.0" in text
    out = StringIO()
    with pytest.raises(CommandError, match="no inventory"):
        call_command("feed_readers", "--retire", str(uuid.uuid4()), stdout=out)
    call_command("feed_readers", "--retire", str(PEER), stdout=out)
    assert "retired" in out.getvalue()
    FeedReader.objects.update(retired_at=None)
    operator = Client()
    operator.force_login(get_user_model().objects.create_superuser("operator", password="any"))
    chosen = {"action": "retire", "_selected_action": [str(FeedReader.objects.get().pk)]}
    assert "1 retired" in operator.post("/admin/datamodel/feedreader/", chosen, follow=True).content.decode()
    assert expire_events().events == 1
