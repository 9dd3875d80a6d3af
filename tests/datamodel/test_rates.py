"""Rate limits: who is counted, what is answered, and that nobody is refused without Redis."""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from unittest.mock import ANY

import pytest
from django.contrib.auth.models import User
from django.test import Client
from prometheus_client import Counter
from pytest_django import Settings

from datamodel import env, rates
from datamodel.auth import create_api_token
from datamodel.embedded import EmbeddedServers
from datamodel.env import Rate
from datamodel.errors import NotConfiguredError
from datamodel.models import InventoryIdentity
from datamodel.permissions import Grant
from datamodel.rates import Bucket


@pytest.fixture(autouse=True)
def _fresh(servers: EmbeddedServers, settings: Settings) -> Iterator[None]:
    """Buckets of this test alone."""
    del servers
    settings.INVENTORY_NAME = f"test-{time.monotonic_ns()}"
    settings.INVENTORY_RATE_FAILED = None
    rates.forget()
    yield
    rates.forget()


def reader(name: str = "reader", *grants: Grant) -> Client:
    token = create_api_token(name=name, grants=frozenset(grants or {Grant.READ}), now=datetime.now(UTC))
    return Client(headers={"authorization": f"Bearer {token}"})


def value(counter: Counter, **labels: str) -> float:
    samples = (sample for metric in counter.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.labels == labels and sample.name.endswith("_total"))


def test_a_caller_beyond_its_budget_is_told_when_to_come_back(inventory: InventoryIdentity, settings: Settings) -> None:
    settings.INVENTORY_RATE_PER_CALLER = Rate(3, 60)
    client, other = reader(), reader("other")
    refused = value(rates.refused, budget="caller")
    for left in (2, 1, 0):
        answer = client.get("/artifacts")
        assert answer.status_code == 200
        assert answer["RateLimit-Policy"] == '"caller";q=3;w=60'
        assert re.fullmatch(rf'"caller";r={left};t=\d+', answer["RateLimit"])
    answer = client.get("/artifacts")
    assert answer.status_code == 429
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": ANY, "code": "too_many_requests",
        "retryable": True, "retry_after": int(answer["Retry-After"]),
    }  # fmt: skip
    assert 1 <= int(answer["Retry-After"]) <= 20
    assert answer["RateLimit"].startswith('"caller";r=0;t=')
    assert value(rates.refused, budget="caller") == refused + 1
    assert other.get("/artifacts").status_code == 200


def test_what_was_used_comes_back_one_by_one(inventory: InventoryIdentity, settings: Settings) -> None:
    settings.INVENTORY_RATE_PER_CALLER = Rate(2, 1)
    client = reader()
    assert [client.get("/artifacts").status_code for _ in range(3)] == [200, 200, 429]
    deadline = time.monotonic() + 5
    while client.get("/artifacts").status_code == 429:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_address_has_a_budget_for_all_its_callers(inventory: InventoryIdentity, settings: Settings) -> None:
    settings.INVENTORY_RATE_PER_ADDRESS = Rate(2, 60)
    settings.INVENTORY_RATE_PER_CALLER = Rate(100, 60)
    first, second = reader(), reader("second")
    assert [first.get("/artifacts").status_code, second.get("/artifacts").status_code] == [200, 200]
    answer = first.get("/artifacts")
    assert answer.status_code == 429
    # What was refused by one budget is charged to none.
    assert re.fullmatch(r'"address";r=0;t=\d+, "caller";r=99;t=1', answer["RateLimit"])
    assert first.get("/artifacts", REMOTE_ADDR="192.0.2.1").status_code == 200
    assert Client().get("/artifacts").status_code == 429


@pytest.mark.parametrize("grant", [Grant.HARVEST, Grant.OPERATE])
def test_peers_and_operators_are_not_counted(inventory: InventoryIdentity, settings: Settings, grant: Grant) -> None:
    settings.INVENTORY_RATE_PER_CALLER = settings.INVENTORY_RATE_PER_ADDRESS = Rate(1, 60)
    client = reader("trusted", Grant.READ, grant)
    assert [client.get("/artifacts").status_code for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("path", ["/livez", "/pubkey", "/capabilities", "/admin/login/"])
def test_probes_and_pages_are_not_counted(inventory: InventoryIdentity, settings: Settings, path: str) -> None:
    settings.INVENTORY_RATE_PER_ADDRESS = Rate(1, 60)
    assert [Client().get(path).status_code for _ in range(3)] == [200, 200, 200]


def test_wrong_credentials_are_slowed_down_and_good_ones_from_the_same_address_are_not(
    inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_RATE_FAILED = Rate(2, 60)
    good, wrong = reader(), Client(headers={"authorization": "Bearer wrong"})
    assert [wrong.get("/artifacts").status_code for _ in range(3)] == [401, 401, 429]
    forged = wrong.get("/files/1.k.payloadpayloadpayload.signature/cadc:A/b")
    assert (forged.status_code, forged.json()["code"]) == (429, "too_many_requests")
    assert good.get("/artifacts").status_code == 200
    assert Client().get("/artifacts").status_code == 401
    assert wrong.get("/artifacts", REMOTE_ADDR="192.0.2.1").status_code == 401


def test_no_password_is_looked_at_after_too_many_wrong_ones(inventory: InventoryIdentity, settings: Settings) -> None:
    settings.INVENTORY_RATE_FAILED = Rate(2, 60)
    User.objects.create_superuser("admin", password="right")
    client = Client()
    attempts = [client.post("/admin/login/", {"username": "admin", "password": "wrong"}) for _ in range(3)]
    assert [attempt.status_code for attempt in attempts] == [200, 200, 429]
    right = {"username": "admin", "password": "right"}
    assert client.post("/admin/login/", right).status_code == 429
    assert client.get("/admin/login/").status_code == 200
    elsewhere = client.post("/admin/login/", right, REMOTE_ADDR="192.0.2.1")
    assert elsewhere.status_code == 302


def test_good_logins_cost_nothing(inventory: InventoryIdentity, settings: Settings) -> None:
    settings.INVENTORY_RATE_FAILED = Rate(1, 60)
    User.objects.create_superuser("admin", password="right")
    for _ in range(3):
        assert Client().post("/admin/login/", {"username": "admin", "password": "right"}).status_code == 302


def test_without_redis_nobody_is_refused_and_a_counter_says_so(
    inventory: InventoryIdentity, settings: Settings
) -> None:
    with socket.socket() as deaf:
        # It takes connections and never answers.
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        settings.INVENTORY_DRAMATIQ_URL = f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"
        settings.INVENTORY_RATE_PER_CALLER = Rate(1, 60)
        rates.forget()
        before, client = value(rates.unavailable), reader()
        began = time.monotonic()
        for _ in range(5):
            answer = client.get("/artifacts")
            assert answer.status_code == 200
            assert "RateLimit" not in answer
        # One request waited for it, the others did not.
        assert time.monotonic() - began < 0.9
        assert value(rates.unavailable) == before + 1


@pytest.fixture
def no_redis(settings: Settings) -> None:
    settings.INVENTORY_DRAMATIQ_URL = "redis://127.0.0.1:1/0"
    rates.forget()


REDEMPTION = f"/pairings/{uuid.UUID(int=1)}/redemption"


def redeem(address: str = "127.0.0.1") -> int:
    document = {"inventoryId": str(uuid.UUID(int=2)), "role": "site", "url": "https://x.test", "keys": [KEY]}
    return Client().post(REDEMPTION, document, content_type="application/json", REMOTE_ADDR=address).status_code


KEY = {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "A" * 43}


@pytest.mark.parametrize("redis", ["with Redis", "without Redis"])
def test_pairing_codes_are_shown_so_often_by_one_address(
    inventory: InventoryIdentity, settings: Settings, request: pytest.FixtureRequest, redis: str
) -> None:
    if redis == "without Redis":
        request.getfixturevalue("no_redis")
    settings.INVENTORY_RATE_FAILED = Rate(2, 60)
    assert [redeem() for _ in range(4)] == [403, 403, 429, 429]
    assert redeem("192.0.2.1") == 403
    # Somebody behind a proxy that does not say who is one of all these.
    settings.INVENTORY_TRUSTED_PROXIES = ["unix"]
    assert [redeem("") for _ in range(3)] == [403, 403, 429]


@pytest.mark.usefixtures("known_open")
def test_too_many_codes_are_refused_before_anything_is_looked_at(
    inventory: InventoryIdentity, settings: Settings, django_assert_num_queries: Any
) -> None:
    settings.INVENTORY_RATE_FAILED = Rate(1, 60)
    redeem()
    with django_assert_num_queries(0):
        answer = Client().post(REDEMPTION, b"x" * 100_000, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
    assert 1 <= int(answer["Retry-After"]) <= 60


@pytest.mark.usefixtures("no_redis")
def test_without_redis_passwords_and_tokens_are_guessed_no_faster(
    inventory: InventoryIdentity, settings: Settings
) -> None:
    settings.INVENTORY_RATE_FAILED = Rate(2, 60)
    User.objects.create_superuser("admin", password="right")
    client, wrong = Client(), Client(headers={"authorization": "Bearer wrong"})
    attempts = [client.post("/admin/login/", {"username": "admin", "password": "wrong"}) for _ in range(3)]
    assert [attempt.status_code for attempt in attempts] == [200, 200, 429]
    assert [wrong.get("/artifacts").status_code for _ in range(3)] == [401, 401, 429]
    assert reader().get("/artifacts").status_code == 200


def test_what_a_process_counts_itself_comes_back_and_is_bounded() -> None:
    own = rates.OwnBuckets(most=3)

    def wait(whose: str, now: float, cost: int = 1) -> float:
        return own.charge(Bucket("pairing", whose, Rate(2, 10), cost), now).wait

    assert [wait("a", 100.0) for _ in range(3)] == [0, 0, 5]
    assert wait("a", 104.0) == 1
    assert [wait("a", 105.0), wait("a", 105.0)] == [0, 5]
    assert [wait("b", 105.0, cost=0) for _ in range(5)] == [0] * 5
    for other in "cdef":
        wait(other, 105.0)
    # The first was forgotten for those that came later.
    assert wait("a", 105.0) == 0
    assert wait("f", 105.0) == 0
    assert wait("f", 105.0) == 5


def test_where_no_budget_is_set_redis_is_not_asked(inventory: InventoryIdentity, settings: Settings) -> None:
    settings.INVENTORY_DRAMATIQ_URL = "redis://127.0.0.1:1/0"
    rates.forget()
    before = value(rates.unavailable)
    answer = reader().get("/artifacts")
    assert answer.status_code == 200
    assert "RateLimit" not in answer
    assert value(rates.unavailable) == before


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix", "unix"),
    ],
)
def test_an_ipv6_customer_is_one_network(address: str, network: str) -> None:
    assert rates.network_of(address) == network


@pytest.mark.parametrize(("text", "rate"), [("600/60", Rate(600, 60)), ("", None), ("0", None), (" 5/1 ", Rate(5, 1))])
def test_a_rate_is_written_as_requests_and_seconds(
    monkeypatch: pytest.MonkeyPatch, text: str, rate: Rate | None
) -> None:
    monkeypatch.setenv("INVENTORY_RATE_PER_CALLER", text)
    assert env.rate("INVENTORY_RATE_PER_CALLER", "1/1") == rate


@pytest.mark.parametrize("text", ["600", "a/b", "1/0", "0/1", "-1/5", "5/100000", "1/2/3"])
def test_another_form_of_rate_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("INVENTORY_RATE_PER_CALLER", text)
    with pytest.raises(NotConfiguredError, match="600/60"):
        env.rate("INVENTORY_RATE_PER_CALLER", "")
