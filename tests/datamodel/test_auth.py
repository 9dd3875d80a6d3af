"""Who is calling: order of credentials, caches, grants."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Group
from django.db import connection
from django.http import HttpRequest
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from datamodel import access, auth, keys, preauth, remotes
from datamodel.errors import NotAuthenticatedError, NotPermittedError
from datamodel.models import ApiToken, InventoryIdentity, RemoteInventory, StorageSite
from datamodel.permissions import ALL_GRANTS, ANONYMOUS, Caller, Grant, grant_for, known, may, require, require_any
from datamodel.preauth import Methods, SigningKey
from datamodel.processes import wait_until
from datamodel.uris import ArtifactUri
from tests.datamodel.test_preauth import CLAIMS, URI, der, legacy_key, legacy_token
from tests.factories import settle_rights

NOW = datetime.now(UTC)


def request(authorization: str | None = None, user: object | None = None) -> HttpRequest:
    made = RequestFactory().get("/", headers={"Authorization": authorization} if authorization is not None else {})
    made.user = user or AnonymousUser()  # type: ignore[assignment]  # a test double of a session
    return made


@pytest.fixture
def secret(inventory: InventoryIdentity) -> str:
    return auth.create_api_token(name="pipeline", grants=frozenset({Grant.READ}), now=NOW)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_token_is_known_as_bearer_and_as_password_whatever_the_user_name(secret: str) -> None:
    expected = Caller("pipeline", "api-token", frozenset({Grant.READ}), principals=known(["token:pipeline"]))
    for header in (f"Bearer {secret}", f"bearer  {secret} ", basic("anyone", secret), basic("", secret)):
        assert auth.authenticate(request(header)) == expected


def test_only_the_digest_of_a_token_is_kept(secret: str) -> None:
    assert ApiToken.objects.get().digest == auth.token_digest(secret)
    assert secret not in str(ApiToken.objects.values())


BAD = ["Bearer", "Bearer ", "Bearer wrong", "Basic", "Basic !!", "Basic " + base64.b64encode(b"no-colon").decode()]
BAD += [
    basic("user", ""),
    basic("user", "wrong"),
    "Digest x",
    "Negotiate abc",
    "Basic " + base64.b64encode(b"\xff:\xff").decode(),
]


@pytest.mark.parametrize("header", BAD)
def test_bad_credentials_never_fall_through_to_anonymous_or_a_session(
    inventory: InventoryIdentity, settings: Settings, header: str
) -> None:
    settings.INVENTORY_ANONYMOUS_READ = True
    superuser = get_user_model().objects.create_superuser("op")
    with pytest.raises(NotAuthenticatedError):
        auth.authenticate(request(header, superuser))


def test_a_token_comes_before_a_session(secret: str) -> None:
    superuser = get_user_model().objects.create_superuser("op")
    assert auth.authenticate(request(f"Bearer {secret}", superuser)).name == "pipeline"
    assert auth.authenticate(request(None, superuser)) == Caller(
        "op", "session", ALL_GRANTS, principals=known(["user:op"])
    )


def test_a_user_of_the_admin_has_the_rights_of_its_name_and_groups_and_no_others(inventory: InventoryIdentity) -> None:
    user = get_user_model().objects.create_user("alice")
    assert not any(may(auth.authenticate(request(None, user)), grant) for grant in Grant)
    user.groups.add(Group.objects.create(name="astro"))
    access.save_grant(prefix="cadc:A/", allowed={Grant.READ: ["group:astro"], Grant.WRITE: ["user:alice"]})
    caller = auth.authenticate(request(None, user))
    assert may(caller, Grant.READ, ArtifactUri.parse("cadc:A/x"))
    assert may(caller, Grant.WRITE, ArtifactUri.parse("cadc:A/x"))
    assert not may(caller, Grant.DELETE, ArtifactUri.parse("cadc:A/x"))


def test_a_session_changes_things_only_from_a_page_of_ours(inventory: InventoryIdentity) -> None:
    superuser = get_user_model().objects.create_superuser("op")
    made = RequestFactory().put("/", {})
    made.user = superuser
    with pytest.raises(NotPermittedError, match="CSRF"):
        auth.authenticate(made)
    secret = "s" * 32
    ours = RequestFactory(headers={"X-CSRFToken": secret}).put("/", {})
    ours.user = superuser
    ours.COOKIES["inventory_csrf"] = secret
    assert auth.authenticate(ours).grants == ALL_GRANTS
    foreign = RequestFactory(headers={"X-CSRFToken": secret, "Origin": "https://evil.example"}).put("/", {})
    foreign.user = superuser
    foreign.COOKIES["inventory_csrf"] = secret
    with pytest.raises(NotPermittedError, match="Origin"):
        auth.authenticate(foreign)


def test_anonymous_callers_may_read_only_where_the_setting_says_so(
    inventory: InventoryIdentity, settings: Settings
) -> None:
    anonymous = auth.authenticate(request())
    assert anonymous == Caller(ANONYMOUS, ANONYMOUS, frozenset())
    assert not may(anonymous, Grant.READ)
    settings.INVENTORY_ANONYMOUS_READ = True
    assert may(anonymous, Grant.READ)
    assert not may(anonymous, Grant.WRITE)


def test_an_expired_or_revoked_token_is_refused(inventory: InventoryIdentity) -> None:
    expired = auth.create_api_token(
        name="a", grants=ALL_GRANTS, now=NOW, expires_at=datetime.now(UTC) - timedelta(seconds=1)
    )
    revoked = auth.create_api_token(name="b", grants=ALL_GRANTS, now=NOW)
    auth.revoke_api_tokens(tokens=ApiToken.objects.filter(name="b"), now=NOW)
    for token in (expired, revoked):
        with pytest.raises(NotAuthenticatedError, match="unknown, expired or revoked"):
            auth.authenticate(request(f"Bearer {token}"))


def test_replacing_a_token_ends_the_old_secret(secret: str) -> None:
    auth.create_api_token(name="pipeline", grants=ALL_GRANTS, now=NOW)
    with pytest.raises(NotAuthenticatedError):
        auth.authenticate(request(f"Bearer {secret}"))


# --- signed URLs


@pytest.fixture
def trusted(site: StorageSite) -> SigningKey:
    key = SigningKey.generate("k1")
    remote = remotes.save_remote(name="g", role="global", url="https://g.example", token="")
    keys.replace_trusted_keys(remote=remote, keys={"k1": key.public_bytes}, now=NOW)
    return key


def signed(key: SigningKey, site: StorageSite, methods: Methods = Methods.READ) -> str:
    expires_at = (datetime.now(UTC) + timedelta(minutes=1)).replace(microsecond=0)
    return key.sign(
        URI, preauth.TransferClaims(methods, expires_at, site.id, "alice", *(CLAIMS.known_id, CLAIMS.known_at))
    )


def test_a_signed_url_names_its_user_and_grants_its_methods(trusted: SigningKey, site: StorageSite) -> None:
    caller = auth.authenticate_url(signed(trusted, site, Methods.WRITE), URI, http_method="PUT")
    assert (caller.name, caller.method) == ("alice", "signed-url")
    assert caller.grants == {Grant.READ, Grant.WRITE}
    assert (caller.known_id, caller.known_at) == (CLAIMS.known_id, CLAIMS.known_at)


def test_a_signed_url_for_reading_cannot_write(trusted: SigningKey, site: StorageSite) -> None:
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        with pytest.raises(NotPermittedError, match=method):
            auth.authenticate_url(signed(trusted, site), URI, http_method=method)


def test_a_signed_url_of_another_site_or_uri_is_refused(trusted: SigningKey, site: StorageSite) -> None:
    other = StorageSite(id=CLAIMS.known_id)
    with pytest.raises(NotPermittedError, match="another site"):
        auth.authenticate_url(signed(trusted, other), URI, http_method="GET")
    with pytest.raises(NotPermittedError):
        auth.authenticate_url(signed(trusted, site), ArtifactUri.parse("cadc:X"), http_method="GET")


def test_verifying_costs_no_query_once_keys_and_site_are_known(trusted: SigningKey, site: StorageSite) -> None:
    settle_rights()
    auth.authenticate_url(signed(trusted, site), URI, http_method="GET")
    with CaptureQueriesContext(connection) as queries:
        auth.authenticate_url(signed(trusted, site), URI, http_method="GET")
    assert len(queries) == 0


def test_a_key_that_was_fetched_a_moment_ago_is_found(trusted: SigningKey, site: StorageSite) -> None:
    later = SigningKey.generate("k2")
    url = signed(later, site)
    with pytest.raises(NotPermittedError, match="not trusted"):
        auth.authenticate_url(url, URI, http_method="GET")
    keys.replace_trusted_keys(
        remote=RemoteInventory.objects.get(), keys={"k2": later.public_bytes}, now=datetime.now(UTC)
    )

    def is_known() -> bool:
        with contextlib.suppress(NotPermittedError):
            return auth.authenticate_url(url, URI, http_method="GET").name == "alice"
        return False

    wait_until(is_known, 2, "the new key is not found before the cache ends")


def test_legacy_tokens_are_accepted_only_where_the_setting_allows_them(trusted: SigningKey, settings: Settings) -> None:
    token = legacy_token(f"uri={URI}&gnt=WriteGrant&sub=bob")
    settings.INVENTORY_LEGACY_PUBLIC_KEYS = [der(legacy_key()).hex()]
    with pytest.raises(NotPermittedError):
        auth.authenticate_url(token, URI, http_method="GET")
    settings.INVENTORY_LEGACY_TOKENS = True
    assert auth.authenticate_url(token, URI, http_method="PUT").name == "bob"
    settings.INVENTORY_LEGACY_PUBLIC_KEYS = []
    with pytest.raises(NotPermittedError):
        auth.authenticate_url(token, URI, http_method="GET")


# --- grants


@pytest.mark.parametrize(
    ("method", "grant"),
    [("GET", Grant.READ), ("HEAD", Grant.READ), ("PUT", Grant.WRITE), ("POST", Grant.WRITE), ("DELETE", Grant.DELETE)],
)
def test_each_method_needs_its_grant(method: str, grant: Grant) -> None:
    assert grant_for(method) is grant


def test_anonymous_callers_are_asked_to_sign_in_and_others_are_refused(inventory: InventoryIdentity) -> None:
    known, unknown = Caller("a", "api-token", frozenset()), Caller(ANONYMOUS, ANONYMOUS, frozenset())
    for caller, error in ((known, NotPermittedError), (unknown, NotAuthenticatedError)):
        with pytest.raises(error, match="'write'"):
            require(caller, Grant.WRITE)
        with pytest.raises(error, match="'write'"):
            require_any(caller, [Grant.WRITE])
    writer = Caller("a", "api-token", frozenset({Grant.WRITE}))
    require(writer, Grant.WRITE)
    require_any(writer, [Grant.READ, Grant.WRITE])
