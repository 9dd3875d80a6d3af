"""Bearer JWTs: believed only with a published key, for us, in time; limited by their scopes."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.http import HttpRequest
from django.test import RequestFactory
from joserfc import jwt
from joserfc.jwk import OctKey
from pytest_django import Settings

from datamodel import access, auth, issuers
from datamodel.errors import NotAuthenticatedError, NotConfiguredError, RemoteProtocolError, RemoteUnavailableError
from datamodel.grants import Grant
from datamodel.issuers import caller_of_jwt, parse_issuers
from datamodel.models import InventoryIdentity
from datamodel.permissions import may, may_create, reach
from datamodel.reach import EVERYWHERE, NOWHERE, Reach
from datamodel.scopes import limits_of, reach_of_path
from datamodel.uris import ArtifactUri
from tests.fakes.issuer import AUDIENCE, FakeIssuer, serve_issuer


def configured(issuer: FakeIssuer, **more: Any) -> str:
    return json.dumps([{"issuer": issuer.url, "name": "iam", "audience": AUDIENCE, **more}])


@pytest.fixture
def issuer(settings: Settings) -> Iterator[FakeIssuer]:
    with serve_issuer() as found:
        settings.INVENTORY_OIDC_ISSUERS = configured(found)
        settings.INVENTORY_OIDC_PRIVATE = True
        yield found
        issuers.forget()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches as often as somebody asks."""
    monkeypatch.setattr(issuers, "_RETRY_SECONDS", 0.0)


def request(token: str) -> HttpRequest:
    return RequestFactory().get("/", headers={"Authorization": f"Bearer {token}"})


def test_a_bearer_is_known_by_name_groups_and_issuer(issuer: FakeIssuer) -> None:
    caller = auth.authenticate(request(issuer.token(groups=["/cms/prod", "astro", 7, "a,b"])))
    assert (caller.name, caller.method, caller.grants, caller.limits) == ("iam:alice", "oidc", frozenset(), None)
    assert caller.principals == {"*", "user:iam:alice", "issuer:iam", "group:iam:/cms/prod", "group:iam:astro"}


@pytest.mark.parametrize("kind", ["EC", "RSA", "OKP"])
def test_every_kind_of_key_is_understood(issuer: FakeIssuer, kind: str) -> None:
    issuer.rotate("k2", kind)
    assert caller_of_jwt(issuer.token()).name == "iam:alice"


NOW = int(time.time())
UNBELIEVABLE: list[tuple[str, dict[str, Any], str]] = [
    ("expired", {"exp": NOW - 3600}, "expired"),
    ("without expiry", {"exp": None}, "no time in exp"),
    ("expiry is no number", {"exp": "2030"}, "no time in exp"),
    ("expiry is true", {"exp": True}, "no time in exp"),
    ("not yet", {"nbf": NOW + 3600}, "not valid yet"),
    ("made in the future", {"iat": NOW + 3600}, "not valid yet"),
    ("for another", {"aud": "other"}, "aud"),
    ("for nobody", {"aud": None}, "aud"),
    ("nobody's", {"sub": None}, "whose"),
    ("a name with a comma", {"sub": "alice,group:root"}, "whose"),
    ("a name with a line end", {"sub": "alice\n"}, "whose"),
    ("of another issuer", {"iss": "https://evil.example"}, "not trusted"),
    ("of an issuer that is a list", {"iss": ["https://evil.example"]}, "not trusted"),
]


@pytest.mark.parametrize(("claims", "reason"), [row[1:] for row in UNBELIEVABLE], ids=[row[0] for row in UNBELIEVABLE])
def test_claims_that_are_not_believed(issuer: FakeIssuer, claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotAuthenticatedError, match=reason):
        caller_of_jwt(issuer.token(**claims))


def test_clocks_may_differ_a_little(issuer: FakeIssuer, settings: Settings) -> None:
    late = issuer.token(exp=int(time.time()) - 20)
    assert caller_of_jwt(late).name == "iam:alice"
    settings.INVENTORY_OIDC_LEEWAY_SECONDS = 5
    with pytest.raises(NotAuthenticatedError, match="expired"):
        caller_of_jwt(late)


def test_one_of_several_audiences_is_enough(issuer: FakeIssuer) -> None:
    assert caller_of_jwt(issuer.token(aud=["x", AUDIENCE])).name == "iam:alice"


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_token_is_signed_by_a_published_key_with_an_accepted_algorithm(issuer: FakeIssuer) -> None:
    good = issuer.token()
    head, claims, signature = good.split(".")
    ((_, key),) = issuer.keys.items()
    public = json.dumps(key.as_dict(private=False), sort_keys=True)
    confused = jwt.encode(
        {"alg": "HS256", "kid": "k1"}, json.loads(base64.urlsafe_b64decode(claims + "==")), OctKey.import_key(public)
    )
    forged = {
        "none": f"{part({'alg': 'none', 'kid': 'k1'})}.{claims}.",
        "none with signature": f"{part({'alg': 'none', 'kid': 'k1'})}.{claims}.{signature}",
        "HS256 with the public key": confused,
        "changed claims": f"{head}.{part({**json.loads(base64.urlsafe_b64decode(claims + '==')), 'sub': 'root'})}.{signature}",
        "no signature": f"{head}.{claims}.",
        "another algorithm": f"{part({'alg': 'RS256', 'kid': 'k1'})}.{claims}.{signature}",
        "unknown key": f"{part({'alg': 'ES256', 'kid': 'k9'})}.{claims}.{signature}",
        "key in the header": f"{part({'alg': 'ES256', 'jwk': key.as_dict(private=False)})}.{claims}.{signature}"[:-8]
        + "AAAAAAAA",
        "an ID of another kind": issuer.token(header={"typ": "logout+jwt"}),
        "no JSON": f"eyJ.{claims}.{signature}",
        "a list": f"ey.{part([])}.{signature}",
    }
    for name, token in forged.items():
        with pytest.raises(NotAuthenticatedError):
            pytest.fail(f"{name}: {caller_of_jwt(token)}")
    assert caller_of_jwt(good).name == "iam:alice"


def test_a_shared_secret_in_the_key_set_is_no_key(issuer: FakeIssuer, impatient: None) -> None:
    secret = OctKey.generate_key(256, {"kid": "k1"})
    issuer.answers["/keys"] = {"keys": [secret.as_dict(private=True), {"kty": "EC", "kid": "k1"}, "x"]}
    with pytest.raises((NotAuthenticatedError, RemoteUnavailableError)):
        caller_of_jwt(issuer.token())


# --- keys


def test_keys_are_fetched_once_and_again_for_a_new_name(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        caller_of_jwt(issuer.token())
    assert len(issuer.asked) == 2
    old = issuer.token()
    issuer.rotate("k2")
    with pytest.raises(NotAuthenticatedError):
        caller_of_jwt(issuer.token())
    assert len(issuer.asked) == 2, "a name that nobody published costs no fetch for ten seconds"
    monkeypatch.setattr(issuers, "_RETRY_SECONDS", 0.0)
    assert caller_of_jwt(issuer.token()).name == "iam:alice"
    with pytest.raises(NotAuthenticatedError):
        caller_of_jwt(old)


def test_keys_are_fetched_again_when_they_are_old(issuer: FakeIssuer, settings: Settings, impatient: None) -> None:
    token = issuer.token()
    caller_of_jwt(token)
    issuer.rotate("k2")
    assert caller_of_jwt(token).name == "iam:alice"
    settings.INVENTORY_OIDC_KEYS_SECONDS = 0
    with pytest.raises(NotAuthenticatedError):
        caller_of_jwt(token)


def test_an_issuer_that_is_down_is_believed_for_a_day_by_the_keys_it_had(
    issuer: FakeIssuer, settings: Settings, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller_of_jwt(issuer.token())
    issuer.answers = {"/keys": 500}
    settings.INVENTORY_OIDC_KEYS_SECONDS = 0
    assert caller_of_jwt(issuer.token()).name == "iam:alice"
    monkeypatch.setattr(issuers, "_STALE_SECONDS", 0.0)
    with pytest.raises(RemoteUnavailableError):
        caller_of_jwt(issuer.token())


@pytest.mark.parametrize(
    "answers",
    [
        {"/.well-known/openid-configuration": 404},
        {"/.well-known/openid-configuration": 302},
        {"/.well-known/openid-configuration": ["x"]},
        {"/.well-known/openid-configuration": {"issuer": "https://other.example", "jwks_uri": "https://other.example"}},
        {"/keys": {"keys": 7}},
        {"/keys": {"keys": [], "padding": "x" * 600_000}},
    ],
)
def test_a_provider_that_answers_nonsense_lets_nobody_in(issuer: FakeIssuer, answers: dict[str, Any]) -> None:
    issuer.answers = answers
    with pytest.raises(RemoteUnavailableError):
        caller_of_jwt(issuer.token())
    assert "/elsewhere" not in issuer.asked


def test_private_addresses_and_plain_http_are_refused_unless_allowed(issuer: FakeIssuer, settings: Settings) -> None:
    settings.INVENTORY_OIDC_PRIVATE = False
    with pytest.raises(RemoteUnavailableError):
        caller_of_jwt(issuer.token())
    assert issuer.asked == []
    with pytest.raises(RemoteUnavailableError, match="not called from here"):
        issuers._fetch_json(f"https://127.0.0.1:{urlsplit(issuer.url).port}/")
    with pytest.raises(RemoteProtocolError, match="https"):
        issuers._fetch_json("http://8.8.8.8/")


def test_without_issuers_a_jwt_is_an_unknown_token(
    inventory: InventoryIdentity, issuer: FakeIssuer, settings: Settings
) -> None:
    settings.INVENTORY_OIDC_ISSUERS = "[]"
    with pytest.raises(NotAuthenticatedError, match="unknown, expired or revoked"):
        auth.authenticate(request(issuer.token()))


# --- configuration

GOOD = {"issuer": "https://a.example", "name": "a", "audience": "x"}


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        "{}x",
        [{"issuer": "https://a.example"}],
        [{**GOOD, "algorithms": ["HS256"]}],
        [{**GOOD, "algorithms": ["none"]}],
        [{**GOOD, "algorithms": []}],
        [{**GOOD, "audience": []}],
        [{**GOOD, "audiance": "x"}],
        [GOOD, {**GOOD, "issuer": "https://b.example"}],
        [{**GOOD, "prefix": ""}, {**GOOD, "issuer": "https://b.example", "name": "b", "prefix": ""}],
        [7],
    ],
)
def test_a_wrong_configuration_is_told(wrong: object) -> None:
    with pytest.raises(NotConfiguredError, match="INVENTORY_OIDC_ISSUERS"):
        parse_issuers(wrong if isinstance(wrong, str) else json.dumps(wrong))


def test_defaults_of_an_issuer() -> None:
    trust = parse_issuers(json.dumps([GOOD]))["https://a.example"]
    assert (trust.prefix, trust.base, trust.user_claim, trust.groups_claim) == ("a:", "", "sub", "groups")
    assert "HS256" not in trust.algorithms


# --- scopes


@pytest.mark.parametrize(
    ("path", "base", "expected"),
    [
        ("/", "", EVERYWHERE),
        ("/", "cadc:", Reach.of_prefixes(["cadc:"])),
        ("/A", "cadc:", Reach.of_ranges([("cadc:A", "cadc:A\x01")]) | Reach.of_prefixes(["cadc:A/"])),
        ("/A/", "cadc:", Reach.of_prefixes(["cadc:A/"])),
        ("/cadc:", "", Reach.of_prefixes(["cadc:"])),
        ("", "cadc:", NOWHERE),
        ("A", "cadc:", NOWHERE),
        ("/A/../B", "cadc:", NOWHERE),
        ("/./A", "cadc:", NOWHERE),
        ("/A//B", "cadc:", NOWHERE),
        ("/é", "cadc:", NOWHERE),
    ],
)
def test_a_path_means_itself_and_what_is_below_it(path: str, base: str, expected: Reach) -> None:
    assert reach_of_path(path, base) == expected


@pytest.mark.parametrize(
    ("scope", "rights"),
    [
        ("openid storage.read:/A", {Grant.READ: "cadc:A/x"}),
        ("storage.modify:/A", {Grant.WRITE: "cadc:A/x", Grant.DELETE: "cadc:A/x"}),
        (
            "storage.read:/ storage.modify:/A",
            {Grant.READ: "cadc:B/x", Grant.WRITE: "cadc:A/x", Grant.DELETE: "cadc:A/x"},
        ),
        ("read:/A write:/A", {Grant.READ: "cadc:A/x", Grant.WRITE: "cadc:A/x", Grant.DELETE: "cadc:A/x"}),
        ("storage.create:/A", {}),
        ("storage.read", {}),
        ("storage.stage:/A", {}),
    ],
)
def test_scopes_limit_rights(scope: str, rights: dict[Grant, str]) -> None:
    limits = limits_of({"scope": scope}, "cadc:")
    assert limits is not None
    assert {grant for grant in Grant if limits.of(grant)} == rights.keys()
    assert all(uri in limits.of(grant) for grant, uri in rights.items())
    assert "cadc:AB/x" not in limits.of(Grant.WRITE)


def test_a_token_without_storage_scopes_has_no_limits() -> None:
    for claims in ({}, {"scope": "openid profile read"}, {"scope": 7}):
        assert limits_of(claims, "cadc:") is None


def test_scopes_grant_nothing_and_cut_what_is_granted(
    inventory: InventoryIdentity, issuer: FakeIssuer, settings: Settings
) -> None:
    settings.INVENTORY_OIDC_ISSUERS = configured(issuer, base="cadc:")
    uri, other = ArtifactUri.parse("cadc:A/x"), ArtifactUri.parse("cadc:B/x")
    scoped = caller_of_jwt(issuer.token(scope="storage.read:/A storage.create:/A"))
    assert not reach(scoped, Grant.READ)
    assert not may_create(scoped, uri)
    access.save_grant(prefix="cadc:", allowed={Grant.WRITE: ["issuer:iam"]})
    assert may(scoped, Grant.READ, uri)
    assert not may(scoped, Grant.READ, other)
    assert not may(scoped, Grant.WRITE, uri)
    assert may_create(scoped, uri)
    assert not may_create(scoped, other)
    assert may(caller_of_jwt(issuer.token()), Grant.WRITE, other)
