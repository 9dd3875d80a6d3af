"""The policy's doors: REST, admin, provision."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from pytest_django import Settings

from datamodel import auth
from datamodel.errors import NotConfiguredError
from datamodel.models import Artifact
from datamodel.permissions import Grant
from site_service.policy.models import SyncPolicy
from site_service.policy.provision import apply_configured_policy, configured_rules
from tests.site_service.policy.conftest import Know

pytestmark = pytest.mark.usefixtures("inventory")


def client_with(*grants: Grant) -> Client:
    token = auth.create_api_token(name="tester", grants=frozenset(grants), now=datetime.now(UTC))
    return Client(headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def operator() -> Client:
    return client_with(Grant.OPERATE)


def test_an_operator_sets_lists_and_removes_rules(operator: Client) -> None:
    body = {"namespace": "cadc:", "wanted": True, "priority": 2}
    answer = operator.put("/policy", json.dumps(body), content_type="application/json")
    assert answer.status_code == 200
    assert answer.json() == {"changed": True, "widened": ["cadc:"], "narrowed": [], "dropped": 0}
    assert operator.get("/policy").json() == {"rules": [{**body, "note": ""}]}
    assert operator.delete("/policy?namespace=cadc:").json()["narrowed"] == ["cadc:"]
    assert operator.get("/policy").json() == {"rules": []}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("put", "/policy", {"namespace": "cadc", "wanted": True}),
        ("put", "/policy", {"wanted": True}),
        ("put", "/policy", {"namespace": "cadc:", "wanted": "perhaps"}),
        ("put", "/policy", {"namespace": "cadc:", "priority": 2**31}),
        ("delete", "/policy", None),
        ("delete", "/policy?namespace=cadc", None),
    ],
)
def test_a_malformed_rule_is_refused(operator: Client, method: str, path: str, body: object) -> None:
    answer = operator.generic(method.upper(), path, json.dumps(body), content_type="application/json")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert not SyncPolicy.objects.exists()


@pytest.mark.parametrize(("grants", "status"), [((), 403), ((Grant.READ, Grant.WRITE), 403)])
def test_others_may_not_even_look(grants: tuple[Grant, ...], status: int) -> None:
    assert client_with(*grants).get("/policy").status_code == status
    assert Client().get("/policy").status_code == 401


def test_provision_applies_the_configured_policy(settings: Settings) -> None:
    settings.INVENTORY_SYNC_POLICY = json.dumps([{"namespace": "cadc:"}, {"namespace": "cadc:A/", "wanted": False}])
    apply_configured_policy()
    apply_configured_policy()
    assert [str(rule) for rule in SyncPolicy.objects.all()] == ["cadc:", "not cadc:A/"]


@pytest.mark.parametrize(
    "text",
    ["{", "{}x", "[1]", '[{"wanted": true}]', '[{"namespace": "cadc"}]', '[{"namespace": "cadc:", "wanted": "no"}]',
     '[{"namespace": "cadc:", "else": 1}]', '[{"namespace": "cadc:"}, {"namespace": "cadc:"}]', "3"],
)  # fmt: skip
def test_a_configured_policy_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(NotConfiguredError, match="INVENTORY_SYNC_POLICY"):
        configured_rules(text)


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser(username="root", email="", password="x"))
    return client


FORM = {"namespace": "cadc:", "priority": "0", "note": ""}


def test_the_admin_counts_a_change_before_it_is_confirmed(admin: Client, know: Know) -> None:
    know("cadc:A/f")
    asked = admin.post("/admin/policy/syncpolicy/add/", {**FORM, "wanted": "on"})
    assert asked.status_code == 200
    assert "to be pulled now: 1 artifacts" in asked.content.decode()
    assert not SyncPolicy.objects.exists()
    assert admin.post("/admin/policy/syncpolicy/add/", {**FORM, "wanted": "on", "confirm": "on"}).status_code == 302
    rule = SyncPolicy.objects.get()
    change = f"/admin/policy/syncpolicy/{rule.pk}/change/"
    asked = admin.post(change, FORM)
    assert "1 unstored artifacts are dropped" in asked.content.decode()
    assert admin.post(change, {**FORM, "confirm": "on"}).status_code == 302
    assert not SyncPolicy.objects.get().wanted
    assert not Artifact.objects.exists()


def test_the_admin_saves_what_changes_nothing_at_once_and_refuses_nonsense(admin: Client) -> None:
    assert admin.post("/admin/policy/syncpolicy/add/", FORM).status_code == 302
    assert admin.post("/admin/policy/syncpolicy/add/", {**FORM, "namespace": "cadc"}).status_code == 200
    assert SyncPolicy.objects.count() == 1


def test_the_admin_removes_rules_like_every_other_door(admin: Client, know: Know) -> None:
    admin.post("/admin/policy/syncpolicy/add/", {**FORM, "wanted": "on", "confirm": "on"})
    know("cadc:A/f")
    rule = SyncPolicy.objects.get()
    admin.post("/admin/policy/syncpolicy/", {"action": "delete_selected", "_selected_action": rule.pk, "post": "yes"})
    assert not SyncPolicy.objects.exists()
    assert not Artifact.objects.exists()
