"""The asking side against a peer that misbehaves: every failure has its type, and half a page is never a page."""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Callable

import pytest
from pytest_django.fixtures import Settings

from datamodel.errors import (
    CursorGoneError,
    InventoryError,
    RemoteProtocolError,
    RemoteRefusedError,
    RemoteUnavailableError,
)
from datamodel.positions import Cursor
from datamodel.service_tokens import Credential
from datamodel.uris import Namespace
from harvest import client
from harvest.client import Remote
from harvest.pages import PageQuery
from harvest.streams import ARTIFACTS, DELETED_ARTIFACTS
from tests.factories import artifact_row
from tests.fakes.feed import TOKEN, FakeInventory


def remote(peer: FakeInventory) -> Remote:
    return Remote("peer", peer.url, Credential(token=TOKEN))


def query(cursor: Cursor | None = None, limit: int = 100) -> PageQuery:
    return PageQuery(ARTIFACTS, cursor, limit)


@pytest.fixture
def filled(peer: FakeInventory) -> FakeInventory:
    for number in range(5):
        peer.add_artifact(artifact_row(f"cadc:TEST/file{number}"))
    return peer


def test_a_page_arrives_as_it_was_sent(filled: FakeInventory) -> None:
    with client.fetch_page(remote(filled), query(limit=3)) as page:
        lines = page.rows.read().decode().splitlines()
        assert [line.split("\t")[2] for line in lines] == [f"cadc:TEST/file{number}" for number in range(3)]
        assert (page.count, page.more, page.next_cursor.txid) == (3, True, 103)
        assert page.columns == ARTIFACTS.wire_names
    with client.fetch_page(remote(filled), query(page.next_cursor, limit=3)) as rest:
        assert (rest.count, rest.more) == (2, False)
    assert filled.tokens == [f"Bearer {TOKEN}"] * 2


def test_a_page_larger_than_a_chunk_arrives_whole(peer: FakeInventory) -> None:
    for number in range(3000):
        peer.add_artifact(artifact_row(f"cadc:TEST/{'x' * 200}{number}"))
    with client.fetch_page(remote(peer), query(limit=5000)) as page:
        assert page.count == 3000 == page.rows.read().count(b"\n")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_cut_page_is_no_page(filled: FakeInventory, share: float) -> None:
    filled.cut_after = int(len(filled.page("artifacts", {"limit": ["100"]})) * share)
    with pytest.raises(RemoteUnavailableError):
        client.fetch_page(remote(filled), query())


def test_a_page_cut_at_any_line_is_no_page(filled: FakeInventory) -> None:
    """The length is right, so only the end line can tell."""
    whole = filled.page("artifacts", {"limit": ["100"]}).splitlines(keepends=True)
    for kept in range(len(whole)):
        filled.page = lambda *_, kept=kept: b"".join(whole[:kept])  # type: ignore[method-assign]
        with pytest.raises((RemoteUnavailableError, RemoteProtocolError)):
            client.fetch_page(remote(filled), query())
    assert len(whole) == 7


def replace_end(pattern: str, text: str) -> Callable[[bytes], bytes]:
    return lambda page: re.sub(pattern.encode(), text.encode(), page, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("twist", "said"),
    [
        (replace_end(r"^#end\t5", "#end\t4"), "counted 4"),
        (replace_end(r"^(#end\t.*)\t[0-9a-f]{64}", r"\1\t" + "0" * 64), "digest"),
        (replace_end(r"^#storage-inventory-feed", "#other"), "did not send a feed"),
        (replace_end(r"^(#storage-inventory-feed\t1\t.*)\tartifacts", r"\1\tlocations"), "locations"),
        (replace_end(r"^(#storage-inventory-feed)\t1", r"\1\tnew"), "version"),
        (replace_end(r"\tcontentLength\t", "\t"), "left out contentLength"),
        (replace_end(r"\tcontentType\t", "\turi\t"), "twice"),
        (replace_end(r"^(#end\t5)\t\S+", r"\1\tnonsense"), "cursor"),
        (replace_end(r"^(#end\t5\t)[0-9a-f]{16}", r"\g<1>" + "f" * 16), "another epoch"),
        (replace_end(r"^#storage-inventory-feed\t1\t[0-9a-f]+", "#storage-inventory-feed\t1\t" + "e" * 16), "epoch"),
        (replace_end(r"\t0\n\Z", "\t7\n"), "more rows follow"),
        (lambda page: b"x" * 10_000 + page, "did not send a feed"),
        (lambda _: b"x" * 10_000, "no header line"),
        (lambda page: page.replace(b"#end", b"y" * 300_000 + b"#end"), "too long"),
        (lambda page: page.replace(b"\n#end", b"\n" + b"z\n" * 300_000 + b"#end"), "too large"),
    ],
)
def test_a_page_that_is_not_what_it_claims_is_refused(
    filled: FakeInventory, twist: Callable[[bytes], bytes], said: str
) -> None:
    honest = filled.page
    filled.page = lambda *arguments: twist(honest(*arguments))  # type: ignore[method-assign]
    with pytest.raises(RemoteProtocolError, match=said):
        client.fetch_page(remote(filled), query())


def test_a_cursor_that_does_not_go_on_is_refused(filled: FakeInventory) -> None:
    with client.fetch_page(remote(filled), query(limit=2)) as page:
        cursor = page.next_cursor
    honest = filled.page
    filled.page = lambda *_: honest("artifacts", {"limit": ["2"]})  # type: ignore[method-assign]
    with pytest.raises(RemoteProtocolError, match="does not go on"):
        client.fetch_page(remote(filled), query(cursor, limit=2))


def test_more_rows_than_asked_for_are_refused(filled: FakeInventory) -> None:
    honest = filled.page
    filled.page = lambda *_: honest("artifacts", {"limit": ["5"]})  # type: ignore[method-assign]
    with pytest.raises(RemoteProtocolError, match="more rows"):
        client.fetch_page(remote(filled), query(limit=3))


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (401, RemoteRefusedError),
        (403, RemoteRefusedError),
        (400, RemoteRefusedError),
        (404, RemoteProtocolError),
        (302, RemoteProtocolError),
        (410, CursorGoneError),
        (429, RemoteUnavailableError),
        (500, RemoteUnavailableError),
        (503, RemoteUnavailableError),
    ],
)
def test_each_status_has_its_failure(peer: FakeInventory, status: int, failure: type[InventoryError]) -> None:
    peer.status = {"artifacts": status, "news": status, "pubkey": status}
    with pytest.raises(failure, match="as told"):
        client.fetch_page(remote(peer), query())
    with pytest.raises(failure):
        client.fetch_news(remote(peer), epoch="", after=0)
    with pytest.raises(failure):
        client.fetch_public_keys(remote(peer))


def test_nobody_at_the_address_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RemoteUnavailableError):
            client.fetch_page(Remote("peer", address, Credential()), query())


@pytest.mark.parametrize("url", ["", "nowhere", "http://", "ftp://x/y", "http://[::1/"])
def test_a_useless_url_is_told_apart(url: str) -> None:
    with pytest.raises(RemoteProtocolError, match="URL"):
        client.fetch_page(Remote("peer", url, Credential()), query())


def test_a_silent_peer_is_given_up(peer: FakeInventory, settings: Settings) -> None:
    settings.INVENTORY_REMOTE_TIMEOUT_SECONDS = 0.2
    peer.before = lambda _: time.sleep(1)
    begun = time.monotonic()
    with pytest.raises(RemoteUnavailableError):
        client.fetch_page(remote(peer), query())
    assert time.monotonic() - begun < 1


def test_a_dripping_peer_is_given_up_and_the_lease_kept_until_then(
    filled: FakeInventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_PAGE_SECONDS", 0.3)
    monkeypatch.setattr(client, "_HEARTBEAT_SECONDS", 0.05)
    filled.drip_seconds = 0.04
    beats: list[float] = []
    with pytest.raises(RemoteUnavailableError, match="took more than"):
        client.fetch_page(remote(filled), query(), heartbeat=lambda: beats.append(time.monotonic()))
    assert len(beats) >= 2


def test_a_newer_version_with_more_columns_is_understood(filled: FakeInventory) -> None:
    filled.version = "2"
    filled.columns["artifacts"] = ["colour", *filled.columns["artifacts"], "taste"]
    with client.fetch_page(remote(filled), query()) as page:
        assert page.columns[0] == "colour"


def test_extra_columns_of_ours_may_be_missing(filled: FakeInventory) -> None:
    for name in ("contentSha256", "metaModified"):
        filled.columns["artifacts"].remove(name)
    filled.columns["deleted-artifacts"].remove("deletedAt")
    with client.fetch_page(remote(filled), query()) as page:
        assert "metaModified" not in page.columns
    client.fetch_page(remote(filled), PageQuery(DELETED_ARTIFACTS, None, 1)).rows.close()


def test_news_say_who_answers(filled: FakeInventory) -> None:
    news = client.fetch_news(remote(filled), epoch=filled.epoch, after=filled.txid)
    assert (news.inventory_id, news.has_rows, news.epoch) == (filled.inventory_id, True, filled.epoch)
    assert not client.fetch_news(remote(filled), epoch=filled.epoch, after=filled.txid + 1).has_rows


def test_public_keys_are_those_of_our_kind(peer: FakeInventory) -> None:
    peer.keys = {"one": bytes(range(32))}
    assert client.fetch_public_keys(remote(peer)) == {"one": bytes(range(32))}
    peer.keys = {"short": b"x"}
    with pytest.raises(RemoteProtocolError, match="32 bytes"):
        client.fetch_public_keys(remote(peer))
    peer.key_set = lambda: {"keys": [{"kty": "OKP", "crv": "Ed25519"}]}  # type: ignore[method-assign]
    with pytest.raises(RemoteProtocolError, match="key set"):
        client.fetch_public_keys(remote(peer))


def test_too_many_namespaces_are_asked_for_by_their_schemes() -> None:
    holder = uuid.uuid4()
    many = tuple(Namespace.parse(f"cadc:{'x' * 50}{number}/") for number in range(500))
    assert "namespace=cadc%3A&" in PageQuery(ARTIFACTS, None, 1, many, holder).text + "&"
    schemes = tuple(Namespace.parse(f"{'y' * 20}{number}:") for number in range(500))
    assert PageQuery(ARTIFACTS, None, 1, schemes, holder).text == "limit=1", "everything, and nothing left out"
    few = PageQuery(ARTIFACTS, None, 1, many[:2], holder).text
    assert few.count("namespace=") == 2
    assert str(holder) in few
