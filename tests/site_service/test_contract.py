"""A live site is what its OpenAPI document says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from datamodel import keys
from tests.contract import conforms
from tests.ports import free_port
from tests.site_service.conftest import TOKEN
from tests.site_service.server import SiteProcess

QUICK = ("--phases", "fuzzing", "--max-examples", "1")
# That reads need no credentials is what is asked for here.
OPEN = ("--exclude-checks", "ignored_auth")
THOROUGH = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "30")


def test_some_requests_are_answered_as_documented(live: SiteProcess, tmp_path: Path) -> None:
    conforms("site_service", live.url, tmp_path, *QUICK, token=TOKEN)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("anonymous", [False, True], ids=["with a token", "anonymous"])
def test_many_requests_are_answered_as_documented(token: str, tmp_path: Path, anonymous: bool) -> None:
    keys.create_key_pair(now=datetime.now(UTC), active_from=datetime.now(UTC))
    environment = {"INVENTORY_ANONYMOUS_READ": str(anonymous), "INVENTORY_RATE_FAILED": ""}
    site = SiteProcess(tmp_path, free_port(), environment)
    site.start()
    try:
        if anonymous:
            conforms("site_service", site.url, tmp_path, *THOROUGH, *OPEN)
        else:
            conforms("site_service", site.url, tmp_path, *THOROUGH, token=token)
    finally:
        site.stop()
