"""A feed after its cluster crashed or was restored elsewhere: complete for every peer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
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
        "DJANGO_SETTINGS_MODULE": "global_inventory.settings",
        "INVENTORY_ROLE": "global",
        "PYTHONPATH": str(PROJECT),
    }
    done = subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# The cursor of a peer that has read everything, and what it reads next.
FOLLOW = """
import json, sys, django
django.setup()
from datamodel.positions import Cursor
from harvest.feed import PageRequest, read_page
from harvest.streams import ARTIFACTS
page = read_page(PageRequest(ARTIFACTS, Cursor.parse(sys.argv[1]) if sys.argv[1:] else None, 100))
rows = [line.split(b"\\t")[2].decode() for line in b"".join(page.chunks()).splitlines()]
print(json.dumps([str(page.next_cursor), page.head.horizon, rows]))
"""
INSERT = """INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified,
    meta_checksum, meta_modified_at, txid) VALUES (gen_random_uuid(), %s, '00000', 'md5:x', now(), 1, now(), 'md5:x', now(), 0)
    RETURNING txid"""


def test_a_row_whose_id_was_given_out_before_a_crash_is_served_after_it(tmp_path: Path) -> None:
    """PostgreSQL forgets ids of aborted transactions when it crashes, and gives them to rows: no cursor may be above them."""
    directory = tmp_path / "crashing"
    servers = embedded.start(directory, with_redis=False)
    try:
        run(servers, "-m", "django", "provision")
        with psycopg.connect(servers.database_url, autocommit=True) as writer:
            writer.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            writer.execute("SELECT pg_reload_conf()")
            writer.execute("CHECKPOINT")
            writer.execute(INSERT, ["cadc:TEST/before"])
            for _ in range(5):
                with contextlib.suppress(psycopg.errors.UniqueViolation):
                    writer.execute(INSERT, ["cadc:TEST/before"])
            cursor, horizon, rows = json.loads(run(servers, "-c", FOLLOW))
            assert rows == ["cadc:TEST/before"]
            postmaster = int((directory / "postgres" / "postmaster.pid").read_text().splitlines()[0])
            # An immediate shutdown is a crash: nothing is flushed, the next start recovers.
            os.kill(postmaster, signal.SIGQUIT)
        servers = embedded.start(directory, with_redis=False)
        with psycopg.connect(servers.database_url, autocommit=True) as writer:
            (txid,) = writer.execute(INSERT, ["cadc:TEST/after"]).fetchone() or (0,)
            assert txid < horizon, "else this test proves nothing"
            for number in range(10):
                writer.execute(INSERT, [f"cadc:TEST/later{number}"])
        assert "cadc:TEST/after" in json.loads(run(servers, "-c", FOLLOW, cursor))[2]
    finally:
        embedded.stop(directory)


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
