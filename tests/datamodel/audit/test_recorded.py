"""What operators do is recorded, once, with who did it; finding and exporting it; and what the admin shows of it."""

from __future__ import annotations

import contextvars
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client
from dramatiq import Message
from dramatiq.broker import MessageProxy
from pytest_django import Settings

from datamodel import access, auth, brake, identity, keys, operations, remotes, tokens
from datamodel.alarms.models import Alarm
from datamodel.alarms.operations import acknowledge_alarms, clear_alarms, raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.audit import acting, archiving, chain, metrics, tasks
from datamodel.audit.acting import Acting, Actor
from datamodel.audit.models import AuditEntry, AuditReadRule
from datamodel.audit.pending import pending
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.checks import check_settings
from datamodel.errors import DeletionBrakeError
from datamodel.grants import Role
from datamodel.models import ApiToken, DeletionBrake, HarvestState, NamespaceGrant, RemoteInventory, StorageSite
from datamodel.permissions import Grant
from datamodel.rows import database_now
from datamodel.snapshots.operations import create_snapshot, release_snapshot
from datamodel.uris import ArtifactUri, Namespace
from site_service import broker
from site_service.policy import operations as policy
from tests.factories import new_content

pytestmark = pytest.mark.usefixtures("site")

NOW = datetime.now(UTC)
URI = ArtifactUri.parse("cadc:TEST/file.fits")


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("op"))
    return client


def recorded() -> list[tuple[str, str]]:
    """Action and subject of each entry, logins aside."""
    return list(AuditEntry.objects.exclude(action="login").order_by("id").values_list("action", "subject"))


def test_rights_and_tokens() -> None:
    auth.create_api_token(name="t", grants=frozenset({Grant.READ}), now=NOW, token="secret")
    auth.create_api_token(name="t", grants=frozenset({Grant.READ}), now=NOW, token="secret")
    tokens.rotate_api_token(name="t", now=NOW, overlap=timedelta(hours=1))
    tokens.revoke_api_tokens(tokens=ApiToken.objects.filter(name="t"), now=NOW)
    tokens.revoke_api_tokens(tokens=ApiToken.objects.filter(name="t"), now=NOW)
    access.save_grant(prefix="cadc:A/", allowed={Grant.READ: ["user:x"]}, note="why")
    access.remove_grant(prefix="cadc:A/")
    access.remove_grant(prefix="cadc:A/")
    access.assign_role(principal="user:x", role=Role.AUDITOR)
    access.withdraw_role(principal="user:x", role=Role.AUDITOR)
    assert recorded() == [
        ("token-created", "t"),
        ("token-rotated", "t"),
        ("token-revoked", "t"),
        ("grant-changed", "cadc:A/"),
        ("grant-removed", "cadc:A/"),
        ("role-assigned", "user:x"),
        ("role-withdrawn", "user:x"),
    ]
    assert "secret" not in json.dumps(list(AuditEntry.objects.values_list("details", flat=True)))


def test_keys_and_peers() -> None:
    key = keys.create_key_pair(now=NOW, active_from=NOW)
    for _ in range(2):
        remotes.save_remote(name="g", role="global", url="https://g.example", token="t")
    remotes.save_remote(name="g", role="global", url="https://g.example", token="other")
    remote = RemoteInventory.objects.get()
    for _ in range(2):
        keys.replace_trusted_keys(remote=remote, keys={"k": b"1" * 32}, now=NOW)
    HarvestState.objects.create(remote=remote, name="artifacts", selector="")
    remotes.rewind(states=HarvestState.objects.all())
    assert recorded() == [
        ("key-created", key),
        ("remote-changed", "g"),
        ("remote-changed", "g"),
        ("keys-trusted", "g"),
        ("remote-rewound", "g artifacts"),
    ]


def test_what_stops_and_lets_pass(settings: Settings) -> None:
    settings.INVENTORY_BRAKE_COUNT = settings.INVENTORY_BRAKE_PERCENT = 0
    operations.record_stored(uri=URI, content=new_content())
    with pytest.raises(DeletionBrakeError) as stopped:
        brake.foresee_removals(source="harvest:g", uris=[URI.value])
    brake.engage(stopped.value)
    brake.engage(stopped.value)
    with acting.on_behalf_of(Acting(actor=Actor("op", "session"))):
        brake.engage(stopped.value)
    pending.write(everything=True)
    tried = AuditEntry.objects.latest("id")
    assert (tried.who, tried.action, tried.reason) == ("op", "brake-engaged", "deletion_brake")
    brake.release(brakes=DeletionBrake.objects.all())
    engaged, _, _, released = AuditEntry.objects.order_by("id")[1:]
    assert (engaged.action, engaged.outcome, engaged.subject) == ("brake-engaged", "refused", released.subject)
    assert recorded()[1:] == [
        ("brake-engaged", "harvest:g"),
        ("brake-engaged", "harvest:g"),
        ("alarm-cleared", "harvest:g"),
        ("brake-released", "harvest:g"),
    ]


def test_alarms_snapshots_policies_switches(site: StorageSite) -> None:
    raise_alarm(kind=AlarmKind.TEST, subject="s", text="t")
    for _ in range(2):
        acknowledge_alarms(alarms=Alarm.objects.all(), by="op")
    clear_alarms(alarms=Alarm.objects.all(), by="op")
    release_snapshot(snapshot=create_snapshot(name="n", namespace=Namespace.parse("cadc:"), created_by="op"))
    for _ in range(2):
        policy.set_policy(namespace=Namespace.parse("cadc:A/"), wanted=True)
    policy.remove_policy(namespace=Namespace.parse("cadc:A/"))
    identity.switch_site(site_id=site.id, allow_read=True, allow_write=False)
    assert recorded() == [
        ("alarm-acknowledged", "s"),
        ("alarm-cleared", "s"),
        ("snapshot-created", "n"),
        ("snapshot-released", "n"),
        ("policy-changed", "cadc:A/"),
        ("policy-removed", "cadc:A/"),
        ("site-switched", site.name),
    ]


def test_a_page_of_the_admin_that_calls_no_operation_is_recorded_by_itself_and_one_that_does_is_not_recorded_twice(
    operator: Client,
) -> None:
    page = "/admin/audit/auditreadrule/"
    assert operator.post(f"{page}add/", {"namespace": "cadc:A/", "percent": "100"}).status_code == 302
    rule = AuditReadRule.objects.get()
    operator.post(f"{page}{rule.pk}/change/", {"namespace": "cadc:A/", "percent": "5", "note": "less"})
    operator.post(f"{page}{rule.pk}/delete/", {"post": "yes"})
    operator.post("/admin/auth/group/add/", {"name": "astro"})
    operator.post("/admin/datamodel/namespacegrant/add/", {"prefix": "cadc:A/", "note": "typed reason"})
    operator.post(f"/admin/datamodel/namespacegrant/{NamespaceGrant.objects.get().pk}/delete/", {"post": "yes"})
    assert recorded() == [
        ("admin", "audit.auditreadrule: cadc:A/"),
        ("admin", "audit.auditreadrule: cadc:A/"),
        ("admin", "audit.auditreadrule: cadc:A/"),
        ("admin", "auth.group: astro"),
        ("grant-changed", "cadc:A/"),
        ("grant-removed", "cadc:A/"),
    ]
    entries = list(AuditEntry.objects.exclude(action="login").order_by("id"))
    assert {(entry.who, entry.method, entry.address) for entry in entries} == {("op", "session", "127.0.0.1")}
    assert [entry.details["verb"] for entry in entries[:3]] == ["add", "change", "delete"]
    assert entries[4].details["note"] == "typed reason"
    assert all(entry.request_id for entry in entries)


def test_several_that_are_deleted_at_once_are_recorded_each(operator: Client) -> None:
    for name in ("cadc:A/", "cadc:B/"):
        AuditReadRule.objects.create(namespace=name, percent=1)
    chosen = list(AuditReadRule.objects.values_list("pk", flat=True))
    operator.post(
        "/admin/audit/auditreadrule/",
        {"action": "delete_selected", "_selected_action": chosen, "post": "yes"},
    )
    assert [subject for _, subject in recorded()] == ["audit.auditreadrule: cadc:A/", "audit.auditreadrule: cadc:B/"]


def test_sessions_begin_and_end_on_the_record_and_guessing_is_gathered(client: Client) -> None:
    get_user_model().objects.create_superuser("op", password="right")
    for word in ("wrong", "worse", "right"):
        client.post("/admin/login/", {"username": "op", "password": word})
    client.post("/admin/logout/")
    assert list(AuditEntry.objects.order_by("id").values_list("action", "who")) == [("login", "op"), ("logout", "op")]
    assert pending.write(everything=True) == 1
    refused = AuditEntry.objects.get(outcome="refused")
    assert (refused.action, refused.subject, refused.count, refused.who) == ("login", "op", 2, "anonymous")


PAGES = ["auditentry", "auditseal", "audithead", "auditarchive", "auditreadrule"]


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_open_and_change_nothing(operator: Client, page: str, tmp_path: Path) -> None:
    keys.create_key_pair(now=NOW, active_from=NOW)
    record(Action.PUT, "cadc:<script>alert(1)</script>", details={"x": "<script>alert(2)</script>"})
    chain.seal_ready()
    chain.sign_head()
    archiving.archive(before=database_now() + timedelta(seconds=1), directory=tmp_path)
    record(Action.PUT, "cadc:<script>alert(1)</script>", details={"x": "<script>alert(2)</script>"})
    chain.seal_ready()
    AuditReadRule.objects.create(namespace="cadc:", percent=1)
    answer = operator.get(f"/admin/audit/{page}/")
    assert answer.status_code == 200
    assert b"<script>alert" not in answer.content
    if page != "auditreadrule":
        assert operator.get(f"/admin/audit/{page}/add/").status_code == 403
        (row, *_) = answer.context["cl"].result_list
        shown = operator.get(f"/admin/audit/{page}/{row.pk}/change/")
        assert shown.status_code == 200
        assert b"<script>alert" not in shown.content
        assert operator.post(f"/admin/audit/{page}/{row.pk}/delete/", {"post": "yes"}).status_code == 403


SEARCHES = [
    ({"q": "cadc:A/"}, ["cadc:A/1", "cadc:A/2"]),
    ({"q": "by:inventory"}, ["cadc:A/1", "cadc:A/2", "cadc:B"]),
    ({"q": "by:nobody"}, []),
    ({"action": "delete"}, ["cadc:B"]),
    ({"outcome": "refused"}, []),
    ({"since": "hour", "q": "cadc:B"}, ["cadc:B"]),
]


@pytest.mark.parametrize(("query", "found"), SEARCHES, ids=[str(query) for query, _ in SEARCHES])
def test_entries_are_searched_and_filtered(operator: Client, query: dict[str, str], found: list[str]) -> None:
    for subject in ("cadc:A/1", "cadc:A/2"):
        record(Action.PUT, subject)
    record(Action.DELETE, "cadc:B")
    rows = operator.get("/admin/audit/auditentry/", query).context["cl"].result_list
    assert sorted(row.subject for row in rows if row.action != "login") == found


def test_an_entry_is_found_by_its_number(operator: Client) -> None:
    record(Action.PUT, "cadc:A/1")
    number = AuditEntry.objects.get(action="put").pk
    (row,) = operator.get("/admin/audit/auditentry/", {"q": f"#{number}"}).context["cl"].result_list
    assert row.subject == "cadc:A/1"


def test_an_auditor_looks_at_everything_and_decides_nothing(client: Client) -> None:
    user = get_user_model().objects.create_user("auditor", is_staff=True)
    access.assign_role(principal="user:auditor", role=Role.AUDITOR)
    client.force_login(user)
    assert client.get("/admin/audit/auditentry/").status_code == 200
    assert client.get("/admin/audit/auditreadrule/add/").status_code == 403
    assert client.get("/audit").status_code == 200


def bearer(*grants: Grant) -> Client:
    name = "-".join(sorted(grant.value for grant in grants)) or "nobody"
    secret = auth.create_api_token(name=name, grants=frozenset(grants), now=NOW)
    return Client(headers={"Authorization": f"Bearer {secret}"})


def test_the_export_is_the_chain_and_anybody_can_check_it() -> None:
    auditor = bearer(Grant.AUDIT)
    keys.create_key_pair(now=NOW, active_from=NOW)
    for number in range(5):
        record(Action.PUT, f"cadc:A/{number}")
        if number % 2:
            chain.seal_ready()
    chain.seal_ready()
    chain.sign_head()
    record(Action.PUT, "cadc:not-sealed")
    hashed, after, subjects, pages, signed = bytes(32), "", [], 0, ""
    while True:
        answer = auditor.get("/audit", {"after": after, "limit": "2"})
        assert answer["Content-Type"] == "application/x-ndjson"
        *lines, end = answer.content.decode().splitlines()
        for line in lines:
            facts = json.loads(line)
            if "seal" in facts:
                assert facts["digest"] == hashed.hex()
                signed = facts.get("signed", "")
            else:
                hashed = hashlib.sha256(hashed + line.encode()).digest()
                subjects.append(facts["subject"])
        pages += 1
        after = json.loads(end)["next"]
        if not json.loads(end)["more"]:
            break
    assert [subject for subject in subjects if subject.startswith("cadc:")] == [f"cadc:A/{n}" for n in range(5)]
    assert pages > 2
    assert signed.count(".") == 2
    assert json.loads(auditor.get("/audit", {"after": after}).content)["next"] == after


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (lambda: bearer(Grant.READ, Grant.OPERATE), 403),
        (Client, 401),
        (lambda: bearer(Grant.AUDIT), 200),
    ],
    ids=["another right", "nobody", "auditor"],
)
def test_the_export_is_for_auditors(client: object, status: int) -> None:
    assert callable(client)
    assert client().get("/audit").status_code == status


@pytest.mark.parametrize("after", ["x", "-1", "99", "9" * 30])
def test_a_cursor_that_is_none_is_refused(after: str) -> None:
    assert bearer(Grant.AUDIT).get("/audit", {"after": after}).status_code == 400


def test_what_is_archived_is_gone_from_the_export_which_says_where_to_go_on(tmp_path: Path) -> None:
    auditor = bearer(Grant.AUDIT)
    chain.seal_ready()
    archived = archiving.archive(before=database_now() + timedelta(seconds=1), directory=tmp_path)
    assert archived is not None
    answer = auditor.get("/audit")
    assert answer.status_code == 410
    assert answer.json()["cursor"] == str(archived.to_seal)
    assert auditor.get("/audit", {"after": answer.json()["cursor"]}).status_code == 200


def find(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    capsys.readouterr()
    call_command("audit", "find", *arguments)
    return capsys.readouterr().out.splitlines()


def test_who_deleted_this_file(capsys: pytest.CaptureFixture[str]) -> None:
    operations.record_stored(uri=URI, content=new_content())
    operations.delete_artifact(uri=URI)
    operations.record_stored(uri=ArtifactUri.parse("cadc:TEST/other"), content=new_content())
    deleted, put = find(capsys, "--uri", URI.value)
    assert f"done delete {URI.value} by inventory [system]" in deleted
    assert f"done put {URI.value}" in put
    assert len(find(capsys, "--uri", "cadc:TEST/")) == 3
    assert len(find(capsys, "--uri", "cadc:TEST/", "--limit", "1")) == 1
    assert len(find(capsys, "--action", "delete", "--since", "1h", "--who", "inventory")) == 1
    assert find(capsys, "--uri", "cadc:NONE")[0].startswith("nothing is recorded")
    assert json.loads(find(capsys, "--action", "delete", "--json")[0])["subject"] == URI.value
    assert find(capsys, "--who", "nobody", "--json") == []
    with pytest.raises(CommandError, match="say what to find"):
        find(capsys)
    with pytest.raises(CommandError, match="is no time"):
        find(capsys, "--since", "yesterday")


def test_the_other_verbs_of_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    record(Action.PUT, "cadc:A/1")
    call_command("audit", "seal")
    assert "1 entries sealed" in capsys.readouterr().out
    with pytest.raises(CommandError, match="nothing was signed"):
        call_command("audit", "head")
    keys.create_key_pair(now=NOW, active_from=NOW)
    call_command("audit", "head")
    assert capsys.readouterr().out.count(".") == 2
    call_command("audit", "archive", "--days", "1", "--directory", str(tmp_path))
    assert "nothing was sealed before" in capsys.readouterr().out
    with pytest.raises(CommandError, match="--directory"):
        call_command("audit", "archive", "--days", "1")
    with pytest.raises(CommandError, match="no archive file"):
        call_command("audit", "verify", str(tmp_path))
    call_command("audit", "verify")
    assert "2 entries under 2 seals" in capsys.readouterr().out


def test_archiving_is_off_by_default_and_happens_once_a_day(settings: Settings, tmp_path: Path) -> None:
    record(Action.PUT, "cadc:A/1")
    chain.seal_ready()
    assert archiving.archive_due() is None
    settings.INVENTORY_AUDIT_KEEP_DAYS = 1
    assert "inventory.E041" in [message.id for message in check_settings(app_configs=None)]
    settings.INVENTORY_AUDIT_ARCHIVE_DIR = str(tmp_path)
    assert "inventory.E041" not in [message.id for message in check_settings(app_configs=None)]
    assert archiving.archive_due() is None, "not a day old"
    assert list(tmp_path.iterdir()) == []


def test_tasks_actors_and_commands_act_under_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def worked(begin: Callable[[], object]) -> None:
        def work() -> None:
            begin()
            record(Action.PUT, "cadc:A/1")

        # As in a thread of a worker.
        contextvars.copy_context().run(work)

    worked(tasks.seal_audit.apply)
    message: Message[None] = Message(queue_name="q", actor_name="purge", args=(), kwargs={}, options={})
    worked(lambda: broker.Acting().before_process_message(broker.broker, MessageProxy(message)))
    monkeypatch.setattr(acting._Process, "actor", acting._Process.actor)
    worked(lambda: acting.run_command("token"))
    task, actor, command = AuditEntry.objects.order_by("id")
    assert (task.who, task.method) == ("datamodel.audit.tasks.seal_audit", "system")
    assert (actor.who, actor.method) == ("purge", "system")
    assert (command.who.endswith(" by token"), command.method) == (True, "command")


def test_metrics_tell_what_waits_and_when_the_head_was_signed() -> None:
    def values() -> dict[str, float]:
        return {sample.name: sample.value for metric in metrics.collect() for sample in metric.samples}

    record(Action.PUT, "cadc:A/1")
    before = values()
    assert "inventory_audit_head_age_seconds" not in before
    keys.create_key_pair(now=NOW, active_from=NOW)
    chain.seal_ready()
    chain.sign_head()
    after = values()
    assert after["inventory_audit_unsealed_seconds"] == 0
    assert after["inventory_audit_seals"] == 1
    assert after["inventory_audit_head_age_seconds"] < 3600
    assert after["inventory_audit_entries_total"] > before["inventory_audit_entries_total"]
