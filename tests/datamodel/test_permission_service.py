"""A permission service is asked for what no local grant permits: believed for a while, used stale for a bounded time, then closed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.test import Client
from pytest_django import Settings

from datamodel import access, auth, counters, metrics
from datamodel.grants import Grant, Identity, Limits
from datamodel.models import InventoryIdentity
from datamodel.permission_service import memory
from datamodel.permission_service.client import ask
from datamodel.permission_service.memory import PermissionService
from datamodel.permission_service.rules import Operation, Permission, may_matter, parse_permission, rule_of
from datamodel.permissions import ANONYMOUS, Caller, known, may, may_create, reach
from datamodel.processes import wait_until
from datamodel.reach import Reach
from datamodel.uris import ArtifactUri
from tests.datamodel.test_commands import run
from tests.fakes.perms import Entry, FakePermissions, serve_permissions

URI = ArtifactUri.parse("cadc:A/x+y")
GMS = "ivo://cadc.nrc.ca/gms?"
NOBODY = Caller(ANONYMOUS, ANONYMOUS, frozenset())
READ, WRITE = Operation.READ, Operation.WRITE


class Clock:
    """Stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def fake() -> Iterator[FakePermissions]:
    with serve_permissions() as found:
        yield found


@pytest.fixture
def perms(fake: FakePermissions, settings: Settings) -> FakePermissions:
    settings.INVENTORY_PERMISSION_SERVICES = [fake.url]
    settings.INVENTORY_PERMISSION_GROUPS = json.dumps({GMS: "iam:"})
    fake.entries, fake.asked, fake.status, fake.body, fake.grant_seconds = [], [], 200, None, 3600
    fake.entries = [Entry("cadc:A/.*", readers=(f"{GMS}readers", "ivo://x?y"), writers=(f"{GMS}writers",))]
    return fake


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(perms: FakePermissions, clock: Clock) -> PermissionService:
    return PermissionService(perms.url, clock=clock)


def member(*groups: str) -> Caller:
    return Caller("x", "oidc", frozenset(), principals=known(f"group:{group}" for group in groups))


def outcome(service: PermissionService, operation: Operation = READ, uri: str = URI.value) -> tuple[str, bool]:
    """What was said, and whether anybody may."""
    found = service.look(operation, uri)
    return found.outcome, found.permission is not None and not found.permission.is_for_nobody


# --- what it says


@pytest.mark.parametrize(
    ("caller", "permitted"),
    [
        (member("iam:readers"), {Grant.READ}),
        (member("ivo://x?y"), {Grant.READ}),
        (member("iam:writers"), {Grant.READ, Grant.WRITE, Grant.DELETE}),
        (member("readers"), set()),
        (NOBODY, set()),
    ],
)
def test_groups_have_what_it_gives_and_nothing_else(
    perms: FakePermissions, inventory: InventoryIdentity, caller: Caller, permitted: set[Grant]
) -> None:
    assert {grant for grant in Grant if may(caller, grant, URI)} == permitted
    assert not may(caller, Grant.READ)
    assert not reach(caller, Grant.READ)


def test_anyone_reads_what_is_open_to_anyone(perms: FakePermissions, inventory: InventoryIdentity) -> None:
    perms.entries = [Entry("cadc:A/.*", anonymous=True)]
    assert may(NOBODY, Grant.READ, URI)
    assert not may(member("a"), Grant.WRITE, URI)


def test_an_anonymous_caller_is_not_asked_for_when_it_writes(
    perms: FakePermissions, inventory: InventoryIdentity
) -> None:
    assert not may(NOBODY, Grant.WRITE, URI)
    assert not may(member("iam:writers"), Grant.HARVEST, URI)
    assert perms.asked == []


def test_local_grants_never_need_it(perms: FakePermissions, inventory: InventoryIdentity) -> None:
    access.save_grant(prefix="cadc:", anonymous_read=True)
    assert may(NOBODY, Grant.READ, URI)
    assert perms.asked == []


def test_limits_of_a_credential_stay(perms: FakePermissions, inventory: InventoryIdentity) -> None:
    identity = Identity(known(["group:iam:writers"]), limits=Limits.within(["cadc:B/"]))
    assert not may_matter(identity, Grant.WRITE, URI.value)
    elsewhere = Caller("x", "oidc", frozenset(), principals=identity.principals, limits=identity.limits)
    assert not may(elsewhere, Grant.WRITE, URI)
    assert perms.asked == []
    creating = Limits((), creates=Reach.of_prefixes(["cadc:A/"]))
    assert may_create(Caller("x", "oidc", frozenset(), principals=identity.principals, limits=creating), URI)


def test_one_of_several_services_is_enough(
    perms: FakePermissions, inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_PERMISSION_SERVICES = ["http://127.0.0.1:1/perms", perms.url]
    assert may(member("iam:readers"), Grant.READ, URI)


ANSWER = b'<grant type="ReadGrant"><assetID>cadc:A</assetID>%s</grant>'


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (b"", "no XML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><grant type="ReadGrant"><assetID>&a;</assetID></grant>', "no XML"),
        (b"<denied/>", "no ReadGrant"),
        (b'<grant type="WriteGrant"><assetID>cadc:A</assetID></grant>', "no ReadGrant"),
        (b'<grant type="ReadGrant"><assetID>cadc:B</assetID></grant>', "something else"),
        (ANSWER % b"<expiryDate>soon</expiryDate>", "isoformat"),
    ],
)
def test_what_is_no_answer_is_none(body: bytes, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse_permission(body, READ, "cadc:A")


def test_an_answer_is_a_rule_for_its_uri() -> None:
    found = parse_permission(ANSWER % b"<anonymousRead/><groups><groupURI> g?a </groupURI></groups>", READ, "cadc:A")
    assert found == Permission(anyone=True, groups=frozenset({"g?a"}))
    rule = rule_of(found, READ, "cadc:A", {"g": "no:", "g?": "yes:"})
    assert (rule.prefix, rule.anonymous_read, rule.allowed) == (
        "cadc:A",
        True,
        {Grant.READ: frozenset({"group:yes:a"})},
    )
    assert (
        parse_permission((ANSWER % b"<anonymousRead/>").replace(b"Read", b"Write", 1), WRITE, "cadc:A") == Permission()
    )


# --- how long


def test_a_revocation_is_known_after_the_fresh_time(
    service: PermissionService, perms: FakePermissions, clock: Clock, settings: Settings
) -> None:
    settings.INVENTORY_PERMISSION_FRESH_SECONDS = 60
    assert outcome(service) == ("asked", True)
    perms.entries = []
    clock.now += 59.9
    assert outcome(service) == ("fresh", True)
    assert perms.asked == [("read", URI.value)]
    clock.now += 0.1
    assert outcome(service) == ("asked", False)
    clock.now += 59.9
    assert outcome(service) == ("fresh", False)
    assert len(perms.asked) == 2


def test_what_it_lets_expire_sooner_is_asked_sooner(
    service: PermissionService, perms: FakePermissions, clock: Clock
) -> None:
    perms.grant_seconds = 10
    assert outcome(service)[0] == "asked"
    clock.now += 11
    assert outcome(service)[0] == "asked"
    perms.grant_seconds = -3600
    clock.now += 11
    assert outcome(service)[0] == "asked"
    assert outcome(service)[0] == "fresh"


@pytest.mark.parametrize(("operation", "bound"), [(READ, 3600), (WRITE, 300)])
def test_while_it_is_down_an_answer_is_used_up_to_the_bound_of_its_operation_then_closed(
    service: PermissionService, perms: FakePermissions, clock: Clock, operation: Operation, bound: int
) -> None:
    assert outcome(service, operation) == ("asked", True)
    service.url = "http://127.0.0.1:1/perms"
    clock.now += bound
    assert outcome(service, operation) == ("stale", True)
    clock.now += 1
    assert outcome(service, operation) == ("closed", False)
    assert not service.is_up
    service.url = perms.url
    clock.now += 5
    assert outcome(service, operation) == ("asked", True)
    assert service.is_up


# --- what it costs


def test_a_dead_service_costs_one_question_in_five_seconds(
    service: PermissionService, perms: FakePermissions, clock: Clock, settings: Settings
) -> None:
    settings.INVENTORY_PERMISSION_TIMEOUT_SECONDS = 0.1
    perms.gate.clear()
    try:
        started = time.monotonic()
        assert outcome(service) == ("closed", False)
        assert time.monotonic() - started < 1
        for number in range(50):
            assert outcome(service, uri=f"cadc:{number}") == ("closed", False)
        assert len(perms.asked) == 1
        clock.now += 5
        assert outcome(service, uri="cadc:again") == ("closed", False)
        assert outcome(service, uri="cadc:more") == ("closed", False)
        assert len(perms.asked) == 2
    finally:
        perms.gate.set()


def test_a_uri_that_it_makes_nonsense_of_closes_no_other(
    service: PermissionService, perms: FakePermissions, clock: Clock
) -> None:
    perms.status = 500
    assert outcome(service) == ("closed", False)
    assert outcome(service) == ("closed", False)
    assert len(perms.asked) == 1
    perms.status = 200
    assert outcome(service, uri="cadc:A/other") == ("asked", True)
    clock.now += 5
    assert outcome(service) == ("asked", True)


@pytest.mark.parametrize("status", [302, 401, 403, 503])
def test_only_an_answer_is_an_answer(service: PermissionService, perms: FakePermissions, status: int) -> None:
    perms.status = status
    assert outcome(service) == ("closed", False)
    assert f"answered {status}" in service.look(READ, URI.value).reason


@pytest.mark.parametrize("status", [400, 404])
def test_that_nothing_is_known_is_an_answer_and_remembered(
    service: PermissionService, perms: FakePermissions, status: int
) -> None:
    perms.status = status
    assert outcome(service) == ("asked", False)
    assert outcome(service) == ("fresh", False)


def test_many_who_ask_the_same_at_once_ask_once(service: PermissionService, perms: FakePermissions) -> None:
    perms.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(outcome, service) for _ in range(8)]
        wait_until(lambda: bool(perms.asked), 5, "nobody asks")
        perms.gate.set()
        assert {found.result()[1] for found in asking} == {True}
    assert len(perms.asked) == 1


def test_made_up_names_do_not_push_out_what_is_permitted(perms: FakePermissions, clock: Clock) -> None:
    small = PermissionService(perms.url, clock=clock, most=3)
    assert outcome(small) == ("asked", True)
    for number in range(5):
        assert outcome(small, uri=f"cadc:B/{number}") == ("asked", False)
    assert outcome(small) == ("fresh", True)
    clock.now += 7
    assert small.standing() == (4, 7)


def test_a_certificate_that_cannot_be_read_closes(service: PermissionService, settings: Settings) -> None:
    settings.INVENTORY_PERMISSION_CERTIFICATE = "/nowhere.pem"
    service.url = service.url.replace("http:", "https:")
    assert outcome(service) == ("closed", False)


def test_names_reach_it_as_they_are(perms: FakePermissions) -> None:
    ask(perms.url, READ, "cadc:A/a+b&c=%20~%C3%A9")
    assert perms.asked == [("read", "cadc:A/a+b&c=%20~%C3%A9")]


# --- at the doors


def test_a_file_door_asks_and_explains(perms: FakePermissions, inventory: InventoryIdentity) -> None:
    secret = auth.create_api_token(name="t", grants=frozenset(), now=datetime.now(UTC))
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    assert client.get(f"/files/{URI}").status_code == 403
    assert Client().get(f"/files/{URI}").status_code == 401
    perms.entries = [Entry("cadc:A/.*", anonymous=True)]
    memory.forget()
    assert Client().get(f"/files/{URI}").status_code == 404
    auditor = auth.create_api_token(name="a", grants=frozenset({Grant.AUDIT}), now=datetime.now(UTC))
    asked = Client(headers={"Authorization": f"Bearer {auditor}"})
    answer = asked.get("/permissions/explain", {"caller": "anonymous", "uri": URI.value}).json()
    assert answer["permitted"] is True
    assert answer["because"][-1] == f"the permission service {perms.url} gives it to anyone (cached 0 seconds ago)"
    assert "asked now" in run("explain", "--as", "group:iam:readers", "write", URI.value)
    memory.forget()
    perms.status = 500
    closed = asked.get("/permissions/explain", {"caller": "anonymous", "uri": URI.value}).json()
    assert (closed["permitted"], closed["because"][-1].endswith(": closed")) == (False, True)


def test_what_is_not_known_is_refused_with_a_reason_that_tells_nothing_of_the_service(
    perms: FakePermissions, inventory: InventoryIdentity
) -> None:
    perms.status = 500
    response = Client().get(f"/files/{URI}")
    assert (response.status_code, response.json()["code"]) == (403, "permission_unknown")
    assert "127.0.0.1" not in response.content.decode()
    assert response.json()["retryable"] is True


def asked(perms: FakePermissions, outcome: str) -> float:
    labels = {"service": perms.url, "operation": "read", "outcome": outcome}
    return counters.registry.get_sample_value("inventory_permission_questions_total", labels) or 0.0


def test_what_it_costs_and_how_old_answers_are_is_measured(
    perms: FakePermissions, inventory: InventoryIdentity
) -> None:
    before = {name: asked(perms, name) for name in ("asked", "fresh")}
    for _ in range(2):
        assert may(member("iam:readers"), Grant.READ, URI)
    text = metrics.exposition("text/plain")[0].decode()
    labels = f'{{service="{perms.url}"'
    assert f"inventory_permission_service_up{labels}}} 1.0" in text
    assert f"inventory_permission_remembered{labels}}} 1.0" in text
    assert f"inventory_permission_age_seconds{labels}}}" in text
    assert {name: asked(perms, name) - count for name, count in before.items()} == {"asked": 1, "fresh": 1}
    assert f'outcome="fresh",service="{perms.url}"}}' in text


def test_without_a_service_nobody_is_asked(inventory: InventoryIdentity) -> None:
    assert memory.services() == ()
    assert not may(member("iam:readers"), Grant.READ, URI)
