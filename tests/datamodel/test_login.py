"""Signing in to the admin at a provider: by a real one on loopback, into no other user's place, and to no other page."""

from __future__ import annotations

import html
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
from allauth.socialaccount.models import SocialAccount
from cryptography import x509
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models.signals import post_save
from django.test import Client
from pytest_django import Settings

from datamodel import access, issuers
from datamodel.audit.models import AuditEntry
from datamodel.audit.pending import pending
from datamodel.grants import Role
from datamodel.login import provider
from datamodel.login.rules import merged, person_of
from datamodel.models import InventoryIdentity
from tests.fakes.authority import certificate
from tests.fakes.issuer import FakeIssuer, serve_issuer

User = get_user_model()
BEGIN, CALLBACK, LOGIN = "/admin/oidc/login/", "/admin/oidc/callback/", "/admin/login/"


@pytest.fixture(scope="module")
def served() -> Iterator[FakeIssuer]:
    with serve_issuer() as found:
        yield found


@pytest.fixture
def issuer(served: FakeIssuer, settings: Settings, inventory: InventoryIdentity) -> FakeIssuer:
    settings.INVENTORY_LOGIN_ISSUER = served.url
    settings.INVENTORY_OIDC_PRIVATE = True
    settings.INVENTORY_PUBLIC_URL = "http://testserver"
    served.person, served.info = {"sub": "s-1", "groups": ["operators", "astro"]}, None
    served.codes, served.wrong, served.answers, served.dripping = {}, {}, {}, {}
    provider._keys_of.cache_clear()
    return served


def leave(client: Client, **form: str) -> str:
    """Where the button leads."""
    page = client.post(BEGIN, form)
    assert page.status_code == 200, page.headers
    (url,) = re.findall(r'id="leave" href="([^"]+)"', page.content.decode())
    assert f'http-equiv="refresh" content="0; url={url}"' in page.content.decode()
    return html.unescape(url)


def agree(url: str) -> str:
    """What the provider sends the browser back with."""
    answer = urllib3.request("GET", url, redirect=False)
    assert answer.status == 302
    back = urlsplit(answer.headers["Location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == f"http://testserver{CALLBACK}"
    return f"{back.path}?{back.query}"


def sign_in(client: Client, **form: str) -> Any:
    return client.get(agree(leave(client, **form)))


def is_in(client: Client) -> bool:
    return client.get("/admin/").status_code == 200


def said(client: Client) -> str:
    return client.get(LOGIN).content.decode()


def test_who_signs_in_is_a_user_with_the_providers_groups_and_their_roles(issuer: FakeIssuer, client: Client) -> None:
    access.assign_role(principal="group:sso-operators", role=Role.AUDITOR)
    assert "Sign in with single sign-on" in said(client)
    answer = sign_in(client)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    assert is_in(client)
    user = User.objects.get()
    assert (user.username, user.is_staff, user.is_superuser, user.email) == ("sso-s-1", True, False, "")
    assert not user.has_usable_password()
    assert set(user.groups.values_list("name", flat=True)) == {"sso-operators", "sso-astro"}
    assert client.get("/admin/datamodel/artifact/").status_code == 200
    assert client.get("/admin/datamodel/apitoken/add/").status_code == 403
    assert client.session.get_expiry_age() <= 8 * 3600


def test_who_comes_again_is_the_same_user_with_the_groups_of_now(issuer: FakeIssuer) -> None:
    sign_in(Client())
    user = User.objects.get()
    user.groups.add(Group.objects.create(name="by hand"))
    issuer.person["groups"] = ["operators", "x" * 200, "a,b", 7]
    again = Client()
    sign_in(again)
    assert is_in(again)
    assert set(User.objects.get().groups.values_list("name", flat=True)) == {"sso-operators", "by hand"}


def test_who_is_in_no_admitted_group_any_more_loses_all_sessions(issuer: FakeIssuer, client: Client) -> None:
    sign_in(client)
    issuer.person["groups"] = ["astro"]
    other = Client()
    assert sign_in(other)["Location"] == LOGIN
    assert "none of the groups that may sign in" in said(other)
    pending.write(everything=True)
    refused = AuditEntry.objects.get(outcome="refused")
    assert (refused.action, refused.reason, refused.address) == ("login", "single_sign_on", "127.0.0.1")
    assert "sso-s-1" in refused.subject
    assert not is_in(other)
    assert not is_in(client)
    assert not User.objects.get().groups.exists()


def test_nobody_gets_a_user_without_an_admitted_group(issuer: FakeIssuer, client: Client, settings: Settings) -> None:
    issuer.person["groups"] = []
    sign_in(client)
    assert not User.objects.exists()
    settings.INVENTORY_LOGIN_GROUPS = ["*"]
    sign_in(client)
    assert is_in(client)


def test_nobody_becomes_a_user_who_was_here_before(issuer: FakeIssuer, client: Client, settings: Settings) -> None:
    User.objects.create_superuser("sso-root")
    issuer.person["preferred_username"] = "root"
    settings.INVENTORY_LOGIN_USER_CLAIM = "preferred_username"
    assert sign_in(client)["Location"] == LOGIN
    assert "somebody else" in said(client)
    assert not is_in(client)
    assert User.objects.count() == 1


def test_a_user_is_made_whole_or_not_at_all(issuer: FakeIssuer, client: Client, settings: Settings) -> None:
    # The link is there already, of a user that is made meanwhile: found only when ours is saved.
    other = User.objects.create_user("other")

    def meanwhile(sender: object, **_: object) -> None:
        SocialAccount.objects.get_or_create(user=other, provider=provider.provider_id(), uid="s-1")

    post_save.connect(meanwhile, sender=User)
    try:
        assert sign_in(client)["Location"] == LOGIN
    finally:
        post_save.disconnect(meanwhile, sender=User)
    assert [user.username for user in User.objects.all()] == ["other"]
    assert not is_in(client)


def test_the_same_subject_of_another_provider_is_somebody_else(
    issuer: FakeIssuer, client: Client, settings: Settings
) -> None:
    sign_in(client)
    with serve_issuer() as other:
        settings.INVENTORY_LOGIN_ISSUER = other.url
        other.person["sub"] = "s-1"
        visitor = Client()
        sign_in(visitor)
        assert not is_in(visitor)


def test_an_inactive_user_stays_out(issuer: FakeIssuer) -> None:
    sign_in(Client())
    User.objects.update(is_active=False)
    client = Client()
    assert sign_in(client)["Location"] == LOGIN
    assert "not active" in said(client)
    assert not is_in(client)


def test_a_session_of_a_user_is_not_linked_to_who_signs_in(issuer: FakeIssuer, client: Client) -> None:
    client.force_login(User.objects.create_superuser("root"))
    sign_in(client, process="connect")
    assert User.objects.get(pk=client.session["_auth_user_id"]).username == "sso-s-1"


# --- the exchange


def test_state_and_proof_key_are_sent_and_the_scopes_that_are_configured(issuer: FakeIssuer, client: Client) -> None:
    asked = parse_qs(urlsplit(leave(client)).query)
    assert asked["redirect_uri"] == [f"http://testserver{CALLBACK}"]
    assert (asked["response_type"], asked["code_challenge_method"]) == (["code"], ["S256"])
    assert set(asked["scope"][0].split()) == {"openid", "profile"}
    assert len(asked["state"][0]) >= 16
    assert len(asked["code_challenge"][0]) == 43
    again = parse_qs(urlsplit(leave(client)).query)
    assert len(asked["nonce"][0]) == len(again["nonce"][0]) == 32
    assert asked["nonce"] != again["nonce"]
    # Of two that were begun in one session, each has its own.
    assert sign_in(client)["Location"] == "/admin/"


def test_a_state_is_good_once_and_in_its_own_session_only(issuer: FakeIssuer, client: Client) -> None:
    back = agree(leave(client))
    thief = Client()
    assert thief.get(back)["Location"] == LOGIN
    assert not is_in(thief)
    assert client.get(back)["Location"] == "/admin/"
    assert client.get(back)["Location"] == LOGIN
    assert client.get(f"{CALLBACK}?code=x&state=made-up")["Location"] == LOGIN


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("for another", {"aud": "other"}),
    ("expired", {"exp": 1_000_000_000}),
    ("of another issuer", {"iss": "https://evil.example"}),
    ("without a subject", {"sub": None}),
    ("for several, of none", {"aud": ["inventory", "other"]}),
    ("of another party", {"azp": "other"}),
    ("for another request", {"nonce": "a" * 32}),
    ("for no request", {"nonce": None}),
    ("with a nonce that is no text", {"nonce": 7}),
    ("with a hostile name", {"sub": "a,b"}),
    ("with a long name", {"sub": "a" * 200}),
]


@pytest.mark.parametrize("wrong", [row[1] for row in WRONG], ids=[row[0] for row in WRONG])
def test_an_id_token_that_is_not_believed_signs_nobody_in(
    issuer: FakeIssuer, client: Client, wrong: dict[str, Any]
) -> None:
    issuer.wrong = wrong
    assert sign_in(client)["Location"] == LOGIN
    assert "did not succeed" in said(client)
    assert not is_in(client)
    assert not User.objects.exists()


def test_an_id_token_of_somebody_elses_sign_in_signs_nobody_in(issuer: FakeIssuer, client: Client) -> None:
    sign_in(Client())
    # What a thief has seen of it, with a code of his own.
    stolen = issuer.token(**issuer.person, nonce="of the victim's request")
    issuer.answers["/token"] = {"access_token": "x", "id_token": stolen}
    issuer.info = {"sub": "s-1", "groups": ["operators"]}
    url = leave(client)
    issuer.info["nonce"] = parse_qs(urlsplit(url).query)["nonce"][0]
    assert client.get(agree(url))["Location"] == LOGIN
    assert not is_in(client)


def test_a_token_for_several_names_us_as_its_party(issuer: FakeIssuer, client: Client) -> None:
    issuer.wrong = {"aud": ["inventory", "other"], "azp": "inventory"}
    assert sign_in(client)["Location"] == "/admin/"


def test_a_signature_by_another_key_signs_nobody_in(issuer: FakeIssuer, client: Client) -> None:
    with serve_issuer() as evil:
        forged = evil.token(iss=issuer.url, groups=["operators"])
    issuer.answers["/token"] = {"access_token": "x", "id_token": forged}
    assert sign_in(client)["Location"] == LOGIN
    assert not is_in(client)


@pytest.mark.parametrize(
    "answer",
    [
        400,
        500,
        {"access_token": "x"},
        {"access_token": "x", "id_token": "nonsense"},
        {"access_token": "x", "id_token": "nonsense", "expires_in": "soon"},
        ["x"],
    ],
)
def test_a_provider_that_answers_nonsense_signs_nobody_in(issuer: FakeIssuer, client: Client, answer: Any) -> None:
    issuer.answers["/token"] = answer
    assert sign_in(client)["Location"] == LOGIN
    assert not is_in(client)


def test_what_a_provider_answers_is_not_in_the_log(
    issuer: FakeIssuer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.answers["/token"] = {"id_token": issuer.token(), "refresh_token": "opaque-secret"}
    sign_in(client)
    reasons = [str(record.__dict__["facts"]) for record in caplog.records if record.levelname == "WARNING"]
    assert len(reasons) == 1
    assert "opaque-secret" not in reasons[0]
    assert issuer.token()[:20] not in reasons[0]


def test_who_declines_comes_back(issuer: FakeIssuer, client: Client) -> None:
    state = parse_qs(urlsplit(leave(client)).query)["state"][0]
    assert client.get(f"{CALLBACK}?error=access_denied&state={state}")["Location"] == LOGIN


@pytest.mark.parametrize(
    "configuration", [404, 500, {}, {"issuer": "https://evil.example"}, {"issuer": True}, ["x"]], ids=str
)
def test_a_provider_that_cannot_be_asked_is_told(issuer: FakeIssuer, client: Client, configuration: Any) -> None:
    issuer.answers["/.well-known/openid-configuration"] = configuration
    assert client.post(BEGIN)["Location"] == LOGIN
    assert "did not succeed" in said(client)


def test_a_provider_without_tls_is_not_asked_unless_that_is_allowed(
    issuer: FakeIssuer, client: Client, settings: Settings
) -> None:
    settings.INVENTORY_OIDC_PRIVATE = False
    assert client.post(BEGIN)["Location"] == LOGIN


@pytest.fixture
def with_tls(issuer: FakeIssuer, settings: Settings, tmp_path: Path) -> Iterator[FakeIssuer]:
    """A provider whose certificate is of a private authority."""
    authority = certificate(tmp_path, "ca", [x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
    certificate(tmp_path, "server", [x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")], authority)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    with serve_issuer(tls) as found:
        settings.INVENTORY_LOGIN_ISSUER = found.url
        settings.INVENTORY_CA_FILE = str(tmp_path / "ca.pem")
        yield found


def agreed(issuer: FakeIssuer, url: str) -> str:
    """As `agree`, without going there."""
    return f"{CALLBACK}?{urlsplit(issuer.authorize(urlsplit(url).query)).query}"


def test_a_private_authority_is_the_one_that_is_configured(
    with_tls: FakeIssuer, client: Client, settings: Settings
) -> None:
    with_tls.info = {"sub": "s-1"}
    assert client.get(agreed(with_tls, leave(client)))["Location"] == "/admin/"
    assert is_in(client)
    asked = len(with_tls.asked)
    settings.INVENTORY_CA_FILE = ""
    assert client.post(BEGIN)["Location"] == LOGIN
    assert len(with_tls.asked) == asked


def test_a_private_address_is_not_called_unless_that_is_allowed(
    with_tls: FakeIssuer, client: Client, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    back = agreed(with_tls, leave(client))
    asked = len(with_tls.asked)
    settings.INVENTORY_OIDC_PRIVATE = False
    assert client.post(BEGIN)["Location"] == LOGIN
    assert client.get(back)["Location"] == LOGIN
    assert len(with_tls.asked) == asked
    reasons = [record.__dict__["facts"]["reason"] for record in caplog.records if record.levelname == "WARNING"]
    assert ["not called from here" in reason for reason in reasons] == [True, True]


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/userinfo"])
@pytest.mark.parametrize("how", ["too large", "too slow", "sends elsewhere"])
def test_a_provider_has_so_long_for_so_much_and_sends_nobody_on(
    issuer: FakeIssuer, client: Client, monkeypatch: pytest.MonkeyPatch, path: str, how: str
) -> None:
    issuer.info = {"sub": "s-1", "groups": ["operators"]}
    back = agree(leave(client))
    if how == "too large":
        issuer.answers[path] = {"access_token": "x" * 600_000}
    elif how == "too slow":
        monkeypatch.setattr(issuers, "FETCH_SECONDS", 0.05)
        issuer.dripping[path] = 0.1
    else:
        issuer.answers[path] = 302
    assert client.get(back)["Location"] == LOGIN
    assert not is_in(client)
    assert "/elsewhere" not in issuer.asked


def test_groups_may_be_told_at_userinfo_but_of_the_same_person_only(issuer: FakeIssuer, client: Client) -> None:
    issuer.person.pop("groups")
    issuer.info = {"sub": "s-2", "groups": ["operators"]}
    assert sign_in(client)["Location"] == LOGIN
    issuer.info = [""]  # type: ignore[assignment]  # nonsense
    assert sign_in(client)["Location"] == LOGIN
    issuer.info = {"sub": "s-1", "groups": ["operators"]}
    assert sign_in(client)["Location"] == "/admin/"
    assert is_in(client)


# --- pages


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/admin/datamodel/artifact/?q=1", "/admin/datamodel/artifact/?q=1"),
        ("https://evil.example/", "/admin/"),
        ("//evil.example/", "/admin/"),
        ("/\\evil.example/", "/admin/"),
        ("javascript:alert(1)", "/admin/"),
        ("http://testserver/admin/", "/admin/"),
        ("", "/admin/"),
    ],
)
def test_who_is_signed_in_comes_to_a_page_of_this_service_only(
    issuer: FakeIssuer, client: Client, wanted: str, place: str
) -> None:
    assert sign_in(client, next=wanted)["Location"] == place


def test_the_button_is_a_form_that_no_other_page_can_send(issuer: FakeIssuer) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(BEGIN).status_code == 403
    assert strict.get(BEGIN)["Location"] == LOGIN
    assert strict.post(CALLBACK).status_code == 403
    page = strict.get(f"{LOGIN}?next=/admin/x/").content.decode()
    assert page.count('name="next" value="/admin/x/"') == 2
    assert "default-src 'self'" in strict.get(LOGIN)["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path", ["signup/", "email/", "password/reset/", "oidc/", "social/connections/", "login/cancelled/"]
)
def test_nothing_else_is_mounted(issuer: FakeIssuer, client: Client, path: str) -> None:
    client.force_login(User.objects.create_superuser("root"))
    for base in ("/admin/", "/accounts/", "/"):
        assert client.get(f"{base}{path}").status_code == 404
    assert "socialaccount" not in client.get("/admin/").content.decode()


# --- rules


def test_names_have_our_prefix() -> None:
    claims = {"sub": "1", "name": "al", "roles": "ops"}
    found = person_of(claims, user_claim="name", groups_claim="roles", prefix="p-", admitted=["ops"])
    assert (found.subject, found.username, found.groups, found.is_admitted) == ("1", "p-al", ("p-ops",), True)
    assert not person_of(claims, user_claim="name", groups_claim="x", prefix="p-", admitted=[]).is_admitted


def test_what_is_signed_counts_more_than_what_is_told() -> None:
    assert merged({"sub": "1", "groups": ["a"]}, {"sub": "1", "groups": ["b"], "x": 1}) == {
        "sub": "1",
        "groups": ["a"],
        "x": 1,
    }
