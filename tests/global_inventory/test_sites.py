"""Probes, switches, rules and keys of sites, against real sockets and the real database."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from datamodel import keys, preauth
from datamodel.models import InventoryIdentity, PreauthKeyPair
from datamodel.preauth import Methods, TransferClaims
from datamodel.uris import ArtifactUri
from global_inventory.sites import operations, queries, tasks
from global_inventory.sites.models import SiteProbe, SiteRule, SiteSwitch
from global_inventory.sites.rules import Probed
from harvest import tasks as harvest_tasks
from tests.fakes.site import FakeSite
from tests.global_inventory.conftest import Federation

DAY = timedelta(days=1)
URI = ArtifactUri.parse("cadc:TEST/a")


def probe() -> None:
    operations.probe_sites(targets=queries.probe_targets(), seconds=5)
    queries.site_table_cache.clear()


def test_a_probe_sees_what_a_site_serves(federation: Federation, alpha: FakeSite, beta: FakeSite) -> None:
    federation.add_site("alpha", alpha.url)
    federation.add_site("beta", beta.url)
    beta.state = "ReadOnly"
    tasks.probe_sites()
    found = {p.remote.name: (p.read_ok, p.write_ok, p.failures, p.last_error) for p in SiteProbe.objects.all()}
    assert found == {"alpha": (True, True, 0, ""), "beta": (True, False, 0, "")}
    assert all(p.latency_ms is not None for p in SiteProbe.objects.all())


def test_a_site_that_fails_is_counted_and_comes_back(federation: Federation, alpha: FakeSite) -> None:
    federation.add_site("alpha", alpha.url)
    alpha.status = 503
    for failures in (1, 2):
        probe()
        found = SiteProbe.objects.get()
        assert (found.read_ok, found.write_ok, found.failures) == (False, False, failures)
        assert found.last_error == "it answered 503"
    alpha.status = 200
    probe()
    found = SiteProbe.objects.get()
    assert (found.read_ok, found.failures, found.last_error) == (True, 0, "")


def test_a_site_that_is_gone_or_hangs_does_not_delay_the_others(
    federation: Federation, alpha: FakeSite, beta: FakeSite
) -> None:
    federation.add_site("gone", "http://127.0.0.1:1")
    federation.add_site("hangs", alpha.url)
    federation.add_site("well", beta.url)
    federation.add_site("nonsense", "http://[")
    alpha.answers.clear()
    started = time.monotonic()
    outcomes = operations.probe_sites(targets=queries.probe_targets(), seconds=1)
    assert time.monotonic() - started < 3
    assert {name: probed.read_ok for name, probed in outcomes.items()} == {
        "gone": False, "hangs": False, "well": True, "nonsense": False,
    }  # fmt: skip
    assert SiteProbe.objects.get(remote__name="well").read_ok
    assert SiteProbe.objects.filter(read_ok=False, failures=1).count() == 3


def test_a_disabled_site_is_neither_probed_nor_offered(federation: Federation, alpha: FakeSite) -> None:
    remote = federation.add_site("alpha", alpha.url)
    remote.enabled = False
    remote.save()
    probe()
    assert alpha.probes == 0
    assert queries.read_site_table().sites == {}


def test_latency_is_averaged_and_starts_anew_after_an_outage(federation: Federation) -> None:
    federation.add_site("alpha")
    [target] = queries.probe_targets()
    down = Probed(read_ok=False, write_ok=False, latency_ms=None, error="x" * 400)

    def record(latency: float) -> float | None:
        operations.record_probe(target=target, probed=Probed(read_ok=True, write_ok=True, latency_ms=latency))
        return SiteProbe.objects.get().latency_ms

    assert record(100) == 100
    assert record(200) == pytest.approx(130)
    operations.record_probe(target=target, probed=down)
    assert SiteProbe.objects.get().latency_ms == pytest.approx(130)
    assert record(50) == 50


def test_a_probe_of_a_site_that_was_removed_meanwhile_is_dropped(federation: Federation) -> None:
    remote = federation.add_site("alpha")
    [target] = queries.probe_targets()
    remote.delete()
    operations.record_probe(target=target, probed=Probed(read_ok=True, write_ok=True, latency_ms=1))
    assert SiteProbe.objects.count() == 0


def test_switches_and_rules_reach_the_table(federation: Federation, reader: Client) -> None:
    alpha, beta = federation.add_site("alpha"), federation.add_site("beta")
    federation.add_artifact("cadc:A/x", alpha, beta)
    SiteRule.objects.create(namespace="cadc:A/", remote=beta, direction="get", kind="prefer")
    queries.site_table_cache.clear()
    assert reader.get("/files/cadc:A/x")["Location"].startswith(beta.url)
    SiteSwitch.objects.create(remote=beta, offline=True)
    queries.site_table_cache.clear()
    response = reader.get("/files/cadc:A/x")
    assert response["Location"].startswith(alpha.url)
    assert "duplicate" not in response["Link"]


def test_a_read_only_site_still_serves_reads(federation: Federation, operator: Client, alpha: FakeSite) -> None:
    federation.add_artifact(URI.value, federation.add_site("alpha", alpha.url))
    alpha.state = "ReadOnly"
    probe()
    assert operator.get("/files/cadc:TEST/a").status_code == 303
    response = operator.put("/files/cadc:TEST/a")
    assert response.status_code == 502
    assert b"alpha: the site is read-only now" in response.content


def test_the_admin_shows_probes_probes_now_and_checks_namespaces(federation: Federation, alpha: FakeSite) -> None:
    remote = federation.add_site("alpha", alpha.url)
    probe()
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root", "", "pw"))
    assert b"alpha" in client.get("/admin/sites/siteprobe/").content
    before = alpha.probes
    action = {"action": "probe_now", "_selected_action": [remote.pk]}
    answer = client.post("/admin/sites/siteprobe/", action, follow=True)
    assert alpha.probes == before + 1
    assert [str(message) for message in answer.context["messages"]] == ["alpha: answers"]
    assert client.get("/admin/sites/siteprobe/add/").status_code == 403
    rule = {"namespace": "cadc:A", "remote": remote.pk, "direction": "get", "kind": "avoid"}
    assert b"must end with" in client.post("/admin/sites/siterule/add/", rule).content
    assert client.post("/admin/sites/siterule/add/", rule | {"namespace": "cadc:A/"}).status_code == 302
    assert SiteRule.objects.get().namespace == "cadc:A/"
    switch = {"remote": remote.pk, "read_only": "on", "note": "disk being replaced"}
    assert client.post("/admin/sites/siteswitch/add/", switch).status_code == 302
    assert SiteSwitch.objects.get().read_only


def test_keys_rotate_with_overlap_and_without_restart(inventory: InventoryIdentity, client: Client) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    old = keys.create_key_pair(now=now - 40 * DAY, active_from=now - 40 * DAY)
    assert keys.rotate_keys(now=now, period=41 * DAY, overlap=DAY) is None
    new = keys.rotate_keys(now=now, period=30 * DAY, overlap=DAY)
    assert new is not None
    assert keys.rotate_keys(now=now, period=30 * DAY, overlap=DAY) is None
    published = client.get("/pubkey").json()["keys"]
    assert {key["kid"] for key in published} == {old, new}
    assert {(key["kty"], key["crv"], key["use"]) for key in published} == {("OKP", "Ed25519", "sig")}
    # Published, but sites may not have fetched it yet.
    assert keys.signing_key(now=now).key_id == old
    assert keys.signing_key(now=now + DAY).key_id == new
    later = now + DAY + timedelta(hours=1)
    claims = TransferClaims(Methods.READ, later + timedelta(hours=1), None, None)
    token = keys.signing_key(now=now + DAY - timedelta(seconds=1)).sign(URI, claims)
    assert preauth.verify(token, URI, keys=keys.published_keys(now=later), now=later, site_id=uuid.uuid4()) == claims
    assert set(keys.published_keys(now=now + 3 * DAY)) == {new}


def test_the_signing_process_takes_up_a_new_key_by_itself(
    inventory: InventoryIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    old = keys.create_key_pair(now=now, active_from=now - DAY)
    assert keys.signing_key_cache.get().key_id == old
    new = keys.create_key_pair(now=now, active_from=now)
    assert keys.signing_key_cache.get().key_id == old
    monkeypatch.setattr(keys, "_CACHE_SECONDS", 0.0)
    assert keys.signing_key_cache.get().key_id == new


def test_the_command_rotates_at_once_or_only_when_due(
    inventory: InventoryIdentity, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("rotate_keys", "--if-due")
    call_command("rotate_keys", "--if-due")
    assert PreauthKeyPair.objects.count() == 1
    assert "no new key is due" in capsys.readouterr().out
    call_command("rotate_keys")
    assert PreauthKeyPair.objects.count() == 2
    assert PreauthKeyPair.objects.filter(expires_at__isnull=True).count() == 1
    harvest_tasks.rotate_keys()
    assert PreauthKeyPair.objects.count() == 2


def test_the_keys_are_public_and_may_be_cached_for_a_short_time(inventory: InventoryIdentity, client: Client) -> None:
    response = client.get("/pubkey")
    assert response.status_code == 200
    assert response["Cache-Control"] == "public, max-age=30"
    assert response.json() == {"keys": []}
