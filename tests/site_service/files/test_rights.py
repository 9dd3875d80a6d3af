"""What a site shows to whom: every door keeps to the caller's prefixes, and what is not readable looks like what is not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from datamodel import access, auth
from datamodel.grants import ALL_GRANTS, Grant, Role
from datamodel.models import ApiToken, StorageSite
from datamodel.tokens import TokenLimits
from site_service.storage.contract import ArtifactStore
from tests.factories import settle_rights
from tests.fakes.issuer import AUDIENCE, serve_issuer

OPEN, CLOSED, SECRET = "cadc:OPEN/a/x", "cadc:CLOSED/a/x", "secret:x"
URIS = (OPEN, CLOSED, SECRET)


def caller(name: str, *grants: Grant, prefixes: tuple[str, ...] = (), methods: tuple[str, ...] = ()) -> Client:
    limits = TokenLimits.parse(prefixes, methods)
    token = auth.create_api_token(name=name, grants=frozenset(grants), now=datetime.now(UTC), limits=limits)
    return Client(headers={"authorization": f"Bearer {token}"})


@pytest.fixture
def stored(store: ArtifactStore, site: StorageSite) -> Client:
    """Three files, and the operator who put them."""
    operator = caller("operator", *ALL_GRANTS)
    for uri in URIS:
        assert put(operator, uri).status_code == 201
    return operator


@pytest.fixture
def anonymous(stored: Client) -> Client:
    """May read below cadc:OPEN/."""
    access.save_grant(prefix="cadc:OPEN/", anonymous_read=True)
    return Client()


@pytest.fixture
def limited(stored: Client) -> Client:
    return caller("limited", *ALL_GRANTS, prefixes=("cadc:OPEN/",))


def put(client: Client, uri: str, data: bytes = b"data") -> HttpResponse:
    return client.put(f"/files/{uri}", data, content_type="text/plain")  # type: ignore[return-value]  # a test response


def text(response: HttpResponse) -> str:
    chunks: Iterator[bytes] = response.streaming_content if response.streaming else iter([response.content])  # type: ignore[attr-defined]
    return b"".join(chunks).decode()


def test_what_anonymous_callers_may_not_read_looks_like_what_is_not_there(anonymous: Client) -> None:
    assert anonymous.head(f"/files/{OPEN}").status_code == 200
    missing = anonymous.get("/files/cadc:OPEN/none")
    for uri in (CLOSED, "cadc:CLOSED/none", SECRET, "other:none"):
        answer = anonymous.get(f"/files/{uri}")
        assert answer.status_code == missing.status_code == 404
        assert answer.content.replace(uri.encode(), b"U") == missing.content.replace(b"cadc:OPEN/none", b"U")
        assert answer.headers.keys() == missing.headers.keys()
        assert "Bearer" in answer["WWW-Authenticate"]
        explained = anonymous.get("/explain", {"uri": uri})
        assert explained.status_code == 404


def test_anonymous_callers_who_may_read_nothing_are_asked_for_credentials_everywhere(stored: Client) -> None:
    for uri in (*URIS, "cadc:OPEN/none"):
        assert Client().get(f"/files/{uri}").status_code == 401


def test_known_callers_are_refused_the_same_whether_the_file_is_there_or_not(limited: Client) -> None:
    for uri in (CLOSED, "cadc:CLOSED/none"):
        for method in ("GET", "HEAD", "DELETE"):
            assert limited.generic(method, f"/files/{uri}").status_code == 403
        assert put(limited, uri).status_code == 403
        assert limited.get("/explain", {"uri": uri}).status_code == 403
    assert limited.get("/files/cadc:OPEN/none").status_code == 404


def test_a_limited_token_does_everything_below_its_prefix(limited: Client) -> None:
    assert text(limited.get(f"/files/{OPEN}")) == "data"  # type: ignore[arg-type]
    assert put(limited, "cadc:OPEN/new").status_code == 201
    begun = limited.put("/files/cadc:OPEN/t", b"", headers={"x-put-txn-op": "start", "content-length": "0"})
    assert begun.status_code == 202
    assert limited.delete("/files/cadc:OPEN/new").status_code == 204


@pytest.mark.parametrize(
    "address",
    [
        "/artifacts",
        "/artifacts?format=ndjson",
        "/artifacts?namespace=cadc:",
        "/artifacts?limit=1&after=cadc:CLOSED/",
        "/files/",
        "/files/cadc:",
        "/files/cadc:?format=json",
        "/files/?format=text",
        "/files/cadc:OPEN/",
    ],
)
def test_listings_name_nothing_that_may_not_be_read(anonymous: Client, limited: Client, address: str) -> None:
    for client in (anonymous, limited):
        body = text(client.get(address))  # type: ignore[arg-type]  # a test response
        assert "OPEN" in body or "/a/" in body
        assert "CLOSED" not in body.replace("after=cadc%3ACLOSED", "")
        assert "secret" not in body


def test_a_namespace_of_which_nothing_may_be_read_lists_like_an_empty_one(anonymous: Client) -> None:
    closed, empty = (text(anonymous.get(f"/files/{name}/?format=json")) for name in ("cadc:CLOSED", "cadc:EMPTY"))  # type: ignore[arg-type]
    assert closed == empty.replace("EMPTY", "CLOSED")


def test_pages_go_over_gaps_and_end(stored: Client) -> None:
    for number in range(5):
        put(stored, f"gap:{number}/x")
    reader = caller("r", Grant.READ, prefixes=tuple(f"gap:{n}/" for n in (0, 2, 4)))
    seen, query = [], "?limit=2"
    while query:
        page = reader.get(f"/artifacts{query}").json()
        seen += [item["uri"] for item in page["items"]]
        query = page["next"]
    assert seen == ["gap:0/x", "gap:2/x", "gap:4/x"]


def test_copies_are_confirmed_only_of_what_may_be_read(anonymous: Client, stored: Client) -> None:
    body = json.dumps({"uris": [*URIS, "cadc:none"]})
    found = [
        sorted(copy["uri"] for copy in client.post("/verified", body, content_type="application/json").json()["copies"])
        for client in (anonymous, stored)
    ]
    assert found == [[OPEN], sorted(URIS)]


def test_undelete_asks_for_the_right_of_what_lives_again(limited: Client) -> None:
    for asked in ({"uri": CLOSED}, {"namespace": "cadc:"}, {"namespace": "cadc:CLOSED/", "preview": True}):
        assert limited.post("/undelete", json.dumps(asked), content_type="application/json").status_code == 403
    allowed = json.dumps({"namespace": "cadc:OPEN/", "preview": True})
    assert limited.post("/undelete", allowed, content_type="application/json").status_code == 200


def test_what_is_about_the_whole_site_is_not_for_limited_callers(limited: Client) -> None:
    for address in ("/sync", "/scrub", "/metrics", "/validation/findings", "/policy"):
        assert limited.get(address).status_code == 403, address
    assert "OPEN" in text(limited.get("/harvest/artifacts"))  # type: ignore[arg-type]
    assert limited.get("/harvest/rows").status_code == 403


def test_the_methods_of_a_token_hold_at_every_door(stored: Client) -> None:
    getter = caller("getter", *ALL_GRANTS, methods=("GET",))
    assert text(getter.get(f"/files/{OPEN}")) == "data"  # type: ignore[arg-type]
    assert getter.head(f"/files/{OPEN}").status_code == 200
    assert put(getter, OPEN).status_code == getter.delete(f"/files/{OPEN}").status_code == 403
    assert getter.post("/verified", "{}", content_type="application/json").status_code == 403
    assert getter.get("/policy").status_code == 200


def test_groups_write_where_they_are_granted_and_a_longer_prefix_may_close_it_again(stored: Client) -> None:
    client = caller("p")
    assert put(client, "cadc:G/x").status_code == 403
    access.save_grant(prefix="cadc:", allowed={Grant.WRITE: ["token:p"]})
    access.save_grant(prefix="cadc:G/closed/", replaces=True)
    assert put(client, "cadc:G/x").status_code == 201
    assert client.head("/files/cadc:G/x").status_code == 200
    assert put(client, "cadc:G/closed/x").status_code == 403
    access.assign_role(principal="token:p", role=Role.FILE_SYNC_OPERATOR)
    assert put(client, "cadc:G/closed/x").status_code == 403
    assert client.head("/files/secret:x").status_code == 200


@pytest.mark.usefixtures("known_open")
def test_deciding_adds_no_statement_to_head_get_and_put(stored: Client) -> None:
    def statements(client: Client) -> list[int]:
        counts = []
        for method in ("HEAD", "GET", "PUT"):
            with CaptureQueriesContext(connection) as queries:
                answer = put(client, OPEN) if method == "PUT" else client.generic(method, f"/files/{OPEN}")
                assert answer.status_code in {200, 201}
                answer.close()
            counts.append(len([query for query in queries if "SET " not in query["sql"]]))
        return counts

    by_rule = caller("p")
    for prefix in ("", "cadc:", "cadc:OPEN/", "cadc:OPEN/a/"):
        access.save_grant(prefix=prefix, allowed={Grant.WRITE: ["token:p"]}, replaces=True)
    ApiToken.objects.update(last_used_at=datetime.now(UTC))
    settle_rights()
    for client in (by_rule, stored):
        client.head(f"/files/{OPEN}")
    # Some statement that is due once in a while may come to any of them.
    decided, allowed = (
        [min(counts) for counts in zip(*(statements(client) for _ in range(3)), strict=True)]
        for client in (by_rule, stored)
    )
    assert decided[:2] == [1, 1]
    assert decided == allowed


def test_whoever_may_only_create_replaces_nothing(stored: Client, settings: Settings) -> None:
    access.save_grant(prefix="cadc:", allowed={Grant.WRITE: ["issuer:iam"]})
    with serve_issuer() as issuer:
        settings.INVENTORY_OIDC_PRIVATE = True
        settings.INVENTORY_OIDC_ISSUERS = json.dumps(
            [{"issuer": issuer.url, "name": "iam", "audience": AUDIENCE, "base": "cadc:"}]
        )
        bearer = Client(headers={"authorization": f"Bearer {issuer.token(scope='storage.create:/OPEN')}"})
        assert put(bearer, "cadc:OPEN/new").status_code == 201
        assert put(bearer, "cadc:OPEN/new", b"other").status_code == 412
        assert put(bearer, "cadc:CLOSED/new").status_code == 403
        for method in ("GET", "POST", "DELETE"):
            assert bearer.generic(method, "/files/cadc:OPEN/new").status_code == 403
        auth.clear_caches()
