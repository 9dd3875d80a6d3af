"""The serving side over real commits: nothing is missed, nothing is served twice, and everybody may look."""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client
from pytest_django.fixtures import Settings

from datamodel import access, auth, notify, operations
from datamodel.identity import restamp_feed
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    HarvestConflict,
    InventoryIdentity,
    SiteLocation,
    StorageSite,
)
from datamodel.permissions import Grant
from datamodel.positions import TXID_SQL, Cursor, read_identity
from datamodel.rows import insert_artifact, insert_tombstone
from datamodel.tokens import TokenLimits
from datamodel.uris import ArtifactUri
from harvest import feed, views
from tests.factories import artifact_row, new_content

pytestmark = pytest.mark.usefixtures("inventory")


def put(name: str = "file.fits", data: bytes = b"content") -> operations.Recorded:
    return operations.record_stored(uri=ArtifactUri.parse(f"cadc:TEST/{name}"), content=new_content(data))


class Reader:
    """A peer that reads a feed through the door."""

    def __init__(self, token: str) -> None:
        self._client = Client(headers={"authorization": f"Bearer {token}"})

    def get(self, path: str, **query: Any) -> tuple[int, bytes]:
        response = self._client.get(f"/harvest/{path}", query)
        body = b"".join(response.streaming_content) if response.streaming else response.content  # type: ignore[attr-defined]
        return response.status_code, body

    def page(self, stream: str, **query: object) -> tuple[list[list[str]], str, str]:
        """Rows, next cursor, whether more follow; the digest is checked."""
        status, body = self.get(stream, **query)
        assert status == 200, body
        head, *rows, end = body.decode().splitlines()
        assert head.split("\t")[3] == stream
        mark, count, cursor, digest, more = end.split("\t")
        sent = "".join(f"{row}\n" for row in rows).encode()
        assert (mark, int(count), digest) == ("#end", len(rows), hashlib.sha256(sent).hexdigest())
        return [row.split("\t") for row in rows], cursor, more

    def uris(self, **query: object) -> set[str]:
        return {row[2] for row in self.page("artifacts", **query)[0]}


@pytest.fixture
def reader(harvest_token: str) -> Reader:
    return Reader(harvest_token)


def current_txid(other: psycopg.Connection[tuple[object, ...]]) -> int:
    found = other.execute(f"SELECT {TXID_SQL}").fetchone()
    assert found is not None
    assert isinstance(found[0], int)
    return found[0]


@contextmanager
def other_connection() -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    parameters = connection.get_connection_params()
    parameters = {name: parameters[name] for name in ("dbname", "user", "host", "port")}
    with psycopg.connect(**parameters) as other:
        yield other


INSERT = """INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified,
    meta_checksum, meta_modified_at, txid) VALUES (%s, 'cadc:TEST/late', '00000', 'md5:x', now(), 1, now(), 'md5:x', now(), %s)"""


def test_pages_follow_each_other_and_the_last_one_says_so(reader: Reader, settings: Settings) -> None:
    settings.INVENTORY_ROLE = "site"
    for number in range(5):
        put(f"file{number}")
    seen, cursor, more = [], None, "1"
    while more == "1":
        rows, cursor, more = reader.page("artifacts", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [row[2] for row in rows]
    assert seen == [f"cadc:TEST/file{number}" for number in range(5)]
    assert reader.page("artifacts", limit=2, cursor=cursor) == ([], cursor, "0")


def test_a_row_stamped_early_and_committed_late_is_never_skipped(reader: Reader, settings: Settings) -> None:
    settings.INVENTORY_ROLE = "global"
    early = uuid.uuid4()
    with other_connection() as slow:
        slow.execute(INSERT, [early, 0])
        quick = put("quick")
        rows, cursor, _ = reader.page("artifacts")
        assert rows == [], "the quick row is above the horizon while the slow transaction runs"
        slow.commit()
    assert Cursor.parse(cursor).txid < Artifact.objects.get(id=early).txid < quick.txid
    assert reader.uris(cursor=cursor) == {"cadc:TEST/quick", "cadc:TEST/late"}


@pytest.mark.parametrize("named", [lambda _own: 0, lambda own: own - 1, lambda own: own, lambda _own: 2**63 - 1])
def test_a_row_has_the_place_of_its_own_transaction_whatever_the_statement_names(named: Callable[[int], int]) -> None:
    with other_connection() as other:
        own = current_txid(other)
        other.execute(INSERT, [uuid.uuid4(), named(own)])
        other.commit()
    assert Artifact.objects.get().txid == own


def test_a_cursor_never_passes_ids_that_a_crash_would_give_out_again(reader: Reader) -> None:
    recorded = put()
    with connection.cursor() as cursor:
        for _ in range(3):
            # An id that no committed change carries.
            cursor.execute("SELECT pg_current_xact_id()")
    assert Cursor.parse(reader.page("artifacts")[1]).txid == recorded.txid
    assert Cursor.parse(reader.page("deleted-artifacts")[1]).txid == recorded.txid


def test_a_cursor_does_not_go_back_when_the_newest_rows_are_gone(reader: Reader) -> None:
    put()
    _, cursor, _ = reader.page("artifacts")
    with connection.cursor() as statement:
        statement.execute("DELETE FROM storage_location")
        statement.execute("DELETE FROM artifact")
    assert reader.page("artifacts", cursor=cursor) == ([], cursor, "0")


def test_a_site_serves_only_what_it_stores(reader: Reader, settings: Settings) -> None:
    settings.INVENTORY_ROLE = "site"
    put("stored")
    insert_artifact(artifact_row("cadc:TEST/unstored"), None)
    assert reader.uris() == {"cadc:TEST/stored"}
    settings.INVENTORY_ROLE = "global"
    assert reader.uris() == {"cadc:TEST/stored", "cadc:TEST/unstored"}


def test_namespaces_and_holder_are_or_ed(reader: Reader, settings: Settings) -> None:
    settings.INVENTORY_ROLE = "global"
    holder, loser = uuid.uuid4(), artifact_row("cadc:X/loser")
    site = StorageSite.objects.create(id=holder, resource_id="ivo://x", name="x", last_modified=loser.last_modified)
    rows = {
        name: artifact_row(f"{name}")
        for name in ("cadc:A/1", "cadc:B/held", "cadc:B/won", "cadc:B/other", "cadc:A%C3%A9")
    }
    for row in rows.values():
        insert_artifact(row, None)
    SiteLocation.objects.create(artifact_id=rows["cadc:B/held"].id, site=site)
    HarvestConflict.objects.create(
        uri=loser.uri,
        winner_id=rows["cadc:B/won"].id,
        loser_id=loser.id,
        loser_checksum=loser.content_checksum,
        loser_length=1,
        loser_last_modified=loser.last_modified,
        loser_site=site,
        same_content=False,
        decided_at=loser.last_modified,
    )
    assert reader.uris(namespace="cadc:A/") == {"cadc:A/1"}
    assert reader.uris(namespace=["cadc:A/", "cadc:B/"]) == set(rows) - {"cadc:A%C3%A9"}
    assert reader.uris(holder=holder) == {"cadc:B/held", "cadc:B/won"}
    assert reader.uris(namespace="cadc:A/", holder=holder) == {"cadc:A/1", "cadc:B/held", "cadc:B/won"}


def test_events_without_uri_pass_every_filter(reader: Reader) -> None:
    now = datetime.now(UTC)
    insert_tombstone(uuid.uuid4(), "cadc:A/1", deleted_at=now)
    insert_tombstone(uuid.uuid4(), "cadc:B/1", deleted_at=now)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO deleted_artifact_event (id, uri, last_modified, meta_checksum, deleted_at, txid) "
            "VALUES (gen_random_uuid(), NULL, now(), 'md5:x', now(), 0)"
        )
    assert {row[2] for row in reader.page("deleted-artifacts", namespace="cadc:A/")[0]} == {"cadc:A/1", r"\N"}


def test_a_rare_namespace_is_found_in_bounded_steps(
    reader: Reader, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_SCAN_ROWS", 3)
    settings.INVENTORY_ROLE = "global"
    for number in range(10):
        put(f"file{number}")
    wanted = operations.record_stored(uri=ArtifactUri.parse("cadc:RARE/x"), content=new_content())
    query: dict[str, str] = {}
    pages, found, more = 0, [], "1"
    while more == "1":
        rows, cursor, more = reader.page("artifacts", namespace="cadc:RARE/", **query)
        found += rows
        query = {"cursor": cursor}
        pages += 1
    assert [row[1] for row in found] == [str(wanted.artifact.id)]
    assert pages == 4


def test_times_flags_and_digests_are_written_as_promised(reader: Reader, site: StorageSite) -> None:
    recorded = put(data=b"abc")
    ((_, _, _, checksum, modified, length, kind, encoding, _, meta, sha256, _),) = reader.page("artifacts")[0]
    when = recorded.artifact.content_last_modified
    assert modified == when.isoformat(timespec="milliseconds").removesuffix("+00:00")
    assert (checksum, length, kind, encoding) == (recorded.artifact.content_checksum, "3", r"\N", r"\N")
    assert (meta, sha256) == (recorded.artifact.meta_checksum, hashlib.sha256(b"abc").hexdigest())
    assert reader.page("sites")[0][0][4:6] == ["true", "true"]


def test_ndjson_is_for_people(reader: Reader, site: StorageSite) -> None:
    operations.record_stored(uri=ArtifactUri.parse("cadc:A/x"), content=new_content(content_type='a"\\b'))
    status, body = reader.get("artifacts", format="ndjson")
    row, end = (json.loads(line) for line in body.splitlines())
    assert (status, row["uri"], row["contentType"], end["end"]["count"]) == (200, "cadc:A/x", 'a"\\b', 1)
    assert json.loads(reader.get("sites", format="ndjson")[1].splitlines()[0])["allowRead"] is True
    assert reader.get("artifacts", format="ndjson", limit=1, cursor=end["end"]["cursor"])[0] == 200


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("artifacts", {"limit": "0"}, 400),
        ("artifacts", {"limit": "100001"}, 400),
        ("artifacts", {"limit": "x"}, 400),
        ("artifacts", {"cursor": "nonsense"}, 400),
        ("artifacts", {"namespace": "cadc"}, 400),
        ("artifacts", {"format": "xml"}, 400),
        ("artifacts", {"holder": str(uuid.uuid4())}, 400),
        ("sites", {"namespace": "cadc:"}, 400),
        ("news", {"after": "-1"}, 400),
        ("other", {}, 404),
        ("artifacts", {"cursor": f"{'f' * 16}.1.{uuid.uuid4()}"}, 410),
        ("news", {"epoch": "f" * 16}, 410),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    reader: Reader, settings: Settings, path: str, query: dict[str, str], status: int
) -> None:
    settings.INVENTORY_ROLE = "site"
    assert reader.get(path, **query)[0] == status


def test_a_cursor_above_the_horizon_is_gone(reader: Reader) -> None:
    epoch = read_identity().epoch
    assert reader.get("artifacts", cursor=Cursor.below(epoch, 2**60))[0] == 410
    assert reader.get("news", epoch=epoch, after=2**60)[0] == 410


def test_only_callers_with_the_grant_read_the_feed() -> None:
    other = auth.create_api_token(name="other", grants=frozenset({Grant.READ}), now=datetime.now(UTC))
    assert Client().get("/harvest/artifacts").status_code == 401
    assert Reader(other).get("artifacts")[0] == 403
    assert Reader(other).get("news")[0] == 403


def test_a_restamped_feed_is_served_anew_to_everyone(reader: Reader) -> None:
    put()
    _, cursor, _ = reader.page("artifacts")
    restamp_feed()
    assert reader.get("artifacts", cursor=cursor)[0] == 410
    assert len(reader.page("artifacts")[0]) == 1


def test_a_feed_that_needs_restamping_is_not_served(reader: Reader) -> None:
    InventoryIdentity.objects.update(timeline=99)
    assert reader.get("artifacts")[0] == 503
    assert reader.get("news")[0] == 503


def news_in_thread(reader: Reader, **query: object) -> tuple[threading.Thread, list[tuple[bool, float]]]:
    answers: list[tuple[bool, float]] = []
    begun = time.monotonic()

    def ask() -> None:
        answer = json.loads(reader.get("news", **query)[1])
        answers.append((answer["news"], time.monotonic() - begun))
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, answers


def test_news_come_with_the_commit(reader: Reader) -> None:
    first = put("first")
    assert json.loads(reader.get("news", after=first.txid)[1])["news"] is True
    thread, answers = news_in_thread(reader, after=first.txid + 1, wait=20)
    time.sleep(0.2)  # the request shall be waiting; if it is not yet, the test holds all the same
    assert answers == []
    put("second")
    thread.join()
    assert answers[0][0] is True
    assert answers[0][1] < 5


def test_news_say_in_which_streams_they_are(reader: Reader) -> None:
    first = put("first")
    answer = json.loads(reader.get("news", after=first.txid)[1])
    assert (answer["streams"], answer["settled"]) == (["artifacts"], first.txid)
    gone = operations.delete_artifact(uri=ArtifactUri.parse(first.artifact.uri))
    answer = json.loads(reader.get("news", after=gone)[1])
    assert (answer["streams"], answer["settled"]) == (["deleted-artifacts"], gone)
    assert json.loads(reader.get("news", after=gone + 1)[1])["streams"] == []


def test_a_page_of_artifacts_says_how_new_the_newest_deletion_is(
    inventory: InventoryIdentity, harvest_token: str
) -> None:
    client = Client(headers={"authorization": f"Bearer {harvest_token}"})

    def said(stream: str) -> str | None:
        response = client.get(f"/harvest/{stream}")
        assert b"".join(response.streaming_content)  # type: ignore[attr-defined]  # the file of the page is closed with it
        return response.headers.get("X-Inventory-Deletions")

    put("kept.fits")
    assert said("artifacts") == "0"
    put("gone.fits")
    operations.delete_artifact(uri=ArtifactUri.parse("cadc:TEST/gone.fits"))
    deleted = DeletedArtifactEvent.objects.get().txid
    assert (said("artifacts"), said("deleted-artifacts")) == (str(deleted), None)
    put("later.fits")
    assert said("artifacts") == str(deleted)
    # Who has not read an event that is gone is told so by the stream of deletions, which it must ask for that.
    InventoryIdentity.objects.update(events_gone_txid=deleted + 1)
    assert said("artifacts") == str(deleted + 1)


def test_a_look_for_what_is_soon_final_comes_soon_after_each_doorbell(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long something else has held the horizon: many doorbells are no reason to look more rarely."""
    rings = iter([True, True, True, False, False, True, False])
    waits: list[float] = []

    def wait(seen: int, seconds: float) -> bool:
        waits.append(seconds)
        return next(rings)

    head = feed.read_head()
    connection.close()
    monkeypatch.setattr(notify.news, "wait", wait)
    monkeypatch.setattr(
        feed, "read_news", lambda *_, **__: feed.News(head, ("artifacts",) if len(waits) == 7 else (), is_pending=True)
    )
    assert views._wait("", 1, 20.0, None).streams == ("artifacts",)
    first = views._FIRST_PAUSE_SECONDS
    assert waits == [first, first, first, first, 2 * first, 4 * first, first]


def test_news_held_back_by_another_transaction_come_when_it_ends(reader: Reader) -> None:
    first = put("first")
    with other_connection() as slow:
        slow.execute("SELECT pg_current_xact_id()")
        put("second")
        thread, answers = news_in_thread(reader, after=first.txid + 1, wait=20)
        time.sleep(0.2)  # as above
        assert answers == []
        slow.rollback()
    thread.join()
    assert answers[0][0] is True
    assert answers[0][1] < 5


def test_more_long_polls_than_allowed_are_answered_at_once(reader: Reader, settings: Settings) -> None:
    settings.INVENTORY_LONG_POLLS = 0
    begun = time.monotonic()
    assert json.loads(reader.get("news", wait=20)[1])["news"] is False
    assert time.monotonic() - begun < 5


# --- a peer that may harvest a part


def limited_reader(*prefixes: str) -> Reader:
    limits = TokenLimits.parse(prefixes, [])
    return Reader(
        auth.create_api_token(name="part", grants=frozenset({Grant.HARVEST}), now=datetime.now(UTC), limits=limits)
    )


def test_a_limited_peer_gets_its_prefixes_and_is_told_that_the_rest_was_left_out(reader: Reader) -> None:
    for uri in ("cadc:A/x", "cadc:B/x", "cadc:C/x", "other:x"):
        operations.record_stored(uri=ArtifactUri.parse(uri), content=new_content())
    operations.delete_artifact(uri=ArtifactUri.parse("cadc:B/x"))
    operations.delete_artifact(uri=ArtifactUri.parse("cadc:C/x"))
    limited = limited_reader("cadc:A/", "cadc:C/")
    for stream, expected in (("artifacts", ["cadc:A/x"]), ("deleted-artifacts", ["cadc:C/x"])):
        status, body = limited.get(stream)[:2]
        assert status == 200
        *rows, end = body.decode().splitlines()[1:]
        assert [row.split("\t")[2] for row in rows] == expected
        assert end.split("\t")[5:] == ["limited"]
        assert "B/x" not in body.decode()
        assert "limited" not in reader.get(stream)[1].decode()
    last = json.loads(limited.get("artifacts", format="ndjson")[1].splitlines()[-1])
    assert last["end"]["limited"] is True


def test_what_a_limited_peer_asks_for_widens_nothing(reader: Reader) -> None:
    operations.record_stored(uri=ArtifactUri.parse("cadc:B/x"), content=new_content())
    limited = limited_reader("cadc:A/")
    assert b"B/x" not in limited.get("artifacts", namespace="cadc:")[1]
    for door in ("tree", "listing", "rows"):
        assert limited.get(door)[0] == 403


def test_a_peer_granted_a_namespace_harvests_it(reader: Reader) -> None:
    token = auth.create_api_token(name="other", grants=frozenset(), now=datetime.now(UTC))
    assert Reader(token).get("artifacts")[0] == 403
    access.save_grant(prefix="cadc:A/", allowed={Grant.HARVEST: ["token:other"]})
    operations.record_stored(uri=ArtifactUri.parse("cadc:A/x"), content=new_content())
    assert b"A/x" in Reader(token).get("artifacts")[1]
