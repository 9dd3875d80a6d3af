"""manage.py: which commands run without a role, and what it says to the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def manage(*arguments: str, role: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("INVENTORY_", "DJANGO_"))}
    environment |= {"INVENTORY_ROLE": role} if role else {}
    argv = [sys.executable, "-W", "error", "manage.py", *arguments]
    return subprocess.run(argv, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("role", [None, "archive"])
def test_a_command_of_a_role_names_the_variable_that_is_missing_or_wrong(role: str | None) -> None:
    outcome = manage("migrate", role=role)
    assert outcome.returncode == 1
    assert 'set INVENTORY_ROLE to "site" or "global"' in outcome.stderr


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_help_without_a_role_says_what_runs_without_one(arguments: tuple[str, ...]) -> None:
    outcome = manage(*arguments)
    assert outcome.returncode == 0
    assert "manage.py demo" in outcome.stdout
    assert "manage.py embedded" in outcome.stdout


@pytest.mark.parametrize("arguments", [("help", "embedded"), ("embedded", "--help")])
def test_help_of_embedded_needs_no_role(arguments: tuple[str, ...]) -> None:
    outcome = manage(*arguments)
    assert outcome.returncode == 0, outcome.stderr
    assert "start|stop|status|dump|restore" in outcome.stdout


def test_embedded_starts_shows_dumps_restores_and_stops(tmp_path: Path) -> None:
    where = ("--dir", str(tmp_path / "pair"))
    file = str(tmp_path / "inventory.dump")
    missing = manage("embedded", "status", *where)
    assert missing.returncode == 3
    assert "`manage.py embedded start`" in missing.stderr
    try:
        started = manage("embedded", "start", *where)
        assert started.returncode == 0, started.stderr
        assert [line.partition("=")[0] for line in started.stdout.splitlines()] == ["DATABASE_URL", "REDIS_URL"]
        assert manage("embedded", "status", *where).stdout == started.stdout
        assert manage("embedded", "dump", *where, file).returncode == 0
        assert manage("embedded", "restore", *where, file).returncode == 0
        refused = manage("embedded", "start", *where, "--major", "16")
        assert refused.returncode == 1
        assert "holds a database of PostgreSQL 18" in refused.stderr
    finally:
        stopped = manage("embedded", "stop", *where)
    assert stopped.stdout.startswith("Stopped")
