"""The commands an operator types, as an operator types them, and what provisioning does twice."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from pytest_django import Settings

from datamodel import embedded, sealing
from datamodel.embedded import EmbeddedServers
from datamodel.errors import NotAuthenticatedError
from datamodel.identity import switch_site
from datamodel.models import ApiToken, InventoryIdentity, PreauthKeyPair, RemoteInventory, StorageSite
from datamodel.permissions import ALL_GRANTS, Grant
from datamodel.tokens import token_callers
from tests.ports import free_port

PROJECT = Path(__file__).parents[2]


def run(name: str, *argv: str) -> str:
    out = io.StringIO()
    call_command(name, *argv, stdout=out)
    return out.getvalue().strip()


# --- token


def test_a_token_is_printed_once_and_works(inventory: InventoryIdentity) -> None:
    secret = run("token", "create", "pipeline", "--grant", "read", "--grant", "write", "--days", "2")
    assert token_callers.get(secret).caller.grants == {Grant.READ, Grant.WRITE}
    token = ApiToken.objects.get()
    assert token.expires_at is not None
    assert (token.expires_at - token.created_at).days == 2


def test_all_means_every_grant(inventory: InventoryIdentity) -> None:
    assert token_callers.get(run("token", "create", "root", "--grant", "all")).caller.grants == ALL_GRANTS


def test_a_token_is_replaced_only_when_asked(inventory: InventoryIdentity) -> None:
    first = run("token", "create", "a", "--grant", "read")
    with pytest.raises(CommandError, match="--replace"):
        run("token", "create", "a", "--grant", "write")
    second = run("token", "create", "a", "--grant", "write", "--replace")
    assert first != second
    assert ApiToken.objects.get().grants == ["write"]


BAD_TOKENS = [["a", "--grant", "root"], ["a", "--days", "0"], ["a", "--prefix", "cadc"], ["a", "--method", "BREW"]]


@pytest.mark.parametrize("argv", BAD_TOKENS)
def test_a_token_needs_grants_that_exist_limits_and_time(inventory: InventoryIdentity, argv: list[str]) -> None:
    with pytest.raises(CommandError):
        run("token", "create", *argv)
    assert not ApiToken.objects.exists()


def test_a_token_with_limits_is_listed_rotated_and_revoked(inventory: InventoryIdentity) -> None:
    first = run("token", "create", "a", "--grant", "read", "--prefix", "cadc:A/", "--method", "get")
    token = ApiToken.objects.get()
    assert (token.prefixes, token.methods) == (["cadc:A/"], ["GET"])
    assert run("token", "list") == "a: read; below cadc:A/; by GET; never used"
    second = run("token", "rotate", "a", "--overlap-hours", "1")
    assert token_callers.get(first) == token_callers.get(second)
    assert "its secret before is good until" in run("token", "list")
    with pytest.raises(CommandError, match="no token named b"):
        run("token", "revoke", "a", "b")
    assert run("token", "revoke", "a") == "1 revoked"
    assert "REVOKED" in run("token", "list")
    for secret in (first, second):
        with pytest.raises(NotAuthenticatedError):
            token_callers.get(secret)
    with pytest.raises(CommandError, match="revoked"):
        run("token", "rotate", "a")


# --- grants and roles


def test_a_grant_is_set_listed_and_removed(inventory: InventoryIdentity) -> None:
    run("grant", "set", "cadc:A/", "--read", "*", "--write", "group:b", "group:a", "--replaces", "--note", "[red]n")
    run("grant", "set", "everything", "--anonymous")
    first, second = (json.loads(line) for line in run("grant", "list", "--json").splitlines())
    assert (first["prefix"], first["anonymousRead"], second["prefix"]) == ("", True, "cadc:A/")
    assert (second["readers"], second["writers"], second["replaces"]) == (["*"], ["group:a", "group:b"], True)
    shown = run("grant", "list")
    assert all(word in shown for word in ("everything", "cadc:A/", "group:a", "[red]n"))
    run("grant", "set", "cadc:A/")
    assert json.loads(run("grant", "list", "--json").splitlines()[1])["writers"] == []
    run("grant", "remove", "cadc:A/")
    with pytest.raises(CommandError, match="there is no grant of cadc:A/"):
        run("grant", "remove", "cadc:A/")


@pytest.mark.parametrize("argv", [["cadc:A"], ["cadc:A/", "--read", "alice"]])
def test_a_grant_needs_a_namespace_and_somebody(inventory: InventoryIdentity, argv: list[str]) -> None:
    with pytest.raises(CommandError):
        run("grant", "set", *argv)


def test_a_role_is_assigned_listed_and_withdrawn(inventory: InventoryIdentity) -> None:
    run("role", "assign", "user:alice", "auditor", "--note", "n")
    assert json.loads(run("role", "list", "--json"))["principal"] == "user:alice"
    assert re.search(r"user:alice +auditor +audit, read +n$", run("role", "list"))
    run("role", "withdraw", "user:alice", "auditor")
    with pytest.raises(CommandError, match="user:alice is not auditor"):
        run("role", "withdraw", "user:alice", "auditor")
    with pytest.raises(CommandError):
        run("role", "assign", "alice", "auditor")


# --- add_remote


def test_a_remote_is_added_and_changed_and_keeps_its_token(
    inventory: InventoryIdentity, tmp_path: Path, site: StorageSite
) -> None:
    (tmp_path / "token").write_text("secret\n")
    argv = ["g", "https://g.example/base/", "--role", "global"]
    assert run("add_remote", *argv, "--token-file", str(tmp_path / "token")) == "global g at https://g.example/base"
    RemoteInventory.objects.update(inventory_id=site.id, site=site)
    run("add_remote", *argv)
    remote = RemoteInventory.objects.get()
    assert sealing.unseal(remote.token) == b"secret"
    assert (remote.inventory_id, remote.site_id) == (site.id, site.id)
    run("add_remote", "g", "https://elsewhere.example", "--role", "global")
    remote.refresh_from_db()
    assert (remote.inventory_id, remote.site_id) == (None, None)


def test_the_token_may_come_from_standard_input(inventory: InventoryIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("piped\n"))
    run("add_remote", "g", "https://g.example", "--role", "global", "--token-file", "-")
    assert sealing.unseal(RemoteInventory.objects.get().token) == b"piped"


def test_what_cannot_be_a_remote_is_refused(inventory: InventoryIdentity, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    refused = [
        (["g", "g.example", "--role", "global"], "is not a base URL"),
        (["g", "https://g.example", "--role", "moon"], "invalid choice"),
        (["g", "https://g.example", "--role", "site", "--token-file", str(tmp_path / "none")], "No such file"),
        (["g", "https://g.example", "--role", "site", "--token-file", str(tmp_path / "empty")], "holds no token"),
    ]
    for argv, complaint in refused:
        with pytest.raises(CommandError, match=complaint):
            run("add_remote", *argv)
    assert not RemoteInventory.objects.exists()


# --- provision


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> pytest.MonkeyPatch:
    settings.PROVISION_STEPS = []
    monkeypatch.setenv("INVENTORY_OPERATOR_TOKEN", "operator-secret")
    monkeypatch.setenv("INVENTORY_ADMIN_USER", "admin")
    monkeypatch.setenv("INVENTORY_ADMIN_PASSWORD", "first-password")
    remote = {"name": "g", "role": "global", "url": "http://g/x/", "token": "remote-secret"}
    monkeypatch.setenv("INVENTORY_REMOTES", json.dumps([remote]))
    return monkeypatch


@pytest.mark.usefixtures("transactional_db", "environment")
def test_provisioning_makes_everything_and_a_repeat_changes_nothing() -> None:
    run("provision")
    site, user = StorageSite.objects.get(), get_user_model().objects.get()
    assert token_callers.get("operator-secret").caller.grants == ALL_GRANTS
    assert user.check_password("first-password")
    user.set_password("changed by its owner")
    user.save()
    run("provision", "--no-migrate")
    again = StorageSite.objects.get()
    assert (again.id, again.txid) == (site.id, site.txid)
    assert get_user_model().objects.get().check_password("changed by its owner")
    remote = RemoteInventory.objects.get()
    assert (remote.name, remote.url, sealing.unseal(remote.token)) == ("g", "http://g/x", b"remote-secret")
    assert PreauthKeyPair.objects.count() == 1, "for receipts, and for calls of other inventories"


@pytest.mark.parametrize("command", ["provision", "serve"])
def test_without_a_secret_key_that_all_processes_share_nothing_is_sealed_or_served(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    # `serve` runs before there are settings.
    settings.INVENTORY_SECRET_KEY_IS_TEMPORARY = True
    monkeypatch.delenv("INVENTORY_SECRET_KEY")
    with pytest.raises(CommandError, match="INVENTORY_SECRET_KEY"):
        run(command)


@pytest.mark.usefixtures("transactional_db", "environment")
def test_a_switch_thrown_in_the_admin_survives_the_next_start() -> None:
    run("provision", "--no-migrate")
    switch_site(site_id=StorageSite.objects.get().id, allow_read=True, allow_write=False)
    run("provision", "--no-migrate")
    assert StorageSite.objects.get().allow_write is False


@pytest.mark.usefixtures("transactional_db", "environment")
def test_a_global_gets_one_signing_key_and_no_site(settings: Settings) -> None:
    settings.INVENTORY_ROLE = "global"
    run("provision", "--no-migrate")
    run("provision", "--no-migrate")
    assert PreauthKeyPair.objects.count() == 1
    assert not StorageSite.objects.exists()


BAD_REMOTES = ["x", "{}", "[1]", '[{"name": "g"}]', '[{"name": "g", "role": "moon", "url": "http://g"}]', "5"]


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize("text", [*BAD_REMOTES, '[{"name": "g", "role": "site", "url": "g"}]'])
def test_remotes_that_make_no_sense_are_refused(environment: pytest.MonkeyPatch, text: str) -> None:
    environment.setenv("INVENTORY_REMOTES", text)
    with pytest.raises(CommandError, match="INVENTORY_REMOTES"):
        run("provision", "--no-migrate")


# --- serve


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("role", ["site", "global"])
def test_each_role_is_provisioned_served_below_its_base_path_and_stopped_by_a_signal(role: str, tmp_path: Path) -> None:
    servers: EmbeddedServers = embedded.start(tmp_path / "servers")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "TMPDIR"}} | {
        **servers.environment,
        "INVENTORY_ROLE": role,
        "INVENTORY_NAME": "under-test",
        "INVENTORY_BASE_PATH": "/deep/er",
        "INVENTORY_PUBLIC_URL": f"http://127.0.0.1:{port}/deep/er",
        "INVENTORY_BIND": f"127.0.0.1:{port}",
        "INVENTORY_SECRET_KEY": "k" * 60,
        "INVENTORY_STORAGE_DIR": str(tmp_path / "store"),
        "INVENTORY_READINESS_SECONDS": "2",
    }
    command = [sys.executable, "manage.py"]
    try:
        subprocess.run([*command, "provision"], cwd=PROJECT, env=environment, check=True, capture_output=True)
        server = subprocess.Popen([*command, "serve"], cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True)
        base = f"http://127.0.0.1:{port}/deep/er"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            try:
                status, body = get(f"{base}/readyz")
                if status == 200:
                    break
            except urllib.error.URLError:
                time.sleep(0.1)
        assert (status, body) == (200, b'{"ready": true}')
        assert get(f"{base}/livez")[0] == 200
        assert get(f"http://127.0.0.1:{port}/livez")[0] == 404
        assert b"under-test" in get(f"{base}/")[1]
        assert get(f"{base}/static/datamodel/inventory.css")[0] == 200
        assert get(f"{base}/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js")[0] == 200
        assert get(f"{base}/admin/login/")[0] == 200
        assert b"url: /deep/er\n" in get(f"{base}/schema")[1]
        embedded.stop(servers.directory)
        status, body = get(f"{base}/readyz")
        assert status == 503
        assert "database" in json.loads(body)["failing"].split(",")
        assert get(f"{base}/livez")[0] == 200
        assert get(f"{base}/availability?detail=min")[0] == 503
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()
        embedded.stop(servers.directory)


def test_a_server_whose_port_is_taken_says_so_in_lines_as_all_others_and_ends(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "TMPDIR"}} | {
            "INVENTORY_ROLE": "site",
            "INVENTORY_SECRET_KEY": "k" * 60,
            "INVENTORY_BIND": address,
        }
        command = [sys.executable, "manage.py", "serve"]
        ended = subprocess.run(
            command, check=False, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 1
    assert "Connection in use: ('127.0.0.1'" in ended.stderr
    shape = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]{12} ERROR gunicorn\.error ")
    assert all(shape.match(line) for line in ended.stderr.splitlines()), ended.stderr
