"""Pairing by a one-time code: what each end does, what it refuses, and that repeats and crashes between the ends do no harm."""

from __future__ import annotations

import io
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from pytest_django import Settings

from datamodel import auth, keys, sealing
from datamodel.audit.models import AuditEntry
from datamodel.audit.rules import Action
from datamodel.errors import (
    InvalidRequestError,
    NotPermittedError,
    RemoteProtocolError,
    RemoteRefusedError,
    RemoteUnavailableError,
    StateConflictError,
)
from datamodel.models import InventoryIdentity, PairingInvitation, RemoteInventory, TrustedKey
from datamodel.pairing import client, operations, rules
from datamodel.pairing.rules import Code, Introduction, MalformedError
from datamodel.permissions import ALL_GRANTS, Grant
from datamodel.preauth import SigningKey
from datamodel.service_tokens import Credential
from datamodel.statements import verified
from tests.fakes.inviting import FakeInviting, fake_inviting

NOW = datetime.now(UTC)


@pytest.fixture
def as_global(inventory: InventoryIdentity, settings: Settings) -> InventoryIdentity:
    """We are a global with a key, and invite sites."""
    settings.INVENTORY_ROLE = "global"
    settings.INVENTORY_PUBLIC_URL = "https://global.test/base"
    keys.create_key_pair(now=NOW, active_from=NOW)
    return inventory


@pytest.fixture
def as_site(inventory: InventoryIdentity) -> InventoryIdentity:
    """We are a site with a key, and accept codes of globals."""
    keys.create_key_pair(now=NOW, active_from=NOW)
    return inventory


@pytest.fixture(scope="module")
def _inviting() -> Iterator[FakeInviting]:
    with fake_inviting() as inviting:
        yield inviting


@pytest.fixture
def inviting(_inviting: FakeInviting) -> FakeInviting:
    """One server for the module, as new."""
    fresh = FakeInviting(url=_inviting.url)
    _inviting.__dict__.update(fresh.__dict__)
    return _inviting


@dataclass
class Acceptor:
    """A site that shows a code to us."""

    code: Code
    key: SigningKey = field(default_factory=lambda: SigningKey.generate(uuid.uuid4().hex[:8]))
    inventory_id: uuid.UUID = field(default_factory=uuid.uuid4)

    @classmethod
    def invited(cls, name: str = "alpha") -> Acceptor:
        return cls(Code.parse(operations.invite(name=name, role="site").code))

    def introduction(self, **changes: Any) -> Introduction:
        keys_ = {self.key.key_id: self.key.public_bytes}
        them = Introduction(self.inventory_id, "site", "its own name", "https://alpha.test", keys_, "ivo://x/alpha")
        return replace(them, **changes)

    def redeem(self, *, proof: str | None = None, **changes: Any) -> str:
        them = self.introduction(**changes)
        body = json.dumps(them.as_json()).encode()
        made = rules.proof(rules.proof_key(self.code.secret), self.code.invitation_id, body)
        return operations.redeem(
            invitation_id=self.code.invitation_id,
            body=body,
            given_proof=made if proof is None else proof,
            introduction=them,
        )


# --- the code


def test_a_code_says_who_where_and_with_which_key(as_global: InventoryIdentity) -> None:
    invited = operations.invite(name="alpha", role="site")
    code = Code.parse(f" {invited.code[:40]}\n{invited.code[40:]} ")
    assert (code.url, code.inventory_id) == ("https://global.test/base", as_global.inventory_id)
    assert str(code) == invited.code
    kept = PairingInvitation.objects.get()
    assert kept.id == code.invitation_id == invited.invitation_id
    at_rest = bytes(kept.proof_key)
    assert code.secret not in at_rest
    assert sealing.unseal(at_rest) == rules.proof_key(code.secret) != code.secret


BAD_CODES = ["", "x", "AAAA", "e30", "W10", "é", "A" * 3000, "WzEsMiwzLDQsNSw2XQ"]


@pytest.mark.parametrize("text", BAD_CODES)
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        Code.parse(text)


GOOD_KEY = {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "A" * 43}
INTRODUCTION = {
    "inventoryId": str(uuid.UUID(int=1)),
    "role": "site",
    "name": "a",
    "url": "https://a",
    "keys": [GOOD_KEY],
}
BAD_INTRODUCTIONS: list[dict[str, Any]] = [
    {"inventoryId": "x"},
    {"inventoryId": None},
    {"role": "moon"},
    {"url": ""},
    {"url": "https://a\x00"},
    {"url": "x" * 513},
    {"resourceID": "ivo://a\n"},
    {"keys": []},
    {"keys": "x"},
    {"keys": [7]},
    {"keys": [{**GOOD_KEY, "kid": "k\x00"}]},
    {"keys": [{**GOOD_KEY, "kid": "k" * 33}]},
    {"keys": [{**GOOD_KEY, "x": "A" * 42}]},
    {"keys": [{**GOOD_KEY, "x": "!"}]},
    {"keys": [{**GOOD_KEY, "kid": f"k{number}"} for number in range(33)]},
]


@pytest.mark.parametrize("changes", BAD_INTRODUCTIONS)
def test_what_is_no_introduction_is_refused(changes: dict[str, Any]) -> None:
    assert Introduction.parse(INTRODUCTION).keys == {"k": b"\0" * 32}
    with pytest.raises(MalformedError):
        Introduction.parse(INTRODUCTION | changes)


def test_only_the_other_role_is_invited_by_a_sound_name_for_a_while(as_global: InventoryIdentity) -> None:
    hour = timedelta(hours=1)
    for name, role, lifetime in (
        ("omega", "global", hour),
        ("alpha", "", hour),
        ("", "site", hour),
        ("a\n", "site", hour),
        ("a" * 65, "site", hour),
        ("alpha", "site", timedelta(0)),
        ("alpha", "site", timedelta(days=8)),
    ):
        with pytest.raises(InvalidRequestError):
            operations.invite(name=name, role=role, lifetime=lifetime)
    assert not PairingInvitation.objects.exists()


# --- the inviting side


def test_whoever_knows_the_secret_is_paired(as_global: InventoryIdentity) -> None:
    alpha = Acceptor.invited()
    answer = alpha.redeem()
    remote = RemoteInventory.objects.get()
    assert (remote.name, remote.role, remote.url) == ("alpha", "site", "https://alpha.test")
    assert (remote.inventory_id, remote.enabled) == (alpha.inventory_id, True)
    assert remote.paired_at is not None
    assert keys.load_trust().peers[alpha.inventory_id].keys == {alpha.key.key_id: alpha.key.public_bytes}
    claims = verified(answer, keys.published_keys(now=NOW), kind=operations.ANSWER_KIND)
    assert (claims["inventoryId"], claims["aud"]) == (str(as_global.inventory_id), str(alpha.code.invitation_id))


def test_each_step_and_the_end_of_a_pairing_are_in_the_audit(as_global: InventoryIdentity) -> None:
    acceptor = Acceptor.invited()
    with pytest.raises(NotPermittedError):
        acceptor.redeem(proof="0" * 64)
    acceptor.redeem()
    operations.revoke(name="alpha", reason="its disk was stolen")
    entries = AuditEntry.objects.filter(action=Action.PAIRING.value).order_by("id")
    assert [(entry.subject, entry.details["event"], entry.reason) for entry in entries] == [
        ("alpha", "invited", ""),
        ("alpha", "paired", ""),
        ("alpha", "revoked", "its disk was stolen"),
    ]
    assert acceptor.code.secret.hex() not in str([entry.details for entry in entries])


def test_the_same_acceptor_may_repeat_and_nobody_else_may_use_the_code(as_global: InventoryIdentity) -> None:
    alpha = Acceptor.invited()
    alpha.redeem()
    before = RemoteInventory.objects.get()
    alpha.redeem()
    alpha.redeem(url="https://moved.test")
    after = RemoteInventory.objects.get()
    assert (after.paired_at, after.url) == (before.paired_at, "https://moved.test")
    with pytest.raises(NotPermittedError):
        alpha.redeem(inventory_id=uuid.uuid4())
    assert RemoteInventory.objects.get().inventory_id == alpha.inventory_id


def test_of_two_that_show_one_code_at_once_one_is_paired(as_global: InventoryIdentity) -> None:
    code = Acceptor.invited().code
    both = [Acceptor(code), Acceptor(code)]
    start = threading.Barrier(2)

    def show(one: Acceptor) -> bool:
        start.wait(10)
        try:
            one.redeem()
        except NotPermittedError:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(show, both))
    assert sorted(outcomes) == [False, True]
    assert RemoteInventory.objects.get().inventory_id == both[outcomes.index(True)].inventory_id


def spoil(alpha: Acceptor, how: str) -> None:
    row = PairingInvitation.objects.filter(id=alpha.code.invitation_id)
    if how == "expired":
        row.update(expires_at=NOW - timedelta(seconds=1))
    elif how == "void":
        operations.invite(name="alpha", role="site")
    elif how == "revoked":
        alpha.redeem()
        operations.revoke(name="alpha", reason="test")
    elif how == "unknown":
        row.delete()
    elif how == "tried too often":
        row.update(attempts=rules.MOST_ATTEMPTS)
    else:
        alpha.code = replace(alpha.code, secret=b"x" * 32)


@pytest.mark.parametrize("how", ["expired", "void", "revoked", "unknown", "tried too often", "wrong secret"])
def test_a_code_that_is_not_good_is_refused_with_one_and_the_same_answer(
    as_global: InventoryIdentity, how: str
) -> None:
    alpha = Acceptor.invited()
    spoil(alpha, how)
    with pytest.raises(NotPermittedError, match="unknown, spent, expired or void"):
        alpha.redeem()
    assert not RemoteInventory.objects.filter(paired_at__isnull=False).exists()


def test_attempts_are_counted_and_too_many_end_the_code(as_global: InventoryIdentity) -> None:
    alpha = Acceptor.invited()
    for _ in range(rules.MOST_ATTEMPTS):
        with pytest.raises(NotPermittedError):
            alpha.redeem(proof="é" * 64)
    with pytest.raises(NotPermittedError):
        alpha.redeem()


def test_a_proof_is_of_one_body_and_one_invitation(as_global: InventoryIdentity) -> None:
    alpha = Acceptor.invited()
    key, body = rules.proof_key(alpha.code.secret), b"{}"
    made = rules.proof(key, alpha.code.invitation_id, body)
    assert rules.is_proven(key, alpha.code.invitation_id, body, made)
    assert not rules.is_proven(key, alpha.code.invitation_id, b"{ }", made)
    assert not rules.is_proven(key, uuid.uuid4(), body, made)
    assert not rules.is_proven(rules.proof_key(b"y" * 32), alpha.code.invitation_id, body, made)


def test_nobody_takes_another_s_place(as_global: InventoryIdentity) -> None:
    known = uuid.uuid4()
    RemoteInventory.objects.create(name="known", role="site", url="http://known.test", inventory_id=known)
    alpha = Acceptor.invited()
    with pytest.raises(StateConflictError, match="known already, as known"):
        alpha.redeem(inventory_id=known)
    with pytest.raises(StateConflictError, match="with itself"):
        alpha.redeem(inventory_id=as_global.inventory_id)
    with pytest.raises(StateConflictError, match="it was shown to a global"):
        alpha.redeem(role="global")
    with pytest.raises(InvalidRequestError, match="not a base URL"):
        alpha.redeem(url="ftp://alpha.test")
    with pytest.raises(StateConflictError, match="another inventory"):
        Acceptor.invited("known").redeem()
    assert not TrustedKey.objects.exists()
    assert RemoteInventory.objects.get().paired_at is None
    alpha.redeem()


def test_one_that_was_known_by_a_token_becomes_paired_and_loses_it(as_global: InventoryIdentity) -> None:
    alpha = Acceptor.invited()
    RemoteInventory.objects.create(
        name="alpha", role="site", url="http://a", token=sealing.seal(b"t"), inventory_id=alpha.inventory_id
    )
    alpha.redeem()
    remote = RemoteInventory.objects.get()
    assert bytes(remote.token) == b""
    assert Credential.of(remote).peer_id == alpha.inventory_id


def test_what_is_paired_is_revoked_before_it_is_invited_anew(as_global: InventoryIdentity) -> None:
    alpha = Acceptor.invited()
    alpha.redeem()
    with pytest.raises(StateConflictError, match="paired already"):
        operations.invite(name="alpha", role="site")
    operations.revoke(name="alpha", reason="moved house")
    again = replace(Acceptor.invited(), inventory_id=alpha.inventory_id)
    again.redeem()
    remote = RemoteInventory.objects.get()
    assert (remote.enabled, remote.revoked_at) == (True, None)
    assert set(keys.load_trust().peers[alpha.inventory_id].keys) == {again.key.key_id}


# --- the accepting side, over HTTP


def test_a_code_is_accepted_and_both_are_known(as_site: InventoryIdentity, inviting: FakeInviting) -> None:
    remote = client.accept(code=inviting.code(), name="omega")
    assert (remote.role, remote.url, remote.inventory_id) == ("global", inviting.url, inviting.inventory_id)
    assert keys.load_trust().url_keys == {inviting.key.key_id: inviting.key.public_bytes}
    (heard,) = inviting.heard
    assert (heard["inventoryId"], heard["role"]) == (str(as_site.inventory_id), "site")
    assert {key["kid"] for key in heard["keys"]} == set(keys.published_keys(now=NOW))
    assert inviting.secret not in inviting.bodies[0]
    assert client.accept(code=inviting.code(), name="omega").paired_at == remote.paired_at
    assert [entry.details["event"] for entry in AuditEntry.objects.filter(action=Action.PAIRING.value)][:1] == [
        "accepted"
    ]


FOREIGN = SigningKey.generate("0000ffff")
LIES: list[tuple[str, dict[str, Any]]] = [
    ("signed by another key", {"signs_with": FOREIGN}),
    ("signed by another key of that name", {"signs_with": SigningKey.generate("0000abcd")}),
    ("another inventory", {"says": {"inventoryId": str(uuid.UUID(int=1))}}),
    ("an answer to another code", {"says": {"aud": str(uuid.UUID(int=1))}}),
    ("another kind of statement", {"kind": "storage-inventory-held+jwt"}),
    ("no algorithm of ours", {"algorithm": "none"}),
    ("no keys", {"says": {"keys": []}}),
    ("keys that are no keys", {"says": {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "x", "x": "AA"}]}}),
    ("nonsense", {"body": b"<html>"}),
    ("too much", {"body": b"x" * 100_000}),
]


@pytest.mark.parametrize("how", [row[1] for row in LIES], ids=[row[0] for row in LIES])
def test_an_answer_that_the_code_does_not_vouch_for_changes_nothing(
    as_site: InventoryIdentity, inviting: FakeInviting, how: dict[str, Any]
) -> None:
    inviting.__dict__.update(how)
    with pytest.raises(RemoteProtocolError):
        client.accept(code=inviting.code(), name="omega")
    assert not RemoteInventory.objects.exists()
    inviting.__dict__.update(FakeInviting(url=inviting.url, key=inviting.key).__dict__)
    assert client.accept(code=inviting.code(), name="omega").paired_at is not None


def test_refusals_redirects_and_silence_have_their_names(as_site: InventoryIdentity, inviting: FakeInviting) -> None:
    with pytest.raises(RemoteRefusedError, match="403: unknown code"):
        client.accept(code=inviting.code(secret="A" * 43), name="omega")
    inviting.status = 307
    with pytest.raises(RemoteRefusedError, match="307"):
        client.accept(code=inviting.code(), name="omega")
    assert len(inviting.bodies) == 2, "a redirect is not followed"
    inviting.status = 503
    with pytest.raises(RemoteUnavailableError):
        client.accept(code=inviting.code(), name="omega")
    with pytest.raises(RemoteUnavailableError, match="cannot be reached"):
        client.accept(code=inviting.code(url="http://127.0.0.1:1"), name="omega")
    for url in ("ftp://x", "file:///etc/passwd", "http://user:pass@x"):
        with pytest.raises(InvalidRequestError):
            client.accept(code=inviting.code(url=url), name="omega")
    assert not RemoteInventory.objects.exists()


def test_a_site_is_not_paired_with_a_site(as_site: InventoryIdentity, inviting: FakeInviting) -> None:
    inviting.says = {"role": "site"}
    with pytest.raises(InvalidRequestError, match="paired with globals"):
        client.accept(code=inviting.code(), name="omega")


# --- commands


def run(*argv: str) -> str:
    out = io.StringIO()
    call_command("pair", *argv, stdout=out, stderr=io.StringIO())
    return out.getvalue().strip()


def test_commands_invite_list_and_revoke(as_global: InventoryIdentity) -> None:
    code = Code.parse(run("invite", "alpha"))
    assert run("list").startswith("alpha: site, invited since")
    alpha = Acceptor(code)
    alpha.redeem()
    assert "alpha: site, paired since" in run("list")
    assert f"1 keys; {alpha.inventory_id}; https://alpha.test" in run("list")
    assert run("revoke", "alpha", "--reason", "stolen") == "the site alpha is revoked"
    assert "alpha: site, revoked since" in run("list")
    for argv in (["revoke", "nobody", "--reason", "x"], ["revoke", "alpha", "--reason", " "], ["invite", "a,b"]):
        with pytest.raises(CommandError):
            run(*argv)


def test_a_command_accepts(as_site: InventoryIdentity, inviting: FakeInviting) -> None:
    assert run("accept", inviting.code(), "--name", "omega").startswith("paired with the global omega at")
    with pytest.raises(CommandError, match="no pairing code"):
        run("accept", "x", "--name", "omega")


# --- doors


@pytest.fixture
def operator() -> Client:
    secret = auth.create_api_token(name="operator", grants=ALL_GRANTS, now=NOW)
    return Client(headers={"Authorization": f"Bearer {secret}"})


def post(caller: Client, path: str, document: object, **headers: str) -> Any:
    return caller.post(path, json.dumps(document), content_type="application/json", headers=headers)


def test_the_whole_way_over_http(as_global: InventoryIdentity, operator: Client) -> None:
    made = post(operator, "/pairings", {"name": "alpha", "role": "site", "lifetimeSeconds": 60})
    assert made.status_code == 201
    alpha = Acceptor(Code.parse(made.json()["code"]))
    body = json.dumps(alpha.introduction().as_json()).encode()
    proof = rules.proof(rules.proof_key(alpha.code.secret), alpha.code.invitation_id, body)
    path = f"/pairings/{alpha.code.invitation_id}/redemption"
    answer = Client().post(path, body, content_type="application/json", headers={"X-Pairing-Proof": proof})
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/jose")
    (listed,) = operator.get("/pairings").json()["items"]
    assert (listed["name"], listed["state"], listed["inventoryId"]) == ("alpha", "paired", str(alpha.inventory_id))
    revoked = post(operator, "/pairings/revocations", {"name": "alpha", "reason": "test"})
    assert revoked.json()["state"] == "revoked"
    assert (
        Client().post(path, body, content_type="application/json", headers={"X-Pairing-Proof": proof}).status_code
        == 403
    )


def test_a_code_is_accepted_over_http(as_site: InventoryIdentity, operator: Client, inviting: FakeInviting) -> None:
    answer = post(operator, "/pairings/acceptances", {"name": "omega", "code": inviting.code()})
    assert (answer.status_code, answer.json()["state"], answer.json()["keys"]) == (200, "paired", 1)


BAD_BODIES: list[tuple[str, object, int]] = [
    ("/pairings", {"role": "site"}, 400),
    ("/pairings", {"name": "alpha", "role": "moon"}, 400),
    ("/pairings", {"name": "alpha", "role": "site", "lifetimeSeconds": "1"}, 400),
    ("/pairings", {"name": "alpha", "role": "site", "lifetimeSeconds": 1e300}, 400),
    ("/pairings", [], 400),
    ("/pairings/acceptances", {"name": "omega", "code": 7}, 400),
    ("/pairings/revocations", {"name": "nobody", "reason": "x"}, 400),
    ("/pairings/revocations", {"name": "no\x00body", "reason": "x"}, 400),
    (f"/pairings/{uuid.UUID(int=1)}/redemption", {}, 400),
    (f"/pairings/{uuid.UUID(int=1)}/redemption", {"inventoryId": "x" * 70_000}, 413),
]


@pytest.mark.parametrize(("path", "document", "status"), BAD_BODIES)
def test_what_makes_no_sense_is_refused(
    as_global: InventoryIdentity, operator: Client, path: str, document: object, status: int
) -> None:
    assert post(operator, path, document).status_code == status


def test_only_who_may_do_everything_pairs(as_global: InventoryIdentity) -> None:
    secret = auth.create_api_token(name="almost", grants=ALL_GRANTS - {Grant.AUDIT}, now=NOW)
    almost = Client(headers={"Authorization": f"Bearer {secret}"})
    for path in ("/pairings", "/pairings/acceptances", "/pairings/revocations"):
        assert post(almost, path, {}).status_code == 403
        assert post(Client(), path, {}).status_code == 401
    assert almost.get("/pairings").status_code == 403
