"""GET and HEAD: ranges, conditions, names, and what a browser may do with what it gets."""

from __future__ import annotations

import email
import email.policy
import errno
import hashlib
import os
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from datamodel.models import StorageSite
from site_service.storage.contract import ArtifactStore
from tests.factories import settle_rights
from tests.site_service.files.requests import DATA, PATH, body_of, md5_header, put, sha256_header

MIB = 1024 * 1024
ETAG = f'"md5:{hashlib.md5(DATA).hexdigest()}"'


@pytest.fixture(autouse=True)
def _file(client: Client) -> None:
    assert put(client).status_code == 201


@pytest.mark.parametrize(
    ("asked", "content_range", "expected"),
    [
        ("bytes=1-3", "bytes 1-3/27", DATA[1:4]),
        ("bytes=24-", "bytes 24-26/27", DATA[24:]),
        ("bytes=-2", "bytes 25-26/27", DATA[25:]),
        ("bytes=20-999", "bytes 20-26/27", DATA[20:]),
        ("bytes=0-3,4-9", "bytes 0-9/27", DATA[:10]),
    ],
)
def test_one_range(client: Client, asked: str, content_range: str, expected: bytes) -> None:
    got = client.get(PATH, headers={"range": asked})
    assert got.status_code == 206
    assert body_of(got) == expected
    assert got["Content-Range"] == content_range
    assert got["Content-Length"] == str(len(expected))
    assert (got["Digest"], got["Content-Type"], got["Accept-Ranges"]) == (md5_header(DATA), "text/plain", "bytes")


def test_several_ranges_come_as_multipart(client: Client) -> None:
    got = client.get(PATH, headers={"range": "bytes=20-22,0-1,-1"})
    body = body_of(got)
    assert got.status_code == 206
    assert got["Content-Length"] == str(len(body))
    head = f"Content-Type: {got['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    parts = [
        (part["Content-Range"], part["Content-Type"], part.get_payload(decode=True)) for part in message.iter_parts()
    ]
    assert parts == [
        ("bytes 20-22/27", "text/plain", DATA[20:23]),
        ("bytes 0-1/27", "text/plain", DATA[:2]),
        ("bytes 26-26/27", "text/plain", DATA[26:]),
    ]


def test_range_of_another_unit_is_the_whole(client: Client) -> None:
    got = client.get(PATH, headers={"range": "lines=1-2"})
    assert (got.status_code, body_of(got)) == (200, DATA)


def test_range_outside_is_416_with_the_length(client: Client) -> None:
    got = client.get(PATH, headers={"range": "bytes=27-"})
    assert got.status_code == 416
    assert got["Content-Range"] == "bytes */27"


def test_head_ignores_ranges(client: Client) -> None:
    got = client.head(PATH, headers={"range": "bytes=1-3"})
    assert (got.status_code, got["Content-Length"]) == (200, "27")


def test_if_range_with_the_same_content_sends_the_part_and_with_other_content_the_whole(client: Client) -> None:
    last_modified = client.head(PATH)["Last-Modified"]
    for condition, status in [
        (ETAG, 206),
        (f"W/{ETAG}", 200),
        ('"other"', 200),
        (last_modified, 206),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ("nonsense", 200),
    ]:
        got = client.get(PATH, headers={"range": "bytes=1-3", "if-range": condition})
        assert got.status_code == status, condition
        body_of(got)


def test_conditional_get(client: Client) -> None:
    last_modified = client.head(PATH)["Last-Modified"]
    not_modified = client.get(PATH, headers={"if-modified-since": last_modified})
    assert not_modified.status_code == 304
    assert not_modified["ETag"] == ETAG
    assert client.head(PATH, headers={"if-none-match": f'"x", {ETAG}'}).status_code == 304
    assert client.head(PATH, headers={"if-modified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}).status_code == 200
    assert client.head(PATH, headers={"if-modified-since": "yesterday"}).status_code == 200
    assert client.head(PATH, headers={"if-match": '"x"'}).status_code == 412


def test_wanted_digest_is_given(client: Client) -> None:
    assert client.head(PATH)["Repr-Digest"] == sha256_header(DATA)
    both = client.head(PATH, headers={"want-repr-digest": "md5=9, sha-256=1"})["Repr-Digest"]
    assert both.startswith("md5=:")
    assert both.endswith(sha256_header(DATA))


@pytest.mark.usefixtures("known_open")
def test_one_statement_serves_a_file(client: Client, django_assert_num_queries: DjangoAssertNumQueries) -> None:
    settle_rights()
    client.head(PATH)
    with django_assert_num_queries(1):
        client.head(PATH)


@pytest.mark.parametrize(
    ("asked", "is_in_memory", "is_dropped"),
    [
        ("no-store", False, True),
        ("max-age=0, No-Store", False, True),
        ("no-store", True, False),
        ("no-cache", False, False),
    ],
)
def test_who_reads_once_leaves_no_large_file_in_memory_that_was_not_there_before(
    client: Client, monkeypatch: pytest.MonkeyPatch, asked: str, is_in_memory: bool, is_dropped: bool
) -> None:
    data, dropped = b"x" * (48 * MIB), list[tuple[int, int]]()
    assert put(client, data).status_code == 201

    def look(descriptor: int, buffers: object, position: int, flags: int) -> int:
        assert (position, flags) == (24 * MIB, os.RWF_NOWAIT)
        if not is_in_memory:
            raise BlockingIOError(errno.EAGAIN, "it would have to be read")
        return 1

    def advise(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_DONTNEED
        dropped.append((start, start + length))

    monkeypatch.setattr(os, "preadv", look)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    got = client.get(PATH, headers={"cache-control": asked})
    assert body_of(got) == data
    ends = [8 * MIB * number for number in range(1, 7)]
    assert dropped == ([(max(end - 40 * MIB, 0), end) for end in ends] if is_dropped else [])


@pytest.mark.parametrize("name", ["SUB", "circle", "Polygon", "POS", "band", "TIME", "Pol", "META"])
def test_soda_parameters_are_refused_never_ignored(client: Client, name: str) -> None:
    answer = client.get(f"{PATH}?{name}=x")
    assert answer.status_code == 400
    assert name in answer.json()["detail"]


def test_filename_override_changes_the_disposition_only(client: Client) -> None:
    plain, named = client.head(PATH), client.head(f"{PATH}:fo/alternate.txt")
    assert named["Content-Disposition"] == 'inline; filename="alternate.txt"'
    different = {name for name in plain.headers if plain[name] != named[name]}
    assert different <= {"Content-Disposition", "X-Request-ID"}
    assert client.delete(f"{PATH}:fo/alternate.txt").status_code == 400
    assert put(client, path=f"{PATH}:fo/alternate.txt").status_code == 400


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("%C3%A9.txt", "inline; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
        ('a"b.txt', "inline; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("a%0D%0ASet-Cookie: x", 'inline; filename="a__Set-Cookie: x"'),
        ("100%25.txt", "inline; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
    ],
)
def test_disposition_is_safe_for_any_name(client: Client, name: str, expected: str) -> None:
    got = client.head(f"{PATH}:fo/{name}")
    assert got.status_code == 200
    assert got["Content-Disposition"] == expected


@pytest.mark.parametrize(
    ("kind", "disposition"), [("text/html", "attachment"), ("image/svg+xml", "attachment"), ("image/png", "inline")]
)
def test_served_content_cannot_act_in_our_origin(client: Client, kind: str, disposition: str) -> None:
    put(client, b"<script>alert(1)</script>", content_type=kind)
    got = client.head(PATH)
    assert got["Content-Disposition"].startswith(disposition)
    assert got["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in got["Content-Security-Policy"]


def test_percent_encoded_and_raw_paths_are_one_file(client: Client) -> None:
    assert client.head("/files/cadc%3ATEST%2Ffile.txt").status_code == 200
    assert client.head("/files/cadc:TEST/file%2Etxt").status_code == 200


def test_missing_bytes_are_a_503_and_a_line_with_the_reason(
    client: Client, store: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    (stored,) = store.iterate()
    store.remove(stored.storage_id)
    answer = client.get(PATH)
    assert answer.status_code == 503
    assert answer.json()["code"] == "stored_object_missing"
    (line,) = [record for record in caplog.records if "open_artifact" in record.getMessage()]
    assert line.levelname == "WARNING"


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-1"}, {"range": "bytes=0-1,4-5"}])
def test_bytes_of_another_length_are_a_503_once(client: Client, tmp_path: Path, headers: dict[str, str]) -> None:
    (content,) = [path for path in (tmp_path / "storage" / "objects").rglob("*") if path.is_file() and not path.suffix]
    content.chmod(0o600)
    content.write_bytes(b"short")
    assert client.get(PATH, headers=headers).status_code == 503
    # From then on the copy is out of service.
    assert client.get(PATH, headers=headers).status_code == 404


def test_operators_switches_stop_reads_and_writes(client: Client, settings: Settings) -> None:
    StorageSite.objects.update(allow_write=False)
    assert put(client).status_code == 403
    assert client.delete(PATH).status_code == client.post(f"{PATH}?contentType=a/b").status_code == 403
    assert client.head(PATH).status_code == 200
    StorageSite.objects.update(allow_read=False, allow_write=True)
    assert client.get(PATH).status_code == 403
    settings.INVENTORY_ALLOW_WRITE = False
    assert put(client).status_code == 403


def test_unknown_methods_are_405_with_what_is_allowed(client: Client) -> None:
    answer = client.patch(PATH)
    assert answer.status_code == 405
    assert "PUT" in answer["Allow"]
    assert client.options(PATH)["Allow"] == "GET, HEAD, PUT, POST, DELETE, OPTIONS"
    assert client.put("/files/cadc:TEST/").status_code == 405
