"""Tokens between inventories: who is believed, for what, until when; and how we call a remote."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from joserfc import jwt
from joserfc.jwk import OctKey
from pytest_django import Settings

from datamodel import access, auth, key_statements, keys, permissions, remotes, sealing
from datamodel.errors import NotAuthenticatedError, NotPermittedError, StateConflictError
from datamodel.grants import PEER_GRANTS, Grant, Role
from datamodel.models import FeedReader, InventoryIdentity, RemoteInventory
from datamodel.pairing import operations
from datamodel.permissions import ALL_GRANTS, Caller, may
from datamodel.preauth import SigningKey
from datamodel.processes import wait_until
from datamodel.rows import database_now
from datamodel.service_tokens import KIND, SECONDS, Credential
from datamodel.statements import UnbelievableStatementError, signed_statement, verified
from harvest import readers
from harvest.expiry import Expired, expire_events
from tests.factories import settle_rights
from tests.peers import Paired, paired

NOW, HOUR = int(time.time()), timedelta(hours=1)


@pytest.fixture
def peer(inventory: InventoryIdentity) -> Paired:
    """A global that this site is paired with."""
    return paired("omega", role="global")


def authenticate(token: str) -> Caller:
    request: HttpRequest = RequestFactory().get("/", headers={"Authorization": f"Bearer {token}"})
    request.user = AnonymousUser()
    return auth.authenticate(request)


def test_a_paired_inventory_is_known_by_its_signature(peer: Paired) -> None:
    caller = authenticate(peer.token())
    assert (caller.name, caller.method, caller.inventory_id) == (
        "inventory:omega",
        "service",
        peer.remote.inventory_id,
    )
    assert {grant for grant in Grant if may(caller, grant)} == PEER_GRANTS == {Grant.HARVEST, Grant.READ}


def test_more_can_be_granted_to_it_by_its_name(peer: Paired) -> None:
    access.save_grant(prefix="cadc:", allowed={Grant.WRITE: ["inventory:omega"]})
    caller = authenticate(peer.token())
    assert permissions.reach(caller, Grant.WRITE).covers("cadc:")
    assert not may(caller, Grant.WRITE)


UNBELIEVABLE: list[tuple[str, dict[str, object], str]] = [
    ("expired", {"iat": NOW - 4000, "exp": NOW - 3700}, "expired"),
    ("without expiry", {"exp": None}, "no time in exp"),
    ("without a beginning", {"iat": None}, "no time in iat"),
    ("expiry is a text", {"exp": "2030"}, "no time in exp"),
    ("of the future", {"iat": NOW + 3600, "exp": NOW + 3700}, "not valid yet"),
    ("good for an hour", {"exp": NOW + 3600}, "longer than 300"),
    ("for another", {"aud": str(uuid.UUID(int=1))}, "aud"),
    ("for nobody", {"aud": None}, "aud"),
    ("for several", {"aud": [str(uuid.UUID(int=1))]}, "aud"),
    ("of a stranger", {"iss": str(uuid.UUID(int=2))}, "paired"),
    ("of no inventory", {"iss": "https://omega.test"}, "no inventory"),
    ("of nobody", {"iss": None}, "no inventory"),
    ("another statement of its", {"kind": "storage-inventory-held+jwt"}, "unknown"),
]


@pytest.mark.parametrize(("changes", "reason"), [row[1:] for row in UNBELIEVABLE], ids=[row[0] for row in UNBELIEVABLE])
def test_what_is_not_believed(peer: Paired, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(NotAuthenticatedError, match=reason):
        authenticate(peer.token(**changes))  # type: ignore[arg-type]  # one of them is the kind


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def forgeries(peer: Paired, other: Paired) -> dict[str, Callable[[], str]]:
    head, claims, signature = peer.token().split(".")
    known = {"typ": KIND, "kid": peer.key.key_id}
    raw = peer.key.public_bytes
    return {
        "none": lambda: f"{part({**known, 'alg': 'none'})}.{claims}.",
        "none with a signature": lambda: f"{part({**known, 'alg': 'none'})}.{claims}.{signature}",
        "the public key as a shared secret": lambda: jwt.encode(
            {**known, "alg": "HS256"}, json.loads(base64.urlsafe_b64decode(claims + "==")), OctKey.import_key(raw)
        ),
        "the older name of the algorithm": lambda: signed_statement(
            peer.key, json.loads(base64.urlsafe_b64decode(claims + "==")), kind=KIND
        ),
        "changed claims": lambda: f"{head}.{part({'iss': str(peer.remote.inventory_id)})}.{signature}",
        "no signature": lambda: f"{head}.{claims}.",
        "a key of his own under its name": lambda: peer.token(key=SigningKey.generate(peer.key.key_id)),
        "a key of his own": lambda: peer.token(key=SigningKey.generate("ffffffff")),
        "the key of another peer": lambda: peer.token(key=other.key),
        "in the name of another peer": lambda: peer.token(iss=str(other.remote.inventory_id)),
        "critical headers": lambda: f"{part({**known, 'alg': 'Ed25519', 'crit': ['x']})}.{claims}.{signature}",
    }


def test_forgeries_are_refused_and_never_anonymous(peer: Paired, settings: Settings) -> None:
    settings.INVENTORY_ANONYMOUS_READ = True
    found = forgeries(peer, paired("psi", role="global"))
    for name, forged in found.items():
        with pytest.raises(NotAuthenticatedError):
            pytest.fail(f"{name}: {authenticate(forged())}")
    assert len(found) > 10
    assert Client().get("/livez", headers={"Authorization": f"Bearer {found['none']()}"}).status_code == 200
    assert Client().get("/", headers={"Authorization": f"Bearer {found['none']()}"}).status_code == 401


def test_clocks_may_differ_a_little(peer: Paired, settings: Settings) -> None:
    late = peer.token(iat=NOW - SECONDS - 20, exp=NOW - 20)
    assert authenticate(late).inventory_id == peer.remote.inventory_id
    settings.INVENTORY_OIDC_LEEWAY_SECONDS = 1
    with pytest.raises(NotAuthenticatedError, match="expired"):
        authenticate(late)


def test_neither_showing_nor_checking_a_token_costs_a_query(peer: Paired) -> None:
    now = database_now()
    keys.create_key_pair(now=now, active_from=now)
    token, credential = peer.token(), Credential.of(peer.remote)
    authenticate(token)
    first = credential.headers
    settle_rights()
    authenticate(token)
    with CaptureQueriesContext(connection) as queries:
        for _ in range(10):
            authenticate(token)
            assert credential.headers == first
    assert [query["sql"] for query in queries] == []


def test_a_revoked_inventory_loses_everything_at_once_and_a_new_pairing_brings_it_back(peer: Paired) -> None:
    token, client = peer.token(), peer.client()
    settle_rights()
    assert client.get("/harvest/news").status_code == 200
    assert peer.key.key_id in keys.trust_cache.url_keys(peer.key.key_id)
    # As another process would do it: only the database tells.
    with connection.cursor() as cursor:
        cursor.execute("UPDATE remote_inventory SET enabled = false, paired_at = NULL, revoked_at = now()")
        cursor.execute("DELETE FROM trusted_key")

    def is_refused() -> bool:
        return client.get("/harvest/news").status_code == 401

    wait_until(is_refused, 2, "its tokens are still good")
    assert keys.trust_cache.url_keys(peer.key.key_id) == {}
    with pytest.raises(NotAuthenticatedError, match="paired"):
        authenticate(token)
    with pytest.raises(StateConflictError, match="new pairing"):
        remotes.save_remote(name="omega", role="global", url="http://omega.test", token=None, enabled=True)


def test_revoking_takes_keys_tokens_codes_and_marks_in_one_transaction(peer: Paired) -> None:
    now = database_now()
    keys.create_key_pair(now=now, active_from=now)
    readers.recent.clear()
    assert peer.client().get("/harvest/news").status_code == 200
    operations.revoke(name="omega", reason="its disk was stolen")
    again = operations.revoke(name="omega", reason="once more")
    remote = RemoteInventory.objects.get()
    assert (remote.enabled, remote.paired_at, remote.revoked_at) == (False, None, again.revoked_at)
    assert not remote.trusted_keys.exists()
    assert FeedReader.objects.get().retired_at is not None
    assert readers.active_readers("any") == []
    assert expire_events() == Expired(0, ())
    assert peer.client().get("/harvest/news").status_code == 401


def test_only_a_global_signs_urls(inventory: InventoryIdentity) -> None:
    alpha = paired("alpha", role="site")
    assert keys.load_trust().url_keys == {}
    assert list(keys.load_trust().peers) == [alpha.remote.inventory_id]


def test_a_remote_that_is_not_paired_is_called_with_the_token_that_it_gave(inventory: InventoryIdentity) -> None:
    remote = RemoteInventory(name="a", role="site", url="http://a", token=sealing.seal(b"given"))
    assert Credential.of(remote).headers == {"Authorization": "Bearer given"}
    assert Credential.of(RemoteInventory(name="a", role="site", url="http://a")).headers == {}


def test_a_paired_remote_is_called_with_a_token_for_it_alone(peer: Paired) -> None:
    now = database_now()
    keys.create_key_pair(now=now, active_from=now)
    headers = Credential.of(peer.remote).headers
    claims = verified(headers["Authorization"].removeprefix("Bearer "), keys.published_keys(now=now), kind=KIND)
    identity = InventoryIdentity.objects.get()
    assert (claims["iss"], claims["aud"]) == (str(identity.inventory_id), str(peer.remote.inventory_id))
    assert claims["exp"] - claims["iat"] == SECONDS
    assert Credential.of(paired("psi", role="global").remote).headers != headers


# --- speaking for an inventory


def test_the_mark_of_a_feed_reader_is_the_paired_inventory_s_own(peer: Paired) -> None:
    readers.recent.clear()
    own = peer.remote.inventory_id
    assert own is not None
    FeedReader.objects.create(caller="its old token", inventory_id=own, epoch="e", txid=1, asked_at=database_now())
    assert peer.client().get("/harvest/news?after=5").status_code == 200
    assert list(FeedReader.objects.values_list("caller", "inventory_id", "txid")) == [("inventory:omega", own, 4)]
    other = {"X-Inventory-Reader": str(uuid.uuid4())}
    refused = peer.client().get("/harvest/news", headers=other)
    assert refused.status_code == 403
    assert "does not speak for the inventory" in refused.json()["detail"]


def test_a_plain_token_reads_the_feed_but_speaks_for_nobody(inventory: InventoryIdentity) -> None:
    readers.recent.clear()
    secret = auth.create_api_token(name="plain", grants=frozenset({Grant.HARVEST}), now=database_now())
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    assert client.get("/harvest/news", headers={"X-Inventory-Reader": str(uuid.uuid4())}).status_code == 403
    assert not FeedReader.objects.exists()
    assert client.get("/harvest/news").status_code == 200
    assert FeedReader.objects.get().inventory_id == readers.NOBODY


SITE, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
SPEAKERS = [
    ("itself", Caller("inventory:a", "service", PEER_GRANTS, inventory_id=SITE), True),
    ("another inventory", Caller("inventory:b", "service", PEER_GRANTS, inventory_id=OTHER), False),
    ("another one that may do everything", Caller("inventory:b", "service", ALL_GRANTS, inventory_id=OTHER), False),
    ("who may do everything", Caller("operator", "api-token", ALL_GRANTS), True),
    ("an archive operator", Caller("op", "session", frozenset(), principals=frozenset({"user:op"})), True),
    ("who may harvest", Caller("plain", "api-token", frozenset({Grant.HARVEST, Grant.READ})), False),
    ("nobody", Caller("anonymous", "anonymous", frozenset()), False),
]


@pytest.mark.parametrize(("caller", "expected"), [row[1:] for row in SPEAKERS], ids=[row[0] for row in SPEAKERS])
def test_who_speaks_for_an_inventory(inventory: InventoryIdentity, caller: Caller, *, expected: bool) -> None:
    access.assign_role(principal="user:op", role=Role.ARCHIVE_OPERATOR)
    assert permissions.speaks_for(caller, SITE) is expected
    if not expected:
        with pytest.raises(NotPermittedError, match="does not speak for"):
            permissions.require_speaker(caller, SITE)


# --- published keys, and who stands behind them


def test_published_keys_are_signed_by_every_key_that_signs_now(inventory: InventoryIdentity) -> None:
    now = database_now()
    keys.create_key_pair(now=now, active_from=now)
    first = keys.signing_key(now=now)
    keys.rotate_keys(now=now, period=HOUR, overlap=HOUR, is_forced=True)
    answer = Client().get("/pubkey")
    assert len(answer.json()["keys"]) == 2
    statement, own_id = answer[key_statements.HEADER], inventory.inventory_id
    trusted = {first.key_id: first.public_bytes}
    key_statements.verify(statement, answer.content, inventory_id=own_id, trusted=trusted)
    for document, inventory_id, known in (
        (answer.content + b" ", own_id, trusted),
        (answer.content, OTHER, trusted),
        (answer.content, own_id, {first.key_id: b"1" * 32}),
        (answer.content, own_id, {}),
    ):
        with pytest.raises(UnbelievableStatementError):
            key_statements.verify(statement, document, inventory_id=inventory_id, trusted=known)
    with pytest.raises(UnbelievableStatementError, match="not signed"):
        key_statements.verify("", answer.content, inventory_id=own_id, trusted=trusted)
