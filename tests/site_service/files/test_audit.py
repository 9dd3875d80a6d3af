"""Of requests: who did what, who was refused, and (if asked for) who read."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from datamodel import access, auth
from datamodel.audit import pending as gathering
from datamodel.audit.acting import Actor
from datamodel.audit.models import AuditEntry, AuditReadRule
from datamodel.audit.pending import MOST_CALLERS, Pending, pending
from datamodel.audit.rules import Action
from datamodel.counters import registry
from tests.factories import settle_rights
from tests.ports import free_port
from tests.site_service.server import SiteProcess

FILE = "/files/cadc:A/file"
PUT = {"data": b"content", "content_type": "application/octet-stream"}


def entries(**filters: str) -> list[AuditEntry]:
    found = AuditEntry.objects.filter(**filters).exclude(action__in=["token-created", "grant-changed"])
    return list(found.order_by("id"))


def test_a_request_is_recorded_with_its_caller_address_and_id(client: Client) -> None:
    client.put(FILE, **PUT, headers={"X-Request-ID": "r-1"}, REMOTE_ADDR="192.0.2.7")  # type: ignore[arg-type]
    client.delete(FILE, headers={"X-Request-ID": "r-2"})
    put, deleted = entries()
    assert (put.action, put.subject, put.who, put.method) == ("put", "cadc:A/file", "everything", "api-token")
    assert (put.address, put.request_id, put.outcome) == ("192.0.2.7", "r-1", "done")
    assert (deleted.action, deleted.request_id) == ("delete", "r-2")


def test_recording_costs_a_put_no_statement(client: Client) -> None:
    client.put("/files/cadc:A/warm", **PUT)  # type: ignore[arg-type]
    with CaptureQueriesContext(connection) as queries:
        client.put(FILE, **PUT)  # type: ignore[arg-type]
    recording = [query["sql"] for query in queries if "audit_entry" in query["sql"]]
    assert len(recording) == 1
    assert "INSERT INTO artifact" in recording[0]
    assert "INSERT INTO storage_location" in recording[0]


def test_refused_attempts_of_a_minute_are_one_entry(client: Client) -> None:
    stranger = Client(headers={"Authorization": "Bearer wrong"})
    for number in range(5):
        stranger.get(f"/files/cadc:A/{number}")
    stranger.put(FILE, **PUT)  # type: ignore[arg-type]
    stranger.get("/audit")
    assert entries() == []
    assert pending.write(everything=True) == 3
    by_action = {entry.action: entry for entry in entries(outcome="refused")}
    assert by_action.keys() == {"read", "put", "request"}
    read = by_action["read"]
    assert (read.count, read.who, read.reason, read.address) == (5, "anonymous", "not_authenticated", "127.0.0.1")
    assert read.details["subjects"] == ["cadc:A/0", "cadc:A/1", "cadc:A/2"]
    assert by_action["request"].subject == "GET /audit"
    assert pending.write(everything=True) == 0


def test_who_is_known_and_not_permitted_is_named(client: Client) -> None:
    secret = auth.create_api_token(name="poor", grants=frozenset(), now=datetime.now(UTC))
    Client(headers={"Authorization": f"Bearer {secret}"}).delete(FILE)
    pending.write(everything=True)
    (refused,) = entries()
    assert (refused.who, refused.method, refused.action, refused.reason) == (
        "poor",
        "api-token",
        "delete",
        "not_permitted",
    )


def test_a_404_that_hides_a_refusal_counts_as_one_and_another_does_not(client: Client) -> None:
    access.save_grant(prefix="cadc:OPEN/", anonymous_read=True)
    nobody = Client()
    assert nobody.get("/files/cadc:OPEN/none").status_code == 404
    assert nobody.get("/files/cadc:A/private").status_code == 404
    pending.write(everything=True)
    (refused,) = entries()
    assert (refused.subject, refused.reason) == ("cadc:A/private", "artifact_not_found")


def test_the_token_of_a_signed_url_is_not_kept(client: Client) -> None:
    def packed(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    token = f"1.abcdef12.{packed(b'{}' * 20)}.{packed(b's' * 64)}"
    Client().get(f"/files/{token}/cadc:A/file")
    Client().get(f"/other/{token}/cadc:A/file")
    pending.write(everything=True)
    assert [entry.subject for entry in entries(action="read")] == ["cadc:A/file"]
    assert not [entry for entry in entries() if token in f"{entry.subject}{entry.details}"]


@pytest.mark.usefixtures("site")
def test_however_many_are_refused_a_minute_has_so_many_entries() -> None:
    for number in range(3 * MOST_CALLERS):
        for _ in range(2):
            pending.refused(
                Actor(f"c{number}", "anonymous", f"192.0.2.{number}"), Action.READ, "a:b", reason="r", request=""
            )
    written = pending.write(everything=True)
    assert written == MOST_CALLERS + 1
    others = AuditEntry.objects.get(who="(others)")
    assert others.count == 2 * 2 * MOST_CALLERS
    assert sum(entry.count for entry in AuditEntry.objects.all()) == 6 * MOST_CALLERS


@pytest.mark.usefixtures("site")
def test_a_minute_is_written_when_it_is_over() -> None:
    now = [600.0]
    gathered = Pending(clock=lambda: now[0])
    gathered.refused(Actor("c", "anonymous"), Action.READ, "a:b", reason="r", request="")
    now[0] = 659.9
    assert gathered.write(everything=False) == 0
    now[0] = 660.0
    assert gathered.write(everything=False) == 1


@pytest.mark.usefixtures("site")
def test_what_could_not_be_written_waits_and_is_written_once(settings: Settings) -> None:
    gathered = Pending(clock=lambda: 600.0)

    def happen() -> None:
        gathered.refused(Actor("c", "anonymous"), Action.READ, "a:b", reason="r", request="")
        gathered.read(Actor("c", "anonymous"), "a:b", percent=100, request="")

    happen()
    settings.INVENTORY_DIRECT_DATABASE_URL = f"postgresql://127.0.0.1:{free_port()}/nobody"
    with pytest.raises(psycopg.OperationalError):
        gathered.write(everything=True)
    settings.INVENTORY_DIRECT_DATABASE_URL = ""
    happen()
    assert gathered.write(everything=True) == 3
    (refused,) = entries(outcome="refused")
    assert (refused.count, len(entries(outcome="done"))) == (2, 2)


def test_reads_are_recorded_as_the_rules_of_their_namespaces_say(client: Client) -> None:
    AuditReadRule.objects.create(namespace="cadc:", percent=100)
    AuditReadRule.objects.create(namespace="cadc:QUIET/", percent=0)
    settle_rights()
    for path in (FILE, "/files/cadc:QUIET/file", "/files/other:file"):
        client.put(path, **PUT)  # type: ignore[arg-type]
        client.get(path).close()
        client.head(path)
    client.get("/files/cadc:A/")
    client.get("/files/cadc:none")
    client.get(FILE, headers={"Range": "bytes=0-1"}).close()
    assert pending.write(everything=True) == 2
    assert [(entry.subject, entry.who) for entry in entries(action="read")] == [("cadc:A/file", "everything")] * 2


def test_a_sample_says_what_it_is_a_sample_of(client: Client) -> None:
    AuditReadRule.objects.create(namespace="cadc:", percent=50)
    settle_rights()
    client.put(FILE, **PUT)  # type: ignore[arg-type]
    for _ in range(30):
        client.get(FILE).close()
    written = pending.write(everything=True)
    assert 0 < written < 30
    assert entries(action="read")[0].details["percent"] == 50


def test_a_rule_is_heard_by_a_process_that_has_read_before(client: Client) -> None:
    client.put(FILE, **PUT)  # type: ignore[arg-type]
    client.get(FILE).close()
    AuditReadRule.objects.create(namespace="cadc:", percent=100)
    settle_rights()
    client.get(FILE).close()
    assert pending.write(everything=True) == 1


@pytest.mark.usefixtures("site")
def test_reads_that_cannot_be_written_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST_READS", 3)
    lost = registry.get_sample_value("inventory_audit_lost_reads_total") or 0.0
    for number in range(5):
        pending.read(Actor("c", "anonymous"), f"a:{number}", percent=100, request="")
    assert registry.get_sample_value("inventory_audit_lost_reads_total") == lost + 2
    pending.write(everything=True)
    assert [entry.subject for entry in entries()] == ["a:2", "a:3", "a:4"]


def test_a_server_that_stops_writes_what_it_has_gathered(live: SiteProcess) -> None:
    # Of reads it may have gathered some that other tests tried.
    assert live.request("DELETE", "/files/cadc:A/file").status == 401
    live.stop()
    try:
        (refused,) = entries(outcome="refused", action="delete")
        assert (refused.subject, refused.count) == ("cadc:A/file", 1)
    finally:
        live.start()
