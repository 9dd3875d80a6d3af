"""Requests without a cookie pass fewer middlewares: nobody may see a difference, but for the time."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.db import transaction

from datamodel import operations
from datamodel.application import Application, _DirectRequest
from datamodel.prepared import prepared_rows
from datamodel.uris import ArtifactUri
from tests.factories import new_content
from tests.site_service.conftest import TOKEN
from tests.site_service.server import SiteProcess

FILE = "/files/cadc:TEST/direct.fits"
COOKIE = {"Cookie": "theme=dark"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OF_ONE_ANSWER = {"x-request-id", "date", "ratelimit"}


def answer(live: SiteProcess, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    found = live.request(method, path, headers=headers)
    named = {name.lower(): value for name, value in found.headers.items()}
    return found.status, {name: named[name] for name in named.keys() - OF_ONE_ANSWER}, found.body


@pytest.mark.parametrize("headers", [BEARER, {}, {"Authorization": "Bearer wrong"}, {"X-Forwarded-Proto": "https"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", FILE),
        ("GET", FILE),
        ("GET", "/files/cadc:TEST/none"),
        ("GET", "/artifacts"),
        ("GET", "/nowhere"),
        ("DELETE", "/livez"),
        ("GET", "/files"),
        ("PUT", "/files/not a uri"),
    ],
)
def test_the_answer_is_the_same_with_a_cookie_and_without(
    live: SiteProcess, method: str, path: str, headers: dict[str, str]
) -> None:
    assert live.request("PUT", FILE, b"content", BEARER).status == 201
    path = path.replace(" ", "%20")
    direct = answer(live, method, path, headers)
    whole = answer(live, method, path, headers | COOKIE)
    if method == "GET" and direct[0] >= 400:
        # A problem says which request it was.
        direct, whole = (*direct[:2], b""), (*whole[:2], b"")
    assert direct == whole


def test_what_nobody_known_is_told_is_kept_from_those_who_are(live: SiteProcess) -> None:
    for headers in ({}, COOKIE):
        assert live.request("GET", "/files/cadc:TEST/none", headers=headers).headers["Vary"] == "Authorization, Cookie"


def test_without_a_cookie_nothing_of_pages_is_loaded_and_with_one_all_of_it() -> None:
    application = Application()
    asked: list[str] = []

    def noting(name: str) -> Callable[..., list[bytes]]:
        def handler(*_: object) -> list[bytes]:
            asked.append(name)
            return []

        return handler

    for name in ("_whole", "_direct"):
        setattr(application, name, noting(name))
    for environ in (
        {"PATH_INFO": "/files/a:b"},
        {"PATH_INFO": "/files/a:b", "HTTP_COOKIE": "a=b"},
        {"PATH_INFO": "/admin/"},
        {"PATH_INFO": "/static/x.css"},
    ):
        application(environ, lambda *_: None)
    assert asked == ["_direct", "_whole", "_whole", "_whole"]


def test_who_has_no_cookie_yet_may_sign_in_and_sees_pages_as_they_are_meant(live: SiteProcess) -> None:
    login = live.request("GET", "/admin/login/")
    assert login.status == 200
    assert "inventory_csrf" in str(login.headers["Set-Cookie"])
    assert live.request("GET", "/static/admin/css/base.css").status == 200
    assert live.request("GET", "/").status == live.request("GET", "/docs").status == 200
    assert live.request("POST", "/admin/login/", b"username=a&password=b").status == 403


@pytest.mark.usefixtures("inventory")
def test_a_statement_by_itself_sees_what_its_own_transaction_wrote() -> None:
    uri = ArtifactUri.parse("cadc:TEST/seen.fits")
    asked = "SELECT count(*) FROM artifact WHERE uri = %s"
    with transaction.atomic():
        operations.record_stored(uri=uri, content=new_content(b"one"))
        assert prepared_rows(asked, [uri.value]) == [(1,)]
        transaction.set_rollback(True)
    assert prepared_rows(asked, [uri.value]) == [(0,)]


def test_headers_are_found_where_the_server_put_them_whatever_their_case() -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "wsgi.input": BytesIO(),
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "HTTP_IF_MATCH": "*",
    }
    direct, whole = _DirectRequest(environ).headers, WSGIRequest(environ).headers
    for name in ("Content-Type", "content-length", "IF-MATCH", "if_match"):
        assert direct[name] == whole[name]
        assert name in direct
    assert "Range" not in direct
    assert direct.get("Range", "none") == "none"
    with pytest.raises(KeyError):
        direct["Range"]
    assert dict(direct) == dict(whole)
