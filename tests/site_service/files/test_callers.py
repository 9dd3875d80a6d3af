"""Who may do what: anonymous, API tokens, browser sessions and signed URLs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from pytest_django import Settings

from datamodel.auth import create_api_token
from datamodel.env import Rate
from datamodel.keys import replace_trusted_keys
from datamodel.logs import LineFormatter
from datamodel.models import Artifact, DeletedArtifactEvent, RemoteInventory, StorageSite
from datamodel.permissions import Grant
from datamodel.preauth import Methods, SigningKey, TransferClaims
from datamodel.uris import ArtifactUri
from site_service.storage.contract import ArtifactStore
from tests.site_service.files.requests import DATA, PATH, put

URI = ArtifactUri.parse("cadc:TEST/file.txt")


@pytest.fixture
def anonymous(client: Client) -> Client:
    put(client)
    return Client()


@pytest.fixture
def key(site: StorageSite) -> SigningKey:
    key = SigningKey.generate("k1")
    remote = RemoteInventory.objects.create(name="global", role="global", url="http://global.example")
    replace_trusted_keys(remote=remote, keys={"k1": key.public_bytes}, now=datetime.now(UTC))
    return key


def claims(site: StorageSite, methods: Methods = Methods.WRITE) -> TransferClaims:
    return TransferClaims(methods, datetime.now(UTC) + timedelta(minutes=5), site.id, "astronomer")


def test_anonymous_is_asked_for_credentials_unless_reads_are_open(anonymous: Client, settings: Settings) -> None:
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        answer = anonymous.generic(method, PATH, headers={"content-length": "0"})
        assert answer.status_code == 401, method
        assert "Bearer" in answer["WWW-Authenticate"]
    settings.INVENTORY_ANONYMOUS_READ = True
    assert anonymous.head(PATH).status_code == 200
    assert put(anonymous).status_code == 401


def test_a_token_may_do_only_what_it_was_granted(anonymous: Client) -> None:
    secret = create_api_token(name="reader", grants=frozenset({Grant.READ}), now=datetime.now(UTC))
    reader = Client(headers={"authorization": f"Bearer {secret}"})
    assert reader.head(PATH).status_code == 200
    assert put(reader).status_code == reader.delete(PATH).status_code == 403
    wrong = Client(headers={"authorization": "Bearer wrong"})
    assert wrong.head(PATH).status_code == 401


def test_a_browser_session_reads_but_never_writes(anonymous: Client) -> None:
    anonymous.force_login(get_user_model().objects.create_superuser("admin", password="x"))
    assert anonymous.head(PATH).status_code == 200
    assert put(anonymous).status_code == anonymous.delete(PATH).status_code == 403


def test_signed_url_reads_and_writes_without_other_credentials(
    anonymous: Client, site: StorageSite, key: SigningKey
) -> None:
    write = f"/files/{key.sign(URI, claims(site))}/cadc:TEST/file.txt"
    assert anonymous.head(write).status_code == 200
    assert put(anonymous, b"new", path=write).status_code == 201
    assert anonymous.delete(write).status_code == 403
    read = f"/files/{key.sign(URI, claims(site, Methods.READ))}/cadc%3ATEST%2Ffile.txt"
    assert anonymous.head(read).status_code == 200
    assert put(anonymous, path=read).status_code == 403
    delete = f"/files/{key.sign(URI, claims(site, Methods.WRITE_AND_DELETE))}/cadc:TEST/file.txt"
    assert anonymous.delete(delete).status_code == 204


def test_signed_url_for_another_uri_site_or_time_is_refused_and_other_credentials_do_not_help(
    client: Client, site: StorageSite, key: SigningKey
) -> None:
    put(client)
    good = claims(site)
    tokens = [
        key.sign(ArtifactUri.parse("cadc:TEST/other.txt"), good),
        key.sign(URI, replace(good, site_id=uuid4())),
        key.sign(URI, replace(good, expires_at=datetime.now(UTC) - timedelta(seconds=1))),
        SigningKey.generate("k1").sign(URI, good),
        "rubbish",
    ]
    for token in tokens:
        assert client.head(f"/files/{token}/cadc:TEST/file.txt").status_code == 403


def test_tokens_never_reach_the_log(
    anonymous: Client, site: StorageSite, key: SigningKey, caplog: pytest.LogCaptureFixture
) -> None:
    token = key.sign(URI, claims(site))
    anonymous.head(f"/files/{token}/cadc:TEST/file.txt")
    anonymous.head(f"/files/{token}/cadc:TEST/other.txt")
    logged = "\n".join(LineFormatter().format(record) for record in caplog.records)
    assert "path=/files/***/cadc:TEST/file.txt" in logged
    assert token.rpartition(".")[2] not in logged


def test_put_by_a_url_that_names_the_known_artifact_is_later_and_tombstones_it(
    anonymous: Client, site: StorageSite, key: SigningKey, store: ArtifactStore
) -> None:
    elsewhere, then = uuid4(), datetime(2099, 1, 1, tzinfo=UTC)
    known = replace(claims(site), known_id=elsewhere, known_at=then)
    assert put(anonymous, b"newer", path=f"/files/{key.sign(URI, known)}/cadc:TEST/file.txt").status_code == 201
    assert Artifact.objects.get().content_last_modified > then
    assert DeletedArtifactEvent.objects.filter(id=elsewhere).exists()


def test_put_transaction_begun_with_a_signed_url_may_be_finished_after_its_expiry(
    anonymous: Client, site: StorageSite, key: SigningKey
) -> None:
    short = replace(claims(site), expires_at=datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2))
    path = f"/files/{key.sign(URI, short)}/cadc:TEST/file.txt"
    begun = put(anonymous, DATA[:10], path=path, headers={"x-put-txn-op": "start", "x-total-length": str(len(DATA))})
    assert begun.status_code == 202
    while datetime.now(UTC) <= short.expires_at:
        assert anonymous.head(path, headers={"x-put-txn-id": begun["x-put-txn-id"]}).status_code == 200
    assert anonymous.head(path).status_code == 403
    identity = {"x-put-txn-id": begun["x-put-txn-id"]}
    assert put(anonymous, DATA[10:], path=path, headers=identity).status_code == 202
    other = f"/files/{key.sign(URI, replace(short, user='other'))}/cadc:TEST/file.txt"
    assert put(anonymous, b"", path=other, headers=identity | {"x-put-txn-op": "commit"}).status_code == 403
    assert put(anonymous, b"", path=path, headers=identity | {"x-put-txn-op": "commit"}).status_code == 201


def test_a_signed_url_is_never_counted_and_a_forged_one_is(
    anonymous: Client, site: StorageSite, key: SigningKey, settings: Settings
) -> None:
    settings.INVENTORY_NAME = f"test-{uuid4()}"
    settings.INVENTORY_RATE_PER_CALLER = settings.INVENTORY_RATE_PER_ADDRESS = Rate(1, 60)
    settings.INVENTORY_RATE_FAILED = Rate(2, 60)
    path = "/files/{}/cadc:TEST/file.txt"
    good, forged = (path.format(each.sign(URI, claims(site))) for each in (key, SigningKey.generate("k1")))
    assert [anonymous.head(good).status_code for _ in range(4)] == [200] * 4
    assert [anonymous.head(forged).status_code for _ in range(3)] == [403, 403, 429]
    assert anonymous.head(good).status_code == 200
