"""Hostile requests: what they name, declare and send must neither break a header, a page or a log, nor make a 500."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from site_service.files.responses import CONTENT_SECURITY
from tests.site_service.conftest import TOKEN
from tests.site_service.files.requests import DATA, PATH, body_of, put
from tests.site_service.server import SiteProcess

HEAD = f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"


def headers_of(client: Client, path: str = PATH, **headers: str) -> Any:
    """The answer to a GET, closed."""
    with closing(client.get(path, headers=headers)) as got:
        return got


UNSENDABLE = [
    'text/html; a="x\r\nX-Evil: 1"',
    'text/html; a="x\x00y"',
    'text/html; a="\\\n"',
    'text/html; a="\u2028"',
    'text/html; a="b\x85c"',
    "text/html;\x0ba=b",
    "text/html\u00a0x",
]


@pytest.mark.parametrize("content_type", UNSENDABLE)
def test_a_content_type_that_no_header_can_carry_is_refused_as_a_parameter_too(
    client: Client, content_type: str
) -> None:
    put(client)
    assert client.post(PATH, {"contentType": content_type}).status_code == 400
    assert client.post(f"{PATH}?contentType={quote(content_type)}").status_code == 400
    assert headers_of(client)["Content-Type"] == "text/plain"


@pytest.mark.parametrize("encoding", ["gzip\r\nX-Evil: 1", "\x00", "\u00e9", "a\x1bb"])
def test_a_content_encoding_that_no_header_can_carry_is_refused_as_a_parameter_too(
    client: Client, encoding: str
) -> None:
    put(client)
    assert client.post(PATH, {"contentEncoding": encoding}).status_code == 400


@pytest.mark.parametrize("content_type", ['text/plain; a="b c"', 'text/plain;a="\\"";  b=c', "application/x+y.z;"])
def test_every_content_type_of_the_grammar_is_kept_word_for_word(client: Client, content_type: str) -> None:
    put(client)
    assert client.post(PATH, {"contentType": content_type}).status_code == 202
    assert headers_of(client)["Content-Type"] == content_type


def test_metadata_from_elsewhere_that_no_header_can_carry_is_left_out(client: Client) -> None:
    put(client)
    evil = 'text/html; a="x\r\nX-Evil: 1\r\n\r\n<script>"'
    with connection.cursor() as cursor:
        cursor.execute("UPDATE artifact SET content_type = %s, content_encoding = %s", [evil, "a\nb"])
    for headers in ({}, {"range": "bytes=0-1"}, {"range": "bytes=0-1,4-5"}):
        got = client.get(PATH, headers=headers)
        assert got.status_code in {200, 206}
        assert b"Evil" not in body_of(got)
        assert "X-Evil" not in got
        assert "Content-Encoding" not in got
    assert "Content-Type" not in client.head(PATH)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"hello", "multipart/form-data"),
        (b"hello", f"multipart/form-data; boundary={'b' * 300}"),
        (b"hello", "multipart/form-data; boundary=\u00ff"),
        (b"--b\r\n" * 1000, "multipart/form-data; boundary=b"),
        (b"\r\n".join([b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx"] * 2000), "multipart/form-data; boundary=b"),
        (
            b"\r\n".join([b'--b\r\nContent-Disposition: form-data; name=a; filename="../x"\r\n\r\nx'] * 200),
            "multipart/form-data; boundary=b",
        ),
        (b"&".join([b"a=b"] * 2000), "application/x-www-form-urlencoded"),
    ],
    ids=["no boundary", "long boundary", "odd boundary", "empty parts", "fields", "files", "form"],
)  # fmt: skip
def test_a_form_that_is_none_is_the_callers_mistake(client: Client, body: bytes, content_type: str) -> None:
    put(client)
    answer = client.generic("POST", PATH, body, content_type)
    assert answer.status_code == 400, answer.content
    assert headers_of(client)["Content-Type"] == "text/plain"


def test_a_body_above_the_limit_is_413_wherever_it_is_sent(client: Client, settings: Settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1024
    put(client)
    form = client.post(PATH, b"contentType=" + b"a" * 2000, "application/x-www-form-urlencoded")
    document = client.post("/undelete", b'{"uri": "' + b"a" * 2000 + b'"}', "application/json")
    for answer in (form, document):
        assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")


def test_json_that_is_nested_too_deeply_is_the_callers_mistake(client: Client) -> None:
    for path in ("/undelete", "/snapshots", "/scrub"):
        assert client.post(path, b"[" * 200_000, "application/json").status_code == 400
        assert client.post(path, b'{"uri":' * 100_000, "application/json").status_code == 400


@pytest.mark.parametrize(
    "header", ["Digest: md5=\xff", "Content-MD5: \xff\xff", "Repr-Digest: md5=:\xff:", "Content-Digest: \xff"]
)
def test_a_digest_that_is_not_ascii_is_the_callers_mistake(client: Client, header: str) -> None:
    name, _, value = header.partition(": ")
    assert put(client, headers={name.lower(): value}).status_code == 400


@pytest.mark.parametrize(
    "value", ["Basic \xff", "Bearer \xff", "Basic w7_", "Basic", "Basic /////w==", "Negotiate \xff", "\xff"]
)
def test_odd_credentials_are_401(client: Client, value: str) -> None:
    put(client)
    answer = client.get(PATH, headers={"authorization": value})
    assert answer.status_code == 401
    assert value.partition(" ")[2] not in answer.json()["detail"] or not value.partition(" ")[2]


def raw_status(live: SiteProcess, request: bytes) -> int:
    with live.connect() as connected:
        connected.sendall(request)
        with connected.makefile("rb") as answer:
            return int(answer.readline().split()[1])


@pytest.mark.parametrize(
    ("headers", "body", "statuses"),
    [
        # What a proxy and this server could read differently is refused (request smuggling).
        ("Content-Length: 5\r\nContent-Length: 6", b"hello", {400}),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n", {400}),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"5\r\nhello\r\n0\r\n\r\n", {400}),
        ("Transfer-Encoding : chunked", b"5\r\nhello\r\n0\r\n\r\n", {400}),
        ("Transfer-Encoding: xchunked", b"5\r\nhello\r\n0\r\n\r\n", {400, 501}),
        ("Content-Length: +5", b"hello", {400}),
        ("Content-Length: 0x5", b"hello", {400}),
        ("Content-Length: 5\r\nX: a\r\n b", b"hello", {400}),
        ("Content-Length: 5\r\nContent-Type: a/b\nX-Evil: 1", b"hello", {400}),
        ("Content-Length: 5\r\nContent-Type: a/b\rX-Evil: 1", b"hello", {400}),
        # Undone by nobody, the coding would be stored with the bytes.
        ("Transfer-Encoding: gzip, chunked", b"5\r\nhello\r\n0\r\n\r\n", {400}),
        ("Transfer-Encoding: chunked", b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n", {400}),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n" + b"X-T: a\r\n" * 20_000 + b"\r\n", {400}),
        ("Content-Length: 5\r\nX: " + "a" * 9000, b"hello", {431}),
        ("Content-Length: 5\r\n" + "\r\n".join(f"X-{number}: a" for number in range(200)), b"hello", {431}),
    ],
)  # fmt: skip
def test_ambiguous_and_boundless_framing_is_refused(
    live: SiteProcess, headers: str, body: bytes, statuses: set[int]
) -> None:
    assert raw_status(live, f"{HEAD}{headers}\r\n\r\n".encode("latin-1") + body) in statuses
    assert live.request("HEAD", PATH, headers={"Authorization": f"Bearer {TOKEN}"}).status == 404


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "%2e%2e/%2e%2e/x", "..%2f..%2fx", "%252e%252e/x", "a/./b", "a//../b"]
)
def test_dots_are_part_of_a_name_and_lead_nowhere(live: SiteProcess, name: str) -> None:
    authorization = {"Authorization": f"Bearer {TOKEN}"}
    root = live.directory / "storage"
    outside = {path for path in live.directory.rglob("*") if not path.is_relative_to(root)}
    assert live.request("PUT", f"/files/cadc:TEST/{name}", b"hello", authorization).status == 201
    assert live.request("GET", f"/files/cadc:TEST/{name}", headers=authorization).body == b"hello"
    assert {path for path in live.directory.rglob("*") if not path.is_relative_to(root)} == outside
    assert not [path for path in root.rglob("*") if "passwd" in path.name or path.name in {"x", "b"}]


@pytest.mark.parametrize("name", ["%00", "a%0d%0aX-Evil:1", "%ff%fe", "%c0%ae%c0%ae/x", "a%5cb", "%22%3E%3Cscript%3E"])
def test_names_that_break_things_elsewhere_are_refused_with_the_reason(live: SiteProcess, name: str) -> None:
    answer = live.request("PUT", f"/files/cadc:TEST/{name}", b"hello", {"Authorization": f"Bearer {TOKEN}"})
    assert answer.status == 400
    assert json.loads(answer.body)["code"] == "invalid_uri"
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("name", ["a\r\nX-Evil: 1", '"><script>alert(1)</script>', "../../x", "\x00", "\u202egpj.exe"])
def test_a_name_for_saving_stays_within_its_header(client: Client, name: str) -> None:
    put(client)
    got = headers_of(client, f"{PATH}:fo/{quote(name, safe='')}")
    if "/" in name:
        # Not a name for saving, so it is part of the uri.
        assert got.status_code in {400, 404}
        return
    disposition = got["Content-Disposition"]
    assert disposition.isprintable()
    assert disposition.isascii()
    assert "X-Evil" not in got
    assert disposition.count('"') == 2


@pytest.mark.parametrize(
    "content_type", ["text/html", "image/svg+xml", "text/xml", "application/pdf", "application/xhtml+xml", "", "x/y"]
)
def test_what_could_act_in_a_browser_is_saved_and_sandboxed(client: Client, content_type: str) -> None:
    put(client, content_type=content_type)
    for got in (headers_of(client), client.head(PATH), headers_of(client, range="bytes=0-1,4-5")):
        assert got["Content-Disposition"].startswith("attachment;")
        assert got["Content-Security-Policy"] == CONTENT_SECURITY
        assert got["X-Content-Type-Options"] == "nosniff"


def test_what_cannot_act_is_shown_and_sandboxed_all_the_same(client: Client) -> None:
    for content_type in ("text/plain", "image/png", "application/fits", "application/json"):
        put(client, DATA, content_type=content_type)
        got = headers_of(client)
        assert got["Content-Disposition"].startswith("inline;")
        assert got["Content-Security-Policy"] == CONTENT_SECURITY
