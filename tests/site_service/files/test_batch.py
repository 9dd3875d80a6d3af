"""Many files in one answer: each part is what a GET of its signed URL would be answered, and no rule of reading is weaker."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from datamodel.audit.models import AuditEntry, AuditReadRule
from datamodel.audit.pending import pending
from datamodel.auth import create_api_token
from datamodel.env import Rate
from datamodel.keys import replace_trusted_keys
from datamodel.logs import LineFormatter
from datamodel.models import Artifact, DeletedStorageLocationEvent, RemoteInventory, StorageLocation, StorageSite
from datamodel.permissions import Grant
from datamodel.preauth import Methods, SigningKey, TransferClaims
from datamodel.uris import ArtifactUri
from site_service.files import batch
from site_service.scrub.models import DamagedCopy
from site_service.storage import registry
from tests.factories import settle_rights
from tests.site_service.conftest import TOKEN
from tests.site_service.files.requests import body_of, put
from tests.site_service.server import SiteProcess

# What is said once, of the whole answer.
OF_THE_ANSWER = {"X-Request-ID", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy"}
AUTH = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Part:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        assert self.headers["Content-Type"] == "application/problem+json"
        found: str = json.loads(self.body)["code"]
        return found


def parts_of(content_type: str, body: bytes) -> list[Part]:
    """Strictly: every byte has its place."""
    boundary = content_type.removeprefix("multipart/mixed; boundary=").encode()
    found = []
    while not body.startswith(b"\r\n--" + boundary + b"--"):
        head, _, body = body.partition(b"\r\n\r\n")
        expected = b"\r\n--%b\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary"
        assert head == expected % boundary
        head, _, body = body.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers["Content-Length"])
        found.append(Part(int(first.split()[1]), headers, body[:length]))
        body = body[length:]
    assert body == b"\r\n--" + boundary + b"--\r\n"
    return found


@pytest.fixture
def key(site: StorageSite) -> SigningKey:
    # A name of its own: a running server may remember a key of another test.
    key = SigningKey.generate(uuid.uuid4().hex[:8])
    remote = RemoteInventory.objects.create(name="global", role="global", url="http://global.example")
    replace_trusted_keys(remote=remote, keys={key.key_id: key.public_bytes}, now=datetime.now(UTC))
    return key


@dataclass
class Reader:
    """Somebody with nothing but signed URLs."""

    key: SigningKey
    site: StorageSite

    @property
    def claims(self) -> TransferClaims:
        return TransferClaims(Methods.READ, datetime.now(UTC) + timedelta(minutes=5), self.site.id, "beta")

    def url(self, uri: str, claims: TransferClaims | None = None, *, key: SigningKey | None = None) -> str:
        token = (key or self.key).sign(ArtifactUri.parse(uri), claims or self.claims)
        return f"files/{token}/{quote(uri, safe=chr(47) + ':')}"

    def post(self, *urls: object) -> Any:
        return Client().post("/batch", json.dumps({"urls": urls}), "application/json")

    def read(self, *urls: str) -> list[Part]:
        answer = self.post(*urls)
        assert answer.status_code == 200
        return parts_of(answer["Content-Type"], body_of(answer))


@pytest.fixture
def reader(key: SigningKey, site: StorageSite) -> Reader:
    return Reader(key, site)


def test_each_part_is_what_a_get_is_answered_in_the_order_that_was_asked_for(client: Client, reader: Reader) -> None:
    contents = {"cadc:a": b"one", "cadc:dir//b+~": b"", "cadc:é": b"\r\n--x--\r\n" * 30_000, "cadc:d": b"4"}
    for uri, content in contents.items():
        put(client, content, path=f"/files/{quote(uri)}", content_type="text/html; charset=utf-8")
    urls = [reader.url(uri) for uri in contents]
    parts = reader.read(*urls, urls[0])
    assert [part.body for part in parts] == [*contents.values(), b"one"]
    for url, part in zip(urls, parts, strict=False):
        alone = Client().get(f"/{url}")
        assert body_of(alone) == part.body
        assert part.headers == {name: value for name, value in alone.items() if name not in OF_THE_ANSWER}
        assert part.headers["x-artifact-id"]
        assert part.headers["Repr-Digest"]


def test_what_cannot_be_served_is_a_problem_among_the_others(client: Client, reader: Reader) -> None:
    put(client, b"one", path="/files/cadc:a")
    put(client, b"two", path="/files/cadc:b")
    client.delete("/files/cadc:b")
    found = reader.read(*map(reader.url, ("cadc:none", "cadc:a", "cadc:b")))
    assert [part.status for part in found] == [404, 200, 404]
    assert [part.code for part in found if part.status != 200] == ["artifact_not_found"] * 2
    (alone,) = reader.read(reader.url("cadc:none"))
    got = Client().get(f"/{reader.url('cadc:none')}")
    assert json.loads(alone.body) == got.json()


Claims = Callable[[TransferClaims], TransferClaims]
REFUSED: list[tuple[str, Claims]] = [
    ("expired", lambda good: replace(good, expires_at=datetime.now(UTC) - timedelta(seconds=1))),
    ("for PUT", lambda good: replace(good, methods=Methods.ONLY_WRITE)),
    ("for DELETE", lambda good: replace(good, methods=Methods.ONLY_DELETE)),
    ("for another site", lambda good: replace(good, site_id=uuid.uuid4())),
]


@pytest.mark.parametrize("changed", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_permission_for_something_else_opens_nothing(client: Client, reader: Reader, changed: Claims) -> None:
    put(client, b"one", path="/files/cadc:a")
    bad, good = reader.url("cadc:a", changed(reader.claims)), reader.url("cadc:a")
    found = reader.read(good, bad, good)
    assert [part.status for part in found] == [200, 403, 200]
    assert found[1].code == "not_permitted"
    assert json.loads(found[1].body) == Client().get(f"/{bad}").json()


def test_the_token_of_another_uri_opens_nothing_whatever_stands_beside_it(client: Client, reader: Reader) -> None:
    for uri in ("cadc:a", "cadc:b"):
        put(client, b"secret", path=f"/files/{uri}")
    borrowed = reader.url("cadc:a").replace("cadc:a", "cadc:b")
    forged = reader.url("cadc:b", key=SigningKey.generate(reader.key.key_id))
    unknown = reader.url("cadc:b", key=SigningKey.generate("k2"))
    found = reader.read(reader.url("cadc:a"), borrowed, forged, unknown, "files/rubbish/cadc:b")
    assert [part.status for part in found] == [200, 403, 403, 403, 403]


def test_other_credentials_of_the_request_open_nothing(client: Client, reader: Reader) -> None:
    put(client, b"secret", path="/files/cadc:a")
    bad = reader.url("cadc:a", replace(reader.claims, expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    answer = client.post("/batch", json.dumps({"urls": [bad]}), "application/json")
    assert [part.status for part in parts_of(answer["Content-Type"], body_of(answer))] == [403]


BODIES: list[tuple[str, object]] = [
    ("no JSON", "{"),
    ("half a character", b'"\xff"'),
    ("deep", "[" * 100_000),
    ("a list", ["files/t/cadc:a"]),
    ("no urls", {}),
    ("none", {"urls": []}),
    ("too many", {"urls": ["files/t/cadc:a"] * 257}),
    ("a number", {"urls": [1]}),
    ("an absolute URL", {"urls": ["http://127.0.0.1/files/t/cadc:a"]}),
    ("without token", {"urls": ["files/cadc:a/b"]}),
    ("another door", {"urls": ["artifacts"]}),
    ("with a query", {"urls": ["files/t/cadc:a?POS=1"]}),
    ("half a surrogate", {"urls": ["files/t/cadc:\ud800"]}),
]


@pytest.mark.parametrize("body", [case[1] for case in BODIES], ids=[case[0] for case in BODIES])
def test_a_malformed_request_is_refused_as_a_whole(client: Client, body: object) -> None:
    raw = body if isinstance(body, (str, bytes)) else json.dumps(body)
    answer = client.post("/batch", raw, "application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert Client().post("/batch", raw, "application/json").status_code == 401


def test_a_url_that_names_no_file_is_a_problem_of_its_own(client: Client, reader: Reader) -> None:
    found = reader.read("files/t/cadc:a%20b", "files/t/cadc:dir/", "files/t/%ff", "files/t/cadc:%00")
    assert [(part.status, part.code) for part in found] == [(400, "invalid_uri")] * 4


def test_only_post_is_known(client: Client) -> None:
    answer = client.get("/batch")
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_a_body_beyond_the_limit_is_413_whoever_sends_it(site: StorageSite) -> None:
    body = b" " * (batch.MAX_BODY_BYTES + 1)
    assert Client().post("/batch", body, "application/json").status_code == 413


def test_what_would_make_the_answer_too_large_is_to_be_asked_for_alone(
    client: Client, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_BYTES", 10)
    for name, size in (("a", 4), ("b", 7), ("c", 6), ("d", 1), ("e", 11)):
        put(client, b"x" * size, path=f"/files/cadc:{name}")
    found = reader.read(*(reader.url(f"cadc:{name}") for name in "abcde"))
    assert [part.status for part in found] == [200, 413, 200, 413, 413]
    assert found[1].code == "content_too_large"
    assert "ask for it alone" in json.loads(found[1].body)["detail"]


def test_one_statement_serves_all(client: Client, reader: Reader) -> None:
    uris = [f"cadc:{number}" for number in range(20)]
    for uri in uris:
        put(client, uri.encode(), path=f"/files/{uri}")
    settle_rights()
    urls = [reader.url(uri) for uri in uris]
    reader.read(*urls)
    counts = []
    for _ in range(3):
        with CaptureQueriesContext(connection) as queries:
            parts = reader.read(*urls)
        assert [part.body.decode() for part in parts] == uris
        counts.append(len(queries))
    # Some statement that is due once in a while may come to any of them.
    assert min(counts) == 1


def test_a_site_that_serves_no_reads_serves_none_here(client: Client, reader: Reader, site: StorageSite) -> None:
    put(client, b"one", path="/files/cadc:a")
    StorageSite.objects.filter(id=site.id).update(allow_read=False)
    assert [part.code for part in reader.read(reader.url("cadc:a"))] == ["not_permitted"]


@pytest.mark.parametrize("ruin", ["unlink", "truncate"])
def test_bytes_that_are_not_there_are_a_problem_and_the_copy_leaves_service(
    client: Client, reader: Reader, tmp_path: Path, ruin: str
) -> None:
    for name in "abc":
        put(client, b"content", path=f"/files/cadc:{name}")
    place = StorageLocation.objects.get(artifact_id=Artifact.objects.get(uri="cadc:b").id)
    file = tmp_path / "storage" / "objects" / place.storage_bucket / place.storage_id
    file.unlink() if ruin == "unlink" else file.write_bytes(b"c")
    urls = [reader.url(f"cadc:{name}") for name in "abc"]
    found = reader.read(*urls)
    assert [part.status for part in found] == [200, 503, 200]
    assert found[1].code == "stored_object_missing"
    assert DamagedCopy.objects.get().found_by == "get"
    assert DeletedStorageLocationEvent.objects.count() == 1
    assert [part.status for part in reader.read(*urls)] == [200, 404, 200]


def test_bytes_need_not_be_files_of_this_machine(client: Client, reader: Reader, settings: Settings) -> None:
    memory = {"BACKEND": "site_service.storage.memory.MemoryStore", "OPTIONS": {}}
    settings.STORAGES = {**settings.STORAGES, "artifacts": memory}
    registry.get_store.cache_clear()
    contents = {"cadc:a": b"one", "cadc:b": b"", "cadc:c": b"x" * 200_000}
    for uri, content in contents.items():
        assert put(client, content, path=f"/files/{uri}").status_code == 201
    assert [part.body for part in reader.read(*map(reader.url, contents))] == list(contents.values())


def test_an_unmounted_disk_is_a_problem_of_each_and_takes_nothing_out(
    client: Client, reader: Reader, tmp_path: Path
) -> None:
    put(client, b"content", path="/files/cadc:a")
    (tmp_path / "storage").rename(tmp_path / "away")
    assert [part.code for part in reader.read(reader.url("cadc:a"))] == ["storage_unavailable"]
    assert StorageLocation.objects.count() == 1


def test_reads_and_refusals_are_audited_one_by_one(client: Client, reader: Reader) -> None:
    AuditReadRule.objects.create(namespace="cadc:", percent=100)
    settle_rights()
    put(client, b"one", path="/files/cadc:a")
    expired = reader.url("cadc:b", replace(reader.claims, expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    reader.read(reader.url("cadc:a"), reader.url("cadc:none"), expired)
    assert pending.write(everything=True) == 2
    read, refused = AuditEntry.objects.filter(action="read").order_by("outcome")
    assert (read.subject, read.who, read.method, read.address) == ("cadc:a", "beta", "signed-url", "127.0.0.1")
    assert (refused.subject, refused.who, refused.reason) == ("cadc:b", "anonymous", "not_permitted")


def counted(client: Client) -> dict[str, float]:
    found = re.findall(
        r'^inventory_requests_total\{(method="GET".*?)\} (\S+)$', client.get("/metrics").text, re.MULTILINE
    )
    return {labels: float(value) for labels, value in found}


def test_each_file_counts_as_the_get_that_it_replaces(client: Client, reader: Reader) -> None:
    put(client, b"one", path="/files/cadc:a")
    before = counted(client)
    reader.read(reader.url("cadc:a"), reader.url("cadc:a"), reader.url("cadc:none"))
    after = counted(client)
    grown = {labels: after[labels] - before.get(labels, 0) for labels in after if after[labels] != before.get(labels)}
    assert grown == {
        'method="GET",reason="none",status="2xx"': 2,
        'method="GET",reason="artifact_not_found",status="4xx"': 1,
    }


def test_forged_urls_are_charged_one_by_one_and_good_ones_never(
    client: Client, reader: Reader, settings: Settings
) -> None:
    settings.INVENTORY_NAME = f"test-{uuid.uuid4()}"
    settings.INVENTORY_RATE_PER_CALLER = settings.INVENTORY_RATE_PER_ADDRESS = Rate(1, 60)
    settings.INVENTORY_RATE_FAILED = Rate(2, 60)
    put(client, b"one", path="/files/cadc:a")
    good, forged = reader.url("cadc:a"), reader.url("cadc:a", key=SigningKey.generate(reader.key.key_id))
    assert [part.status for part in reader.read(forged, good, forged, forged, good)] == [403, 200, 403, 429, 200]


def test_one_line_says_what_was_sent_and_no_token_reaches_the_log(
    client: Client, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    put(client, b"one", path="/files/cadc:a")
    url = reader.url("cadc:a")
    reader.read(url, url, reader.url("cadc:none"))
    (line,) = [record for record in caplog.records if record.getMessage() == "END event=batch"]
    text = LineFormatter().format(line)
    assert "files=2 bytes=6 refused=artifact_not_found:1 callers=beta" in text
    assert "result=ok" in text
    assert url.split("/")[1] not in "\n".join(LineFormatter().format(record) for record in caplog.records)


def test_the_right_to_read_somewhere_is_what_a_request_without_permission_needs(site: StorageSite) -> None:
    secret = create_api_token(name="none", grants=frozenset({Grant.WRITE}), now=datetime.now(UTC))
    nobody = Client(headers={"authorization": f"Bearer {secret}"})
    assert nobody.post("/batch", "{}", "application/json").status_code == 403


def test_an_answer_that_fails_half_way_is_cut(reader: Reader, live: SiteProcess) -> None:
    # More than the kernel takes in for whoever does not read.
    data = b"x" * 7 * 1024 * 1024
    assert live.request("PUT", "/files/cadc:a", data, AUTH).status == 201
    # For any site: the server remembers its id from the first test of this process.
    body = json.dumps({"urls": [reader.url("cadc:a", replace(reader.claims, site_id=None))]}).encode()
    whole = live.request("POST", "/batch", body, {"Content-Type": "application/json"})
    assert [part.body for part in parts_of(whole.headers["Content-Type"], whole.body)] == [data]
    place = StorageLocation.objects.get()
    with live.connect() as reading:
        head = (
            f"POST /batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reading.sendall(head.encode() + body)
        received = bytearray(reading.recv(1000))
        (live.directory / "storage" / "objects" / place.storage_bucket / place.storage_id).write_bytes(b"")
        while block := reading.recv(65536):
            received += block
    assert received.startswith(b"HTTP/1.1 200")
    assert len(received) < len(data)
    assert not received.endswith(b"0\r\n\r\n")
    assert "result=cut" in live.log
