"""Why somebody may or may not: the verdict is the decision, and each source of rights is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import CommandError
from django.test import Client

from datamodel import access, auth
from datamodel.grants import Grant, Role
from datamodel.models import InventoryIdentity
from datamodel.tokens import TokenLimits
from tests import peers
from tests.datamodel.test_commands import run


@pytest.fixture
def auditor(inventory: InventoryIdentity) -> Client:
    access.save_grant(prefix="cadc:", anonymous_read=True, allowed={Grant.WRITE: ["group:astro"]})
    access.save_grant(prefix="cadc:P/", replaces=True, allowed={Grant.READ: ["token:t"]})
    token = auth.create_api_token(name="a", grants=frozenset({Grant.AUDIT}), now=datetime.now(UTC))
    limits = TokenLimits.parse(["cadc:P/"], [])
    auth.create_api_token(name="t", grants=frozenset({Grant.DELETE}), now=datetime.now(UTC), limits=limits)
    peers.paired("omega", role="global")
    user = get_user_model().objects.create_user("alice")
    user.groups.add(Group.objects.create(name="astro"))
    return Client(headers={"authorization": f"Bearer {token}"})


@pytest.mark.parametrize(
    ("caller", "operation", "uri", "permitted", "because"),
    [
        ("anonymous", "read", "cadc:x", True, "the grant of cadc: gives it to anyone"),
        ("anonymous", "read", "cadc:P/x", False, "it replaces those of shorter prefixes"),
        ("user:alice", "write", "cadc:x", True, "the grant of cadc: gives it to group:astro"),
        ("user:bob", "write", "cadc:x", False, "the grant of cadc: gives it to none of the caller"),
        ("token:t", "read", "cadc:P/x", True, "gives it to token:t"),
        ("token:t", "delete", "cadc:P/x", True, "the credential itself has the right"),
        ("token:t", "delete", "cadc:x", False, "the limits of the credential do not reach this far"),
        ("user:op", "delete", "cadc:x", True, "the role archive-operator has the right"),
        ("inventory:omega", "harvest", "other:x", True, "the credential itself has the right"),
        ("inventory:omega", "write", "cadc:x", False, "the credential itself has not the right"),
        ("user:bob", "harvest", "other:x", False, "no grant of a namespace speaks of it"),
    ],
)
def test_the_verdict_and_its_reason(
    auditor: Client, caller: str, operation: str, uri: str, permitted: bool, because: str
) -> None:
    access.assign_role(principal="user:op", role=Role.ARCHIVE_OPERATOR)
    query = {"caller": caller, "operation": operation, "uri": uri}
    answer = auditor.get("/permissions/explain", query).json()
    assert answer["permitted"] is permitted
    assert because in "; ".join(answer["because"])


def test_principals_of_one_caller_add_up(auditor: Client) -> None:
    query = {"caller": ["user:iam:x", "group:astro"], "operation": "write", "uri": "cadc:x"}
    assert auditor.get("/permissions/explain", query).json()["permitted"] is True


@pytest.mark.parametrize(
    "query",
    [
        {"caller": "alice", "uri": "cadc:x"},
        {"caller": "token:none", "uri": "cadc:x"},
        {"uri": "cadc:x"},
        {"caller": "anonymous"},
        {"caller": "anonymous", "uri": "cadc:x", "operation": "operate"},
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(auditor: Client, query: dict[str, str]) -> None:
    assert auditor.get("/permissions/explain", query).status_code == 400


def test_only_auditors_and_operators_may_ask(auditor: Client) -> None:
    query = {"caller": "anonymous", "uri": "cadc:x"}
    reader = auth.create_api_token(name="r", grants=frozenset({Grant.READ}), now=datetime.now(UTC))
    assert Client().get("/permissions/explain", query).status_code == 401
    asked = Client(headers={"authorization": f"Bearer {reader}"}).get("/permissions/explain", query)
    assert asked.status_code == 403


def test_the_command_gives_the_same_answer(auditor: Client) -> None:
    query = {"caller": ["user:iam:x", "group:astro"], "operation": "write", "uri": "cadc:x"}
    answer = auditor.get("/permissions/explain", query).json()
    asked = ["explain", "--json", "--as", "user:iam:x", "group:astro"]
    assert json.loads(run(*asked, "write", "cadc:x")) == answer
    assert json.loads(run("explain", "PUT", "cadc:x", "--json", "--as", "user:iam:x", "--as", "group:astro")) == answer


def test_the_command_says_it_in_words(auditor: Client) -> None:
    said = run("explain", "get", "cadc:P/x")
    assert said.startswith("anonymous may NOT read cadc:P/x\n  - the credential itself has not the right")
    assert run("explain", "--as", "user:bob", "read", "cadc:x").startswith("*, user:bob may read cadc:x")


@pytest.mark.parametrize("argv", [[], ["read"], ["brew", "cadc:x"], ["read", "x"], ["--as", "bob", "read", "cadc:x"]])
def test_the_command_refuses_a_wrong_question(inventory: InventoryIdentity, argv: list[str]) -> None:
    with pytest.raises(CommandError):
        run("explain", *argv)
