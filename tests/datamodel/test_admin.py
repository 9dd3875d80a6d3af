"""The operator's door: every page opens, nothing leaks or runs, and what changes goes through operations."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
import redis
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db import connection, models
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import Settings

from datamodel import access, auth, keys, operations, remotes, sealing
from datamodel.admin import CappedPaginator
from datamodel.errors import NotAuthenticatedError
from datamodel.grants import Role
from datamodel.models import (
    ApiToken,
    Artifact,
    HarvestConflict,
    HarvestRejection,
    HarvestState,
    InventoryIdentity,
    NamespaceGrant,
    ObsoleteStorageLocation,
    PairingInvitation,
    PreauthKeyPair,
    RemoteInventory,
    RoleAssignment,
    StorageSite,
    TrustedKey,
)
from datamodel.pairing.rules import Code
from datamodel.permissions import Caller, Grant, known, reach
from datamodel.tokens import token_callers
from datamodel.uris import ArtifactUri
from harvest import tasks
from tests import peers
from tests.factories import WHEN, new_content
from tests.fakes.inviting import fake_inviting

NOW = datetime(2026, 11, 21, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def operator(client: Client, site: StorageSite) -> Client:
    client.force_login(get_user_model().objects.create_superuser("op"))
    return client


@pytest.fixture
def rows(site: StorageSite) -> None:
    """One row of everything, named by someone hostile."""
    uri = ArtifactUri.parse("cadc:A/('onclick=x')")
    content = new_content(content_type=HOSTILE)
    operations.record_stored(uri=uri, content=content)
    operations.record_stored(uri=uri, content=new_content(b"other", content_type=HOSTILE))
    operations.record_stored(uri=ArtifactUri.parse("cadc:B"), content=new_content())
    operations.mark_obsolete(located=new_content().located)
    stored = Artifact.objects.get(uri=uri.value)
    operations.detach_location(artifact_id=stored.id)
    remote = remotes.save_remote(name=HOSTILE, role="global", url="https://g.example", token="remote-secret")
    HarvestState.objects.create(remote=remote, name="artifacts", selector="", epoch="e", cur_txid=7, is_complete=True)
    conflict = {"uri": HOSTILE, "winner_id": uuid.uuid4(), "loser_id": uuid.uuid4(), "loser_checksum": HOSTILE}
    HarvestConflict.objects.create(
        **conflict, loser_length=1, loser_last_modified=WHEN, same_content=False, decided_at=NOW
    )
    HarvestRejection.objects.create(
        remote=remote, stream=HOSTILE, row=HOSTILE, row_digest="d", reason=HOSTILE, rejected_at=NOW
    )
    keys.create_key_pair(now=NOW, active_from=NOW)
    TrustedKey.objects.create(remote=remote, name="k", public_key=b"\xff" * 32, fetched_at=NOW)
    auth.create_api_token(name=HOSTILE, grants=frozenset({Grant.READ}), now=NOW, token="api-secret")
    access.save_grant(prefix="cadc:", allowed={Grant.READ: [f"user:{HOSTILE}"]}, note=HOSTILE)
    access.assign_role(principal=f"user:{HOSTILE}", role=Role.AUDITOR, note=HOSTILE)


def ours() -> Iterable[type[models.Model]]:
    admin.autodiscover()
    return sorted((model for model in admin.site._registry if model._meta.app_label == "datamodel"), key=str)


def page(model: type[models.Model], what: str, *args: object) -> str:
    return reverse(f"admin:datamodel_{model._meta.model_name}_{what}", args=args)


@pytest.mark.usefixtures("rows")
def test_no_secret_comes_out_of_lists_and_rows(operator: Client) -> None:
    # That every page of the admin opens, and shows what is hostile as text: test_hostile_pages.py.
    sealed = RemoteInventory.objects.get().token
    opened = 0
    for model in (RemoteInventory, ApiToken, PreauthKeyPair, TrustedKey):
        pages = [page(model, "changelist"), *(page(model, "change", row.pk) for row in model._default_manager.all())]
        for address in pages:
            response = operator.get(address)
            body = response.content.decode()
            assert response.status_code == 200, address
            assert "remote-secret" not in body
            assert auth.token_digest("api-secret") not in body
            assert bytes(sealed).decode() not in body
            opened += 1
    assert opened == 2 * 4


@pytest.mark.usefixtures("rows")
def test_a_key_is_rotated_in_the_admin_by_who_may(operator: Client, settings: Settings) -> None:
    (before,) = PreauthKeyPair.objects.all()
    asked = {"action": "rotate", "_selected_action": [str(before.pk)]}
    staff("a", Role.AUDITOR).post(page(PreauthKeyPair, "changelist"), asked)
    assert PreauthKeyPair.objects.count() == 1
    told = operator.post(page(PreauthKeyPair, "changelist"), asked, follow=True).content.decode()
    new = PreauthKeyPair.objects.exclude(pk=before.pk).get()
    assert f"Key {new.name} is published and signs from" in told
    assert new.active_from - new.created_at == settings.INVENTORY_KEY_OVERLAP
    before.refresh_from_db()
    assert before.expires_at is not None


@pytest.mark.usefixtures("rows")
def test_every_list_can_be_searched_by_anything(operator: Client) -> None:
    terms = ["cadc:", str(uuid.uuid4()), "é ü", "%_\\", "\U0010ffff", "'; --", "x" * 600]
    searched = 0
    for model in ours():
        for term in terms:
            assert operator.get(page(model, "changelist"), {"q": term}).status_code == 200
            searched += 1
    assert searched >= 13 * len(terms)


@pytest.mark.usefixtures("rows")
def test_an_artifact_is_found_by_the_start_of_its_uri_and_by_its_id(operator: Client) -> None:
    other = Artifact.objects.get(uri="cadc:B")
    for term in ("cadc:B", str(other.id)):
        listed = operator.get(page(Artifact, "changelist"), {"q": term}).context["cl"].result_list
        assert [artifact.id for artifact in listed] == [other.id]
    assert operator.get(page(Artifact, "changelist"), {"q": "adc:B"}).context["cl"].result_count == 0


@pytest.mark.usefixtures("rows")
def test_a_list_of_artifacts_counts_no_further_than_its_cap(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CappedPaginator, "cap", 1)
    with CaptureQueriesContext(connection) as queries:
        response = operator.get(page(Artifact, "changelist"))
    assert response.context["cl"].result_count == 1
    assert b"the first 1; search" in response.content
    counts = [query["sql"] for query in queries if "COUNT(*)" in query["sql"] and '"artifact"' in query["sql"]]
    assert counts
    assert all("LIMIT 1" in sql for sql in counts)


def test_a_search_by_uri_uses_the_index(operator: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        operator.get(page(Artifact, "changelist"), {"q": "cadc:IRIS/"})
    listing = next(query["sql"] for query in queries if 'ORDER BY "artifact"."uri"' in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("SET enable_sort = off")
        cursor.execute(f"EXPLAIN {listing}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("RESET enable_seqscan; RESET enable_sort")
    assert "Index Cond" in plan
    assert "artifact_uri" in plan
    assert "Sort" not in plan


@pytest.mark.usefixtures("rows")
def test_artifacts_and_events_cannot_be_changed(operator: Client) -> None:
    artifact = Artifact.objects.get(uri="cadc:B")
    assert operator.post(page(Artifact, "change", artifact.pk), {"uri": "cadc:C"}).status_code == 403
    assert operator.post(page(Artifact, "delete", artifact.pk), {"post": "yes"}).status_code == 403
    assert operator.get(page(Artifact, "add")).status_code == 403
    assert operator.get(page(ObsoleteStorageLocation, "add")).status_code == 403


def test_a_new_token_shows_its_secret_once_and_works(operator: Client) -> None:
    response = operator.post(page(ApiToken, "add"), {"name": "pipeline", "grants": ["read", "write"]})
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    secret = response.context["secret"]
    assert secret in response.content.decode()
    assert token_callers.get(secret).caller.grants == {Grant.READ, Grant.WRITE}
    token = ApiToken.objects.get()
    for address in (page(ApiToken, "changelist"), page(ApiToken, "change", token.pk)):
        assert secret not in operator.get(address).content.decode()


def test_a_name_cannot_be_taken_twice_and_a_past_expiry_means_nothing_opens(operator: Client) -> None:
    secret = auth.create_api_token(name="pipeline", grants=frozenset({Grant.READ}), now=NOW)
    response = operator.post(page(ApiToken, "add"), {"name": "pipeline", "grants": ["read"]})
    assert "name" in response.context["adminform"].form.errors
    assert token_callers.get(secret).caller.name == "pipeline"


def test_a_revoked_token_opens_nothing(operator: Client) -> None:
    secret = auth.create_api_token(name="pipeline", grants=frozenset({Grant.READ}), now=NOW)
    assert token_callers.get(secret).caller.name == "pipeline"
    chosen = [str(ApiToken.objects.get().pk)]
    operator.post(page(ApiToken, "changelist"), {"action": "revoke", "_selected_action": chosen})
    with pytest.raises(NotAuthenticatedError):
        token_callers.get(secret)


def test_a_remote_keeps_its_token_unless_a_new_one_is_given(operator: Client) -> None:
    form = {"name": "g", "role": "global", "url": "https://g.example/base/", "enabled": "on", "new_token": "first"}
    assert operator.post(page(RemoteInventory, "add"), form).status_code == 302
    remote = RemoteInventory.objects.get()
    assert (remote.url, sealing.unseal(remote.token)) == ("https://g.example/base", b"first")
    change = page(RemoteInventory, "change", remote.pk)
    operator.post(change, {"role": "global", "url": "https://g.example/base", "new_token": ""})
    remote.refresh_from_db()
    assert (remote.enabled, sealing.unseal(remote.token)) == (False, b"first")
    operator.post(change, {"role": "global", "url": "https://g.example/base", "new_token": "second"})
    remote.refresh_from_db()
    assert sealing.unseal(remote.token) == b"second"


def test_a_code_is_made_and_shown_once_and_made_void(operator: Client) -> None:
    keys.create_key_pair(now=NOW, active_from=NOW)
    add = page(PairingInvitation, "add")
    assert b"at most" not in operator.get(add).content
    shown = operator.post(add, {"name": "omega", "hours": "2"}).content.decode()
    (code,) = re.findall(r"<textarea[^>]*>([^<]+)<", shown)
    row = PairingInvitation.objects.get()
    assert Code.parse(code).invitation_id == row.id
    assert code not in operator.get(page(PairingInvitation, "changelist")).content.decode()
    assert operator.get(page(PairingInvitation, "change", row.pk)).status_code == 200
    assert operator.post(add, {"name": "a,b", "hours": "2"}).context["adminform"].form.errors
    chosen = {"action": "void", "_selected_action": [str(row.pk)]}
    assert "1 void" in operator.post(page(PairingInvitation, "changelist"), chosen, follow=True).content.decode()


def test_a_code_is_accepted_in_the_admin(operator: Client) -> None:
    keys.create_key_pair(now=NOW, active_from=NOW)
    accept = page(PairingInvitation, "accept")
    assert accept in operator.get(page(PairingInvitation, "changelist")).content.decode()
    assert "no pairing code" in operator.post(accept, {"code": "x", "name": "omega"}).content.decode()
    with fake_inviting() as inviting:
        done = operator.post(accept, {"code": inviting.code(), "name": "omega"}, follow=True).content.decode()
    assert "Paired with the global omega" in done


def test_revoking_in_the_admin_needs_a_reason_and_cannot_be_undone_by_a_switch(operator: Client) -> None:
    remote = peers.paired("omega", role="global").remote
    changelist, change = page(RemoteInventory, "changelist"), page(RemoteInventory, "change", remote.pk)
    chosen = {"action": "revoke", "_selected_action": [str(remote.pk)]}
    asked = operator.post(changelist, chosen).content.decode()
    assert "omega will lose everything" in asked
    assert "This field is required" in operator.post(changelist, {**chosen, "reason": " "}).content.decode()
    remote.refresh_from_db()
    assert remote.revoked_at is None
    form = {"role": "site", "url": "http://omega.test", "enabled": "on", "new_token": ""}
    assert "revoke it before it becomes" in operator.post(change, form).content.decode()
    assert "Revoked: omega" in operator.post(changelist, {**chosen, "reason": "stolen"}, follow=True).content.decode()
    remote.refresh_from_db()
    assert (remote.enabled, remote.paired_at) == (False, None)
    assert "only a new pairing" in operator.post(change, {**form, "role": "global"}).content.decode()


def test_site_operators_neither_pair_nor_revoke(inventory: InventoryIdentity) -> None:
    user = get_user_model().objects.create_user("warden", password="any", is_staff=True)
    access.assign_role(principal="user:warden", role=Role.SITE_OPERATOR)
    warden = Client()
    warden.force_login(user)
    assert warden.get(page(PairingInvitation, "add")).status_code == 403
    assert warden.get(page(PairingInvitation, "accept")).status_code == 403
    remote = peers.paired("omega", role="global").remote
    chosen = {"action": "revoke", "_selected_action": [str(remote.pk)], "reason": "x"}
    warden.post(page(RemoteInventory, "changelist"), chosen)
    remote.refresh_from_db()
    assert remote.enabled


@pytest.mark.parametrize(
    "url", ["ftp://g.example", "g.example", "https://user:secret@g.example", "https://g.example/?x"]
)
def test_a_remote_needs_a_base_url(operator: Client, url: str) -> None:
    response = operator.post(page(RemoteInventory, "add"), {"name": "g", "role": "global", "url": url})
    assert "url" in response.context["adminform"].form.errors
    assert not RemoteInventory.objects.exists()


@pytest.mark.usefixtures("rows")
def test_streams_are_rewound_and_findings_marked_as_seen(operator: Client) -> None:
    state, conflict = HarvestState.objects.get(), HarvestConflict.objects.get()
    operator.post(page(HarvestState, "changelist"), {"action": "rewind", "_selected_action": [str(state.pk)]})
    operator.post(page(HarvestConflict, "changelist"), {"action": "mark_seen", "_selected_action": [str(conflict.pk)]})
    state.refresh_from_db()
    conflict.refresh_from_db()
    assert (state.epoch, state.cur_txid, state.is_complete) == ("", 0, False)
    assert conflict.seen_at is not None
    assert datetime.now(UTC) - conflict.seen_at < timedelta(minutes=1)


@pytest.mark.usefixtures("rows")
def test_a_peer_is_forgotten_with_its_cursors_and_keys(operator: Client) -> None:
    remote = RemoteInventory.objects.get()
    address = page(RemoteInventory, "delete", remote.pk)
    assert b"cannot" not in operator.get(address).content
    assert operator.post(address, {"post": "yes"}).status_code == 302
    assert not RemoteInventory.objects.exists()
    assert not HarvestState.objects.exists()
    assert not TrustedKey.objects.exists()


def test_a_peer_is_harvested_when_an_operator_asks(operator: Client, settings: Settings) -> None:
    for name in ("g", "off"):
        remotes.save_remote(name=name, role="global", url="https://g.example", token="", enabled=name == "g")
    broker = redis.Redis.from_url(settings.INVENTORY_DRAMATIQ_URL.replace("db=1", "db=0"))
    queue = f"{settings.INVENTORY_NAME}:decide"
    broker.delete(queue)
    chosen = [str(remote.pk) for remote in RemoteInventory.objects.all()]
    response = operator.post(
        page(RemoteInventory, "changelist"), {"action": "harvest_now", "_selected_action": chosen}, follow=True
    )
    assert {str(message) for message in response.context["messages"]} == {"g will be harvested", "off is switched off"}
    sent = broker.lrange(queue, 0, -1)
    broker.close()
    assert [json.loads(message)["headers"]["argsrepr"] for message in sent] == ["('g',)"]


def test_without_a_broker_the_operator_is_told(operator: Client, settings: Settings) -> None:
    remotes.save_remote(name="g", role="global", url="https://g.example", token="")
    nowhere = settings.CELERY_SETTINGS | {"broker_url": "redis://127.0.0.1:1/0"}
    settings.CELERY_SETTINGS = nowhere
    tasks._sender.cache_clear()
    try:
        chosen = [str(RemoteInventory.objects.get().pk)]
        response = operator.post(
            page(RemoteInventory, "changelist"), {"action": "harvest_now", "_selected_action": chosen}, follow=True
        )
    finally:
        tasks._sender.cache_clear()
    assert [str(message) for message in response.context["messages"]] == [
        "the broker does not answer; beat asks again later"
    ]


def test_a_site_is_switched_with_a_new_place_in_the_feed(operator: Client, site: StorageSite) -> None:
    address = page(StorageSite, "change", site.pk)
    assert operator.post(address, {"allow_read": "on", "name": "renamed"}).status_code == 302
    switched = StorageSite.objects.get()
    assert (switched.allow_read, switched.allow_write, switched.name) == (True, False, site.name)
    assert switched.txid > site.txid
    assert switched.meta_checksum != site.meta_checksum


def test_a_global_cannot_switch_what_sites_say_of_themselves(
    operator: Client, site: StorageSite, settings: Settings
) -> None:
    settings.INVENTORY_ROLE = "global"
    assert operator.post(page(StorageSite, "change", site.pk), {"allow_read": "on"}).status_code == 403


def test_without_signing_in_nothing_is_shown(client: Client, site: StorageSite) -> None:
    for model in ours():
        response = client.get(page(model, "changelist"))
        assert response.status_code == 302
        assert "/admin/login/" in response["Location"]


# --- rights


def test_a_token_is_limited_and_rotated_in_the_admin(operator: Client) -> None:
    form = {"name": "p", "grants": ["read"], "prefixes": "cadc:A/\ncadc:B/", "methods": ["GET"]}
    first = operator.post(page(ApiToken, "add"), form).context["secret"]
    token = ApiToken.objects.get()
    assert (token.prefixes, token.methods) == (["cadc:A/", "cadc:B/"], ["GET"])
    chosen = {"action": "rotate", "_selected_action": [str(token.pk)]}
    second = operator.post(page(ApiToken, "changelist"), chosen).context["secret"]
    assert token_callers.get(first) == token_callers.get(second)
    wrong = operator.post(page(ApiToken, "add"), {"name": "q", "prefixes": "cadc"})
    assert "prefixes" in wrong.context["adminform"].form.errors


def test_grants_are_set_changed_and_removed_in_the_admin(operator: Client) -> None:
    form = {"prefix": "cadc:A/", "readers": "user:alice, group:astro", "writers": "", "replaces": "on"}
    assert operator.post(page(NamespaceGrant, "add"), form).status_code == 302
    grant = NamespaceGrant.objects.get()
    assert (grant.readers, grant.replaces) == (["group:astro", "user:alice"], True)
    alice = Caller("alice", "session", frozenset(), principals=known(["user:alice"]))
    assert reach(alice, Grant.READ).ranges == (("cadc:A/", "cadc:A0"),)
    change = page(NamespaceGrant, "change", grant.pk)
    assert operator.post(change, {"readers": "user:bob"}).status_code == 302
    assert not reach(alice, Grant.READ)
    operator.post(page(NamespaceGrant, "delete", grant.pk), {"post": "yes"})
    assert not NamespaceGrant.objects.exists()
    for wrong in ({"prefix": "cadc"}, {"prefix": "cadc:", "writers": "alice"}):
        assert operator.post(page(NamespaceGrant, "add"), wrong).context["adminform"].form.errors


def staff(name: str, role: Role | None) -> Client:
    user = get_user_model().objects.create_user(name, is_staff=True)
    if role is not None:
        access.assign_role(principal=f"user:{name}", role=role)
    client = Client()
    client.force_login(user)
    return client


def test_an_auditor_sees_everything_in_the_admin_and_changes_nothing(operator: Client, rows: None) -> None:
    auditor, nobody = staff("a", Role.AUDITOR), staff("n", None)
    for model in ours():
        assert auditor.get(page(model, "changelist")).status_code == 200, model
        assert auditor.get(page(model, "add")).status_code == 403, model
        assert nobody.get(page(model, "changelist")).status_code == 403, model
    remote = RemoteInventory.objects.get()
    change = page(RemoteInventory, "change", remote.pk)
    assert auditor.get(change).status_code == 200
    assert auditor.post(change, {"role": "global", "url": "https://evil.example"}).status_code == 403
    token = ApiToken.objects.get()
    auditor.post(page(ApiToken, "changelist"), {"action": "revoke", "_selected_action": [str(token.pk)]})
    token.refresh_from_db()
    assert token.revoked_at is None


def test_a_site_operator_changes_the_site_but_nobodys_rights(operator: Client, rows: None) -> None:
    client = staff("s", Role.SITE_OPERATOR)
    remote = RemoteInventory.objects.get()
    change = page(RemoteInventory, "change", remote.pk)
    assert client.post(change, {"role": "global", "url": "https://new.example"}).status_code == 302
    for model in (ApiToken, NamespaceGrant, RoleAssignment):
        assert client.get(page(model, "changelist")).status_code == 200
        assert client.get(page(model, "add")).status_code == 403
    assert client.get(reverse("admin:auth_user_add")).status_code == 403
