"""Rights of this process: remembered without a query, and forgotten at once when they change, whoever changes them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from datamodel import access, auth, direct, notify, tokens
from datamodel.errors import InvalidRequestError, InvalidUriError, NotAuthenticatedError, StateConflictError
from datamodel.grants import ALL_GRANTS, Grant, Identity, Role
from datamodel.models import ApiToken, InventoryIdentity, NamespaceGrant, RoleAssignment
from datamodel.permissions import Caller, known, may, reach
from datamodel.processes import wait_until
from datamodel.tokens import TokenLimits, token_callers
from datamodel.uris import ArtifactUri
from tests.datamodel.test_notify import terminate
from tests.factories import settle_rights

NOW = datetime.now(UTC)
URI = ArtifactUri.parse("cadc:A/x")
ALICE = Caller("alice", "session", frozenset(), principals=known(["user:alice"]))


def reads(caller: Caller = ALICE) -> bool:
    return may(caller, Grant.READ, URI)


def in_another_process(sql: str, *values: object) -> None:
    """A change that this process made nothing of."""
    with direct.connect("test") as other:
        other.execute(sql, values)


@pytest.fixture
def granted(inventory: InventoryIdentity) -> None:
    access.save_grant(prefix="cadc:A/", allowed={Grant.READ: ["user:alice"]})
    assert reads()


def test_a_decision_costs_no_query(granted: None) -> None:
    settle_rights()
    assert reads()
    with CaptureQueriesContext(connection) as queries:
        for _ in range(10):
            assert reads()
            assert not may(ALICE, Grant.WRITE, URI)
            assert reach(ALICE, Grant.READ).ranges == (("cadc:A/", "cadc:A0"),)
    assert len(queries) == 0


def test_a_change_by_another_process_is_heard_at_once(granted: None) -> None:
    started = time.monotonic()
    in_another_process("DELETE FROM namespace_grant")
    wait_until(lambda: not reads(), 4, "the grant is still believed")
    assert time.monotonic() - started < 2
    in_another_process(
        "INSERT INTO role_assignment (principal, role, note, changed_at) VALUES ('user:alice', 'auditor', '', now())"
    )
    wait_until(reads, 4, "the role is not known")


def test_a_change_of_this_process_holds_from_its_commit_on(granted: None) -> None:
    with transaction.atomic():
        access.remove_grant(prefix="cadc:A/")
        transaction.set_rollback(True)
    assert reads()
    access.remove_grant(prefix="cadc:A/")
    assert not reads()
    assert not access.remove_grant(prefix="cadc:A/")


def test_without_a_listener_what_is_remembered_lives_five_seconds(
    granted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, is_live = notify.news.access()
    assert is_live
    monkeypatch.setattr(notify.NewsListener, "access", lambda self: (count, False))
    access.forget()
    assert reads()
    in_another_process("DELETE FROM namespace_grant")
    assert reads()
    monkeypatch.setattr(notify, "UNHEARD_SECONDS", 0.0)
    assert not reads()


def test_a_listener_that_lost_its_connection_is_not_believed_to_hear_and_what_it_missed_is_looked_for(
    granted: None,
) -> None:
    before = notify.news.access()[0]
    assert terminate("LISTEN %") >= 1
    wait_until(lambda: notify.news.access()[0] > before, 20, "the listener is not back")
    assert reads()


def test_rows_that_say_the_same_are_one_grant(inventory: InventoryIdentity) -> None:
    for _ in range(2):
        access.save_grant(
            prefix="cadc:é/", anonymous_read=True, allowed={Grant.WRITE: ["group:b", " group:a", "group:b"]}
        )
    row = NamespaceGrant.objects.get()
    assert (row.prefix, row.writers, row.anonymous_read) == ("cadc:%C3%A9/", ["group:a", "group:b"], True)


@pytest.mark.parametrize("prefix", ["cadc", "cadc:A", "/", "cadc:A b/"])
def test_a_grant_is_for_a_namespace(inventory: InventoryIdentity, prefix: str) -> None:
    with pytest.raises(InvalidUriError):
        access.save_grant(prefix=prefix)
    with pytest.raises(IntegrityError), transaction.atomic():
        NamespaceGrant.objects.create(prefix="cadc:A", changed_at=NOW)


def test_a_grant_is_for_somebody(inventory: InventoryIdentity) -> None:
    with pytest.raises(InvalidRequestError, match="'alice' names nobody"):
        access.save_grant(prefix="", allowed={Grant.READ: ["alice"]})
    with pytest.raises(InvalidRequestError):
        access.assign_role(principal="alice", role=Role.AUDITOR)


def test_roles_are_assigned_and_withdrawn(inventory: InventoryIdentity) -> None:
    for note in ("a", "b"):
        access.assign_role(principal="user:alice", role=Role.ARCHIVE_OPERATOR, note=note)
    assert RoleAssignment.objects.get().note == "b"
    assert all(may(ALICE, grant) for grant in Grant)
    assert access.withdraw_role(principal="user:alice", role=Role.ARCHIVE_OPERATOR)
    assert not may(ALICE, Grant.READ)
    with pytest.raises(IntegrityError), transaction.atomic():
        RoleAssignment.objects.create(principal="user:alice", role="king", changed_at=NOW)


def test_many_callers_do_not_fill_the_memory(granted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_REMEMBERED", 3)
    for number in range(10):
        access.reach_of(Identity(frozenset({f"user:{number}"})), Grant.READ)
    assert len(access._memory.get().reaches) <= 4


# --- tokens


@pytest.fixture
def secret(inventory: InventoryIdentity) -> str:
    return auth.create_api_token(name="pipeline", grants=frozenset({Grant.READ}), now=NOW)


def is_known(secret: str) -> bool:
    try:
        return bool(token_callers.get(secret))
    except NotAuthenticatedError:
        return False


def test_a_known_token_costs_no_query(secret: str) -> None:
    settle_rights()
    assert may(token_callers.get(secret).caller, Grant.READ)
    with CaptureQueriesContext(connection) as queries:
        assert may(token_callers.get(secret).caller, Grant.READ, URI)
    assert len(queries) == 0


def test_a_revocation_by_another_process_is_heard_at_once(secret: str) -> None:
    assert is_known(secret)
    started = time.monotonic()
    in_another_process("UPDATE api_token SET revoked_at = now()")
    wait_until(lambda: not is_known(secret), 4, "the token is still good")
    assert time.monotonic() - started < 2


def test_that_a_token_was_used_is_no_change_of_rights(secret: str) -> None:
    assert is_known(secret)
    before = notify.news.access()[0]
    in_another_process("UPDATE api_token SET last_used_at = now()")
    in_another_process("NOTIFY inventory_access")
    wait_until(lambda: notify.news.access()[0] > before, 4, "nothing is heard")
    assert notify.news.access()[0] == before + 1


def test_who_waits_for_a_change_of_rights_is_woken_by_it_and_by_no_other_news(secret: str) -> None:
    settle_rights()
    seen = notify.news.access()[0]
    in_another_process("NOTIFY inventory_news")
    assert not notify.news.wait_access(seen, 0.2)
    waiter = ThreadPoolExecutor(1).submit(notify.news.wait_access, seen, 60)
    in_another_process("UPDATE api_token SET revoked_at = now()")
    assert waiter.result()


def test_a_token_is_remembered_no_longer_than_it_is_good(inventory: InventoryIdentity) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    token = auth.create_api_token(name="a", grants=ALL_GRANTS, now=NOW, expires_at=soon)
    assert is_known(token)
    (remembered,) = token_callers._callers.values()
    assert remembered.until <= time.monotonic() + 3


def test_a_used_token_is_looked_at_once_a_minute_so_that_its_use_is_noted(secret: str) -> None:
    assert is_known(secret)
    (remembered,) = token_callers._callers.values()
    assert remembered.until <= time.monotonic() + 60


def test_unknown_tokens_are_not_remembered(inventory: InventoryIdentity) -> None:
    assert not any(is_known(f"wrong{number}") for number in range(5))
    assert token_callers._callers == {}


def test_the_memory_of_tokens_has_a_limit(inventory: InventoryIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_CACHE_SIZE", 2)
    for number in range(5):
        assert is_known(auth.create_api_token(name=f"t{number}", grants=ALL_GRANTS, now=NOW))
        assert len(token_callers._callers) <= 2


def test_the_last_use_is_noted_once_a_minute(secret: str) -> None:
    assert is_known(secret)
    first = ApiToken.objects.get().last_used_at
    token_callers.clear()
    assert is_known(secret)
    assert first is not None
    assert ApiToken.objects.get().last_used_at == first
    ApiToken.objects.update(last_used_at=first - timedelta(minutes=2))
    token_callers.clear()
    assert is_known(secret)
    assert ApiToken.objects.filter(last_used_at__gt=first).exists()


def test_a_rotated_token_has_two_secrets_for_a_while(secret: str) -> None:
    second = tokens.rotate_api_token(name="pipeline", now=datetime.now(UTC), overlap=timedelta(seconds=2))
    assert is_known(secret)
    assert is_known(second)
    assert token_callers.get(second) == token_callers.get(secret)
    wait_until(lambda: not is_known(secret), 5, "the old secret is good for ever")
    assert is_known(second)


def test_a_second_rotation_ends_the_oldest_secret(secret: str) -> None:
    second, third = (
        tokens.rotate_api_token(name="pipeline", now=datetime.now(UTC), overlap=timedelta(hours=1)) for _ in range(2)
    )
    assert [is_known(one) for one in (secret, second, third)] == [False, True, True]


def test_a_revocation_ends_both_secrets(secret: str) -> None:
    second = tokens.rotate_api_token(name="pipeline", now=datetime.now(UTC), overlap=timedelta(hours=1))
    tokens.revoke_api_tokens(tokens=ApiToken.objects.all(), now=datetime.now(UTC))
    assert not is_known(secret)
    assert not is_known(second)
    with pytest.raises(StateConflictError):
        tokens.rotate_api_token(name="pipeline", now=datetime.now(UTC), overlap=timedelta(hours=1))
    with pytest.raises(InvalidRequestError):
        tokens.rotate_api_token(name="nobody", now=datetime.now(UTC), overlap=timedelta(hours=1))


def test_a_limited_token_reaches_no_further_than_its_prefixes(inventory: InventoryIdentity) -> None:
    secret = auth.create_api_token(
        name="a", grants=ALL_GRANTS, now=NOW, limits=TokenLimits.parse(["cadc:A/", "cadc:A/b/"], [])
    )
    caller = token_callers.get(secret).caller
    assert reads(caller)
    assert not may(caller, Grant.READ, ArtifactUri.parse("cadc:B/x"))
    assert not any(may(caller, grant) for grant in Grant)


@pytest.mark.parametrize(
    ("methods", "grants"),
    [
        (["GET"], {Grant.READ}),
        (["PUT"], {Grant.WRITE}),
        (["POST"], {Grant.READ, Grant.WRITE}),
        (["DELETE", "HEAD"], {Grant.READ, Grant.DELETE}),
        (["GET", "PUT", "DELETE"], {Grant.READ, Grant.WRITE, Grant.DELETE}),
    ],
)
def test_what_the_methods_of_a_token_cannot_do_no_url_signed_for_it_can(
    inventory: InventoryIdentity, methods: list[str], grants: set[Grant]
) -> None:
    secret = auth.create_api_token(name="a", grants=ALL_GRANTS, now=NOW, limits=TokenLimits.parse([], methods))
    caller = token_callers.get(secret).caller
    assert {grant for grant in (Grant.READ, Grant.WRITE, Grant.DELETE) if may(caller, grant)} == grants


def test_limits_are_checked() -> None:
    assert TokenLimits.parse([" cadc:A/ ", ""], ["get", "put"]) == TokenLimits(("cadc:A/",), ("GET", "PUT"))
    with pytest.raises(InvalidRequestError, match="BREW"):
        TokenLimits.parse([], ["BREW"])
    with pytest.raises(InvalidUriError):
        TokenLimits.parse(["cadc"], [])


def test_rights_read_by_many_threads_while_they_change_are_never_of_neither_time(granted: None) -> None:
    seen: set[bool] = set()
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            seen.add(may(ALICE, Grant.READ, URI))
        connection.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    with direct.connect("test") as other:
        for number in range(20):
            other.execute("UPDATE namespace_grant SET note = %s", [str(number)])
    is_over.set()
    for thread in threads:
        thread.join()
    assert seen == {True}
