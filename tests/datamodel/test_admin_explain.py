"""The operator's door to reasons: the form answers as the API does, to those who may ask, and shows what a token may do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from datamodel import access, auth, tokens
from datamodel.grants import Grant, Role
from datamodel.models import ApiToken, InventoryIdentity
from datamodel.tokens import TokenLimits

PAGE = "/admin/datamodel/namespacegrant/explain/"
NOW = datetime.now(UTC)
HOSTILE = "user:<script>alert(1)</script>"


@pytest.fixture
def auditor(client: Client, inventory: InventoryIdentity) -> Client:
    access.assign_role(principal="user:eve", role=Role.AUDITOR)
    access.save_grant(prefix="cadc:A/", allowed={Grant.READ: ["token:t"], Grant.WRITE: [HOSTILE]})
    access.save_grant(prefix="cadc:A/P/", replaces=True)
    access.save_grant(prefix="cadc:B/", allowed={Grant.READ: ["token:other"]})
    client.force_login(get_user_model().objects.create_user("eve", is_staff=True))
    return client


def test_the_list_of_grants_leads_to_the_form(auditor: Client) -> None:
    assert f'href="{PAGE}"' in auditor.get("/admin/datamodel/namespacegrant/").content.decode()
    page = auditor.get(PAGE).content.decode()
    assert "anonymous</textarea>" in page
    assert "may NOT" not in page


def test_the_form_answers_with_reasons_and_escapes_them(auditor: Client) -> None:
    query = {"caller": HOSTILE, "operation": "read", "uri": "cadc:A/x"}
    page = auditor.get(PAGE, query).content.decode()
    assert "may read cadc:A/x" in page
    assert "the grant of cadc:A/ gives it to user:&lt;script&gt;" in page
    assert "<script>alert" not in page
    refused = auditor.get(PAGE, {**query, "caller": "user:bob\r\ngroup:x"}).content.decode()
    assert "*, group:x, user:bob may NOT read cadc:A/x" in refused


@pytest.mark.parametrize("wrong", [{"caller": "bob"}, {"uri": "nonsense"}, {"operation": "operate"}, {"uri": ""}])
def test_a_wrong_question_is_told_what_is_wrong(auditor: Client, wrong: dict[str, str]) -> None:
    response = auditor.get(PAGE, {"caller": "anonymous", "operation": "read", "uri": "cadc:A/x", **wrong})
    assert response.status_code == 200
    assert "errorlist" in response.content.decode()


def test_only_those_who_may_ask_get_an_answer(auditor: Client, client: Client) -> None:
    access.withdraw_role(principal="user:eve", role=Role.AUDITOR)
    assert auditor.get(PAGE, {"caller": "anonymous", "uri": "cadc:A/x"}).status_code == 403
    assert Client().get(PAGE).status_code == 302


def test_a_tokens_page_tells_what_it_may_do_and_from_where(auditor: Client) -> None:
    limits = TokenLimits.parse(["cadc:A/", "cadc:C/"], [])
    auth.create_api_token(name="t", grants=frozenset({Grant.DELETE}), now=NOW, limits=limits)
    token = ApiToken.objects.get()
    page = auditor.get(reverse("admin:datamodel_apitoken_change", args=[token.pk])).content.decode()
    assert f'href="{PAGE}?caller=token%3At"' in page
    rows = {row.partition("</td>")[0]: row for row in page.split("<tr><td>")[1:]}
    assert "<td>cadc:A/<br>except cadc:A/P/<br></td>" in rows["read"]
    assert "the grant of cadc:A/ to token:t" in rows["read"]
    assert "<td>cadc:A/<br>cadc:C/<br></td>" in rows["delete"]
    assert "the token itself" in rows["delete"]
    assert "cadc" not in rows["write"]


@pytest.mark.parametrize("over", ["expired", "was revoked"])
def test_a_token_that_is_over_may_nothing_on_its_page_in_the_list_and_in_answers(auditor: Client, over: str) -> None:
    auth.create_api_token(name="t", grants=frozenset({Grant.READ}), now=NOW)
    token = ApiToken.objects.get()
    place, listed = reverse("admin:datamodel_apitoken_change", args=[token.pk]), "/admin/datamodel/apitoken/"
    asked = {"caller": "token:t", "operation": "read", "uri": "cadc:A/x"}
    assert "the token itself" in auditor.get(place).content.decode()
    assert 'alt="True"' in auditor.get(listed).content.decode()
    assert "may read cadc:A/x" in auditor.get(PAGE, asked).content.decode()
    if over == "expired":
        # Not a moment later than it opens nothing: it may not be used when it ends, either.
        ApiToken.objects.update(expires_at=NOW)
    else:
        tokens.revoke_api_tokens(tokens=ApiToken.objects.all(), now=NOW)
    page = auditor.get(place).content.decode()
    assert f"Nothing: it {over} {NOW:%Y-%m-%d %H:%M} UTC" in page
    assert "the token itself" not in page
    assert "the grant of" not in page
    assert 'alt="False"' in auditor.get(listed).content.decode()
    answer = auditor.get(PAGE, asked).content.decode()
    assert f"the token t {over}" in answer
    assert "may read" not in answer
