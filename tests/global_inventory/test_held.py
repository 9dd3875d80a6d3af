"""Is it safe to delete mine? The answer is what the sites confirm now, signed."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.test import Client
from pytest_django import Settings

from datamodel.checksums import Checksum
from global_inventory.held import operations, rules
from global_inventory.held.rules import Asked, Copy, Demand, Known, Reason
from global_inventory.sites.models import SiteSwitch
from tests.fakes.site import FakeSite
from tests.global_inventory.conftest import VERIFIED_AT as NOW, Federation, Pair, confirm

URI = "cadc:TEST/file.fits"
DATA = b"content"
MD5 = "md5:" + hashlib.md5(DATA).hexdigest()
SHA256 = "sha-256:" + hashlib.sha256(DATA).hexdigest()


def ask(client: Client, *files: tuple[str, str], wait: float | None = None, **demand: object) -> dict[str, Any]:
    body = {"files": [{"uri": uri, "digest": digest} for uri, digest in files], **demand}
    path = "/held" if wait is None else f"/held?wait={wait}"
    answer = client.post(path, json.dumps(body), content_type="application/json")
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verified_claims(statement: str, keys: dict[str, Any]) -> dict[str, Any]:
    """As somebody does who knows nothing but RFC 7515 and the published keys."""
    header, payload, signature = statement.split(".")
    named = json.loads(unpacked(header))
    (key,) = [key for key in keys["keys"] if key["kid"] == named["kid"]]
    assert (named["alg"], key["alg"], key["crv"]) == ("EdDSA", "EdDSA", "Ed25519")
    Ed25519PublicKey.from_public_bytes(unpacked(key["x"])).verify(unpacked(signature), f"{header}.{payload}".encode())
    return dict(json.loads(unpacked(payload)))


def test_two_confirmed_copies_are_a_signed_yes(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, reader: Client
) -> None:
    row = federation.add_artifact(URI, *pair, data=DATA)
    confirm(alpha, row)
    confirm(beta, row, verified_at=NOW + timedelta(days=1))
    answer = ask(reader, (URI, MD5), (URI, SHA256), copies=2, since="2026-11-21T04:00:00Z")
    assert answer["held"]
    assert [file["held"] for file in answer["files"]] == [True, True]
    first = answer["files"][0]
    assert (first["id"], first["digest"], first["reason"]) == (str(row.id), MD5, None)
    assert sorted(site["site"] for site in first["sites"]) == ["alpha", "beta"]
    assert answer["unanswered"] == []
    assert alpha.bearers == ["Bearer token-of-alpha"]
    claims = verified_claims(answer.pop("statement"), reader.get("/pubkey").json())
    assert claims == answer
    assert claims["iss"] == "http://global.test"
    assert abs(claims["iat"] - time.time()) < 60


def test_a_statement_that_was_changed_is_not_verified(
    federation: Federation, pair: Pair, alpha: FakeSite, reader: Client
) -> None:
    row = federation.add_artifact(URI, pair[0], data=DATA)
    confirm(alpha, row)
    header, payload, signature = ask(reader, (URI, MD5))["statement"].split(".")
    forged = unpacked(payload).replace(b'"copies":1', b'"copies":9')
    changed = base64.urlsafe_b64encode(forged).decode().rstrip("=")
    with pytest.raises(InvalidSignature):
        verified_claims(f"{header}.{changed}.{signature}", reader.get("/pubkey").json())


def test_a_copy_that_was_verified_too_long_ago_does_not_count(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, reader: Client
) -> None:
    row = federation.add_artifact(URI, *pair, data=DATA)
    confirm(alpha, row)
    confirm(beta, row, verified_at=NOW - timedelta(milliseconds=1))
    answer = ask(reader, (URI, MD5), copies=2, since=NOW.isoformat())
    assert (answer["held"], answer["files"][0]["reason"]) == (False, "too_few_copies")
    assert [site["site"] for site in answer["files"][0]["sites"]] == ["alpha"]
    assert ask(reader, (URI, MD5), copies=1, since=NOW.isoformat())["held"]
    assert ask(reader, (URI, MD5), copies=2)["held"]


def test_what_a_site_no_longer_confirms_does_not_count_whatever_is_known_here(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, reader: Client
) -> None:
    row = federation.add_artifact(URI, *pair, data=DATA)
    confirm(alpha, row)
    confirm(beta, row, id=str(uuid.uuid4()))
    assert not ask(reader, (URI, MD5), copies=2)["held"]
    confirm(beta, row, contentChecksum="md5:" + "0" * 32)
    assert not ask(reader, (URI, MD5), copies=2)["held"]
    del beta.verified[URI]
    assert not ask(reader, (URI, MD5), copies=2)["held"]
    confirm(beta, row)
    assert ask(reader, (URI, MD5), copies=2)["held"]


def test_unknown_files_and_other_content_ask_nobody(
    federation: Federation, pair: Pair, alpha: FakeSite, reader: Client
) -> None:
    federation.add_artifact(URI, pair[0], data=b"newer")
    answer = ask(reader, (URI, MD5), ("cadc:TEST/unknown", MD5), (URI, "sha-1:" + "0" * 40))
    assert [file["reason"] for file in answer["files"]] == ["other_content", "unknown", "other_algorithm"]
    assert not answer["held"]
    assert alpha.questions == []


@pytest.mark.parametrize(
    "failure",
    [
        {"verified_status": 500},
        {"verified_status": 403},
        {"verified_body": b"?"},
        {"verified_body": b'{"copies":[{}]}'},
    ],
)
def test_a_site_that_fails_is_named_and_confirms_nothing(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, reader: Client, failure: dict[str, Any]
) -> None:
    row = federation.add_artifact(URI, *pair, data=DATA)
    confirm(alpha, row)
    confirm(beta, row)
    for name, value in failure.items():
        setattr(beta, name, value)
    answer = ask(reader, (URI, MD5), copies=2)
    assert (answer["held"], answer["unanswered"]) == (False, ["beta"])
    assert ask(reader, (URI, MD5), copies=1)["held"]


def test_a_site_that_hangs_does_not_hold_up_the_answer(
    federation: Federation, pair: Pair, alpha: FakeSite, reader: Client, settings: Settings
) -> None:
    settings.INVENTORY_REMOTE_TIMEOUT_SECONDS = 0.5
    federation.add_artifact(URI, pair[0], data=DATA)
    alpha.answers.clear()
    started = time.monotonic()
    assert ask(reader, (URI, MD5))["unanswered"] == ["alpha"]
    assert time.monotonic() - started < 5


def test_a_site_switched_offline_is_not_asked(
    federation: Federation, pair: Pair, alpha: FakeSite, reader: Client
) -> None:
    row = federation.add_artifact(URI, pair[0], data=DATA)
    confirm(alpha, row)
    SiteSwitch.objects.create(remote=pair[0], offline=True)
    answer = ask(reader, (URI, MD5))
    assert not answer["held"]
    assert alpha.questions == []
    assert answer["unanswered"] == [str(pair[0].site_id)]


def test_waiting_ends_when_all_are_held(
    federation: Federation, pair: Pair, alpha: FakeSite, reader: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_FIRST_PAUSE_SECONDS", 0.05)
    row = federation.add_artifact(URI, pair[0], data=DATA)

    def arrive() -> None:
        assert alpha.has_been_asked.wait(10)
        confirm(alpha, row)

    later = threading.Thread(target=arrive)
    later.start()
    started = time.monotonic()
    answer = ask(reader, (URI, MD5), wait=30)
    later.join()
    assert answer["held"]
    assert time.monotonic() - started < 20
    assert len(alpha.questions) >= 2


def test_waiting_is_bounded(
    federation: Federation, pair: Pair, reader: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.INVENTORY_HELD_WAIT_SECONDS = 0.3
    monkeypatch.setattr(operations, "_FIRST_PAUSE_SECONDS", 0.05)
    federation.add_artifact(URI, pair[0], data=DATA)
    started = time.monotonic()
    assert not ask(reader, (URI, MD5), wait=3600)["held"]
    assert 0.3 <= time.monotonic() - started < 5


def test_who_finds_no_place_to_wait_is_answered_at_once(
    federation: Federation, pair: Pair, alpha: FakeSite, reader: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_waiting", threading.BoundedSemaphore(1))
    assert operations._waiting.acquire(blocking=False)
    federation.add_artifact(URI, pair[0], data=DATA)
    assert not ask(reader, (URI, MD5), wait=30)["held"]
    assert len(alpha.questions) == 1


def test_ten_thousand_in_one_call(
    federation: Federation, pair: Pair, alpha: FakeSite, beta: FakeSite, reader: Client
) -> None:
    row = federation.add_artifact(URI, *pair, data=DATA)
    confirm(alpha, row)
    confirm(beta, row)
    files = [(f"cadc:TEST/{number}", MD5) for number in range(9_999)]
    answer = ask(reader, (URI, MD5), *files, copies=2)
    assert len(answer["files"]) == 10_000
    assert [file["held"] for file in answer["files"]].count(True) == 1
    assert alpha.questions == [[URI]]


def question(*, uri: str = "cadc:a", digest: str = MD5, times: int = 1, **demand: object) -> str:
    return json.dumps({"files": [{"uri": uri, "digest": digest}] * times, **demand})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_request"),
        ("[]", "invalid_request"),
        ('{"files": []}', "invalid_request"),
        ('{"files": [{"uri": "cadc:a"}]}', "invalid_request"),
        (question(uri="nonsense"), "invalid_uri"),
        (question(digest="md5:1"), "invalid_checksum"),
        (question(copies=0), "invalid_request"),
        (question(copies=True), "invalid_request"),
        (question(since="yesterday"), "invalid_request"),
        (question(times=10_001), "invalid_request"),
    ],
)
def test_questions_that_make_no_sense_are_refused(reader: Client, body: str, code: str) -> None:
    answer = reader.post("/held", body, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, code)


@pytest.mark.parametrize("wait", ["soon", "-1", "nan", "inf"])
def test_a_wait_that_makes_no_sense_is_refused(reader: Client, wait: str) -> None:
    assert reader.post(f"/held?wait={wait}", question(), content_type="application/json").status_code == 400


@pytest.mark.usefixtures("federation")
def test_it_needs_the_grant_read() -> None:
    assert Client().post("/held", "{}", content_type="application/json").status_code == 401


KNOWN = Known(uuid.UUID(int=1), MD5, None, 7, ())


@pytest.mark.parametrize(
    ("digest", "known", "reason"),
    [
        (MD5, None, Reason.UNKNOWN),
        (MD5, KNOWN, None),
        ("md5:" + "0" * 32, KNOWN, Reason.OTHER_CONTENT),
        (SHA256, KNOWN, Reason.OTHER_ALGORITHM),
    ],
)
def test_content_is_compared_before_anybody_is_asked(digest: str, known: Known | None, reason: Reason | None) -> None:
    assert rules.mismatch(Asked(URI, Checksum.parse(digest)), known) is reason


def test_copies_are_counted_by_site() -> None:
    asked, site = Asked(URI, Checksum.parse(MD5)), uuid.UUID(int=5)
    copy = Copy(site, KNOWN.artifact_id, MD5, 7, NOW)
    assert rules.judge(asked, KNOWN, [copy], Demand(1, NOW)).reason is None
    assert rules.judge(asked, KNOWN, [copy], Demand(2, NOW)).reason is Reason.TOO_FEW_COPIES
    other = Copy(site, KNOWN.artifact_id, MD5, 8, NOW)
    assert rules.judge(asked, KNOWN, [other], Demand(1, None)).copies == ()
    assert not rules.are_held([])
