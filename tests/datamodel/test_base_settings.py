"""What the settings make of the environment, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PRINT = (
    "import json; from datamodel import base_settings as s; "
    "print(json.dumps([getattr(s, n) for n in {names!r}], default=str))"
)


def settings_of(names: list[str], **environment: str) -> list[object]:
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    outcome = subprocess.run(
        [sys.executable, "-c", PRINT.format(names=names)],
        cwd=PROJECT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    found: list[object] = json.loads(outcome.stdout)
    return found


PUBLIC = [
    ("https://archive.example/alpha", "archive.example", "https://archive.example", True),
    ("http://archive.example:8080", "archive.example", "http://archive.example:8080", False),
    ("https://[2001:db8::1]:8443/x", "[2001:db8::1]", "https://[2001:db8::1]:8443", True),
]


@pytest.mark.parametrize(("url", "host", "origin", "is_secure"), PUBLIC)
def test_the_public_url_says_which_host_and_origin_are_ours_and_whether_cookies_are_secure(
    url: str, host: str, origin: str, is_secure: bool
) -> None:
    hosts, origins, secure = settings_of(
        ["ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "SESSION_COOKIE_SECURE"], INVENTORY_PUBLIC_URL=url
    )
    assert isinstance(hosts, list)
    assert hosts[0] == host
    assert origins == [origin]
    assert secure is is_secure


def test_cookies_stay_below_the_base_path() -> None:
    assert settings_of(["SESSION_COOKIE_PATH", "STATIC_URL"], INVENTORY_BASE_PATH="/a/b") == ["/a/b/", "/a/b/static/"]


def test_the_server_ends_what_is_stuck_unless_a_pooler_forbids_startup_options() -> None:
    names = ["DATABASES"]
    (configured,) = settings_of(names, DATABASE_URL="postgresql://u@h/d", INVENTORY_LOCK_TIMEOUT_SECONDS="7")
    assert "lock_timeout=7000" in json.dumps(configured)
    assert "jit=off" in json.dumps(configured)
    (pooled,) = settings_of(names, DATABASE_URL="postgresql://u@h/d", INVENTORY_DATABASE_STARTUP_OPTIONS="false")
    assert "lock_timeout" not in json.dumps(pooled)


PREPARES = [({}, True), ({"STARTUP_OPTIONS": "false"}, False), ({"STARTUP_OPTIONS": "false", "PREPARED": "true"}, True)]


@pytest.mark.parametrize(("given", "does"), PREPARES)
def test_statements_are_prepared_unless_a_pooler_forbids_it(given: dict[str, str], *, does: bool) -> None:
    names = {"STARTUP_OPTIONS": "INVENTORY_DATABASE_STARTUP_OPTIONS", "PREPARED": "INVENTORY_PREPARED_STATEMENTS"}
    environment = {names[name]: value for name, value in given.items()}
    (configured,) = settings_of(["DATABASES"], DATABASE_URL="postgresql://u@h/d", **environment)
    assert ("prepare_threshold" in json.dumps(configured)) is does


def test_importing_settings_of_nothing_reaches_nothing() -> None:
    (is_configured, is_temporary) = settings_of(["INVENTORY_DATABASE_CONFIGURED", "INVENTORY_SECRET_KEY_IS_TEMPORARY"])
    assert (is_configured, is_temporary) == (False, True)
