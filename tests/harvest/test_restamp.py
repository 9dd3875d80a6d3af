"""A feed restored into another cluster: not served before it is restamped, complete for every peer afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from datamodel import embedded, operations
from datamodel.embedded import EmbeddedServers
from datamodel.uris import ArtifactUri
from harvest import feed
from harvest.feed import PageRequest
from harvest.streams import ARTIFACTS
from tests.factories import new_content
from tests.servers import test_server_location as server_location

PROJECT = Path(__file__).parents[2]
# What a peer asks the restored inventory, with the cursor that it got from the old one.
ASK = """
import json, sys, django
django.setup()
from datamodel.errors import InventoryError
from datamodel.positions import Cursor
from harvest.feed import PageRequest, read_page
from harvest.streams import ARTIFACTS
def ask(cursor):
    try:
        page = read_page(PageRequest(ARTIFACTS, cursor, 100))
        return [line.split(b"\\t")[2].decode() for line in b"".join(page.chunks()).splitlines()]
    except InventoryError as error:
        return error.code
print(json.dumps([ask(Cursor.parse(sys.argv[1])), ask(None)]))
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[EmbeddedServers]:
    servers = embedded.start(tmp_path / "other", durable=False, with_redis=False)
    yield servers
    embedded.stop(tmp_path / "other")


def run(servers: EmbeddedServers, *argv: str) -> Any:
    environment = {
        **os.environ,
        "DATABASE_URL": servers.database_url,
        "DJANGO_SETTINGS_MODULE": "site_service.settings",
        "PYTHONPATH": str(PROJECT),
    }
    done = subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("inventory")
def test_a_restored_feed_is_served_anew_after_restamping(other: EmbeddedServers, tmp_path: Path) -> None:
    for number in range(3):
        operations.record_stored(uri=ArtifactUri.parse(f"cadc:TEST/{number}"), content=new_content())
    page = feed.read_page(PageRequest(ARTIFACTS, None, 2))
    page.rows.close()
    mine, dump = server_location(), tmp_path / "dump"
    database = connection.settings_dict["NAME"]
    source = EmbeddedServers(
        mine.directory, mine.database_url.replace("/inventory?", f"/{database}?"), mine.redis_socket, mine.redis_url
    )
    embedded.dump_database(source, dump)
    embedded.restore_database(other, dump)
    cursor = str(page.next_cursor)
    assert json.loads(run(other, "-c", ASK, cursor)) == ["not_configured", "not_configured"]
    assert "3 rows restamped" in run(other, "-m", "django", "restamp_feed")
    everything = [f"cadc:TEST/{number}" for number in range(3)]
    gone, rows = json.loads(run(other, "-c", ASK, cursor))
    assert gone == "cursor_gone"
    assert sorted(rows) == everything
