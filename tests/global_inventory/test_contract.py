"""A live global is what its OpenAPI document says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from datamodel import auth
from datamodel.permissions import ALL_GRANTS
from tests.contract import conforms
from tests.global_inventory.conftest import Federation

QUICK = ("--phases", "fuzzing", "--max-examples", "1")
# That reads need no credentials is what is asked for here.
OPEN = ("--exclude-checks", "ignored_auth")
THOROUGH = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "30")


@pytest.fixture
def token(federation: Federation) -> str:
    return auth.create_api_token(name="operator", grants=ALL_GRANTS, now=datetime.now(UTC))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that starts after this waits for nobody, and refuses nobody for asking often."""
    for name in ("INVENTORY_ASK_SECONDS", "INVENTORY_HELD_WAIT_SECONDS", "INVENTORY_POSITION_WAIT_SECONDS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("INVENTORY_RATE_FAILED", "")


@pytest.fixture(params=[False, True], ids=["with a token", "anonymous"])
def anonymous(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """For the server that starts after it."""
    monkeypatch.setenv("INVENTORY_ANONYMOUS_READ", str(request.param))
    return bool(request.param)


def test_some_requests_are_answered_as_documented(port: int, token: str, tmp_path: Path) -> None:
    conforms("global_inventory", f"http://127.0.0.1:{port}", tmp_path, *QUICK, token=token)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_requests_are_answered_as_documented(anonymous: bool, port: int, token: str, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{port}"
    if anonymous:
        conforms("global_inventory", url, tmp_path, *THOROUGH, *OPEN)
    else:
        conforms("global_inventory", url, tmp_path, *THOROUGH, token=token)
