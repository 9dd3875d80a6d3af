"""What a global tells whom: locate, listings, held and explain keep to the caller's prefixes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from datamodel import access, auth, preauth
from datamodel.grants import ALL_GRANTS, Grant
from datamodel.tokens import TokenLimits
from tests.factories import settle_rights
from tests.global_inventory.conftest import Federation

OPEN, CLOSED = "cadc:OPEN/x", "cadc:CLOSED/x"
pytestmark = pytest.mark.urls("global_inventory.urls")


def caller(name: str, *grants: Grant, prefixes: tuple[str, ...] = ()) -> Client:
    limits = TokenLimits.parse(prefixes, [])
    token = auth.create_api_token(name=name, grants=frozenset(grants), now=datetime.now(UTC), limits=limits)
    return Client(headers={"authorization": f"Bearer {token}"})


@pytest.fixture
def known(federation: Federation, settings: Settings) -> dict[str, str]:
    """Two artifacts at one site: ids by uri."""
    settings.INVENTORY_ROLE = "global"
    site = federation.add_site("alpha")
    access.save_grant(prefix="cadc:OPEN/", anonymous_read=True)
    return {uri: str(federation.add_artifact(uri, site).id) for uri in (OPEN, CLOSED)}


def post(client: Client, path: str, body: object) -> HttpResponse:
    return client.post(path, json.dumps(body), content_type="application/json")  # type: ignore[return-value]


def methods_in(url: str) -> str:
    token = url.split("/files/")[1].split("/", maxsplit=1)[0]
    return str(json.loads(preauth._unpack(token.split(".")[2]))["m"])


def test_what_anonymous_callers_may_not_read_looks_like_what_is_not_known(known: dict[str, str]) -> None:
    client = Client()
    assert client.head(f"/files/{OPEN}").status_code == 200
    assert client.get(f"/files/{OPEN}").status_code == 303
    missing = client.get("/files/cadc:OPEN/none")
    for uri in (CLOSED, "cadc:CLOSED/none"):
        for answer in (client.get(f"/files/{uri}"), post(client, "/locate", {"uri": uri})):
            assert answer.status_code == missing.status_code == 404
            assert answer.content.replace(uri.encode(), b"U") == missing.content.replace(b"cadc:OPEN/none", b"U")
    assert client.put(f"/files/{OPEN}").status_code == 401


def test_in_bulk_not_readable_and_not_known_look_alike(known: dict[str, str]) -> None:
    uris = [OPEN, CLOSED, "cadc:CLOSED/none"]
    for client in (Client(), caller("l", *ALL_GRANTS, prefixes=("cadc:OPEN/",))):
        results = post(client, "/locate", {"uris": uris}).json()["results"]  # type: ignore[attr-defined]
        assert [bool(result["urls"]) for result in results] == [True, False, False]
        closed, none = ({**result, "uri": "U"} for result in results[1:])
        assert str(closed).replace(CLOSED, "U") == str(none).replace("cadc:CLOSED/none", "U")


def test_listings_and_ids_show_only_what_may_be_read(known: dict[str, str]) -> None:
    client = Client()
    assert [item["uri"] for item in client.get("/artifacts").json()["items"]] == [OPEN]
    stream = b"".join(client.get("/artifacts?format=ndjson").streaming_content)  # type: ignore[attr-defined]
    assert OPEN.encode() in stream
    assert CLOSED.encode() not in stream
    assert client.get(f"/artifacts/{known[OPEN]}").status_code == 200
    hidden, none = (client.get(f"/artifacts/{i}") for i in (known[CLOSED], "00000000-0000-4000-8000-000000000001"))
    assert hidden.status_code == none.status_code == 404
    assert hidden.json().keys() == none.json().keys()
    assert client.get("/artifacts", {"uri": CLOSED}).status_code == 404
    assert client.get("/explain", {"uri": CLOSED}).status_code == 404


def test_held_knows_only_what_may_be_read(known: dict[str, str]) -> None:
    client = caller("l", Grant.READ, prefixes=("cadc:OPEN/",))
    files = [{"uri": uri, "digest": "md5:" + "0" * 32} for uri in (OPEN, CLOSED, "cadc:none")]
    answer: dict[str, Any] = post(client, "/held", {"files": files}).json()  # type: ignore[attr-defined]
    assert [file["reason"] for file in answer["files"]] == ["other_content", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("grants", "letter"),
    [
        ({Grant.READ, Grant.WRITE}, "w"),
        ({Grant.READ, Grant.WRITE, Grant.DELETE}, "d"),
        ({Grant.WRITE}, "p"),
        ({Grant.WRITE, Grant.DELETE}, "px"),
    ],
)
def test_a_url_signed_for_a_write_allows_no_more_than_its_caller_may(
    known: dict[str, str], grants: set[Grant], letter: str
) -> None:
    answer = caller("w", *grants).put("/files/cadc:CLOSED/new")
    assert answer.status_code == 307
    assert methods_in(answer["Location"]) == letter


def test_whoever_may_only_delete_gets_a_url_for_deleting(known: dict[str, str]) -> None:
    answer = caller("d", Grant.DELETE).delete(f"/files/{CLOSED}")
    assert answer.status_code == 307
    assert methods_in(answer["Location"]) == "x"


def test_a_url_is_signed_for_what_the_prefix_grants(known: dict[str, str]) -> None:
    client = caller("p")
    access.save_grant(prefix="cadc:W/", allowed={Grant.WRITE: ["token:p"], Grant.DELETE: ["token:other"]})
    assert methods_in(client.put("/files/cadc:W/new")["Location"]) == "w"
    assert client.put("/files/cadc:X/new").status_code == 403


@pytest.mark.usefixtures("known_open")
def test_deciding_adds_no_statement_to_locate(known: dict[str, str]) -> None:
    by_rule, by_token = caller("p"), caller("t", Grant.READ)
    access.save_grant(prefix="cadc:", allowed={Grant.READ: ["token:p"]})
    settle_rights()
    counts = []
    for client in (by_rule, by_token):
        client.head(f"/files/{OPEN}")
        client.get(f"/files/{OPEN}")
        found = []
        for ask in (
            lambda c=client: c.head(f"/files/{OPEN}"),
            lambda c=client: c.get(f"/files/{OPEN}"),
            lambda c=client: post(c, "/locate", {"uris": [OPEN, CLOSED]}),
        ):
            with CaptureQueriesContext(connection) as queries:
                assert ask().status_code in {200, 303}
            found.append(len(queries))
        counts.append(found)
    assert counts[0] == counts[1]
    assert max(counts[0]) <= 1
