"""A whole federation behind PgBouncer, which gives each transaction any of a few sessions."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from datamodel import embedded
from harvest.demo.federation import Federation, Inventory, environment, neighbours, usual_inventories
from harvest.demo.peer import Peer
from tests.pooler import running_pgbouncer
from tests.ports import free_ports
from tests.scenarios.federation import PROJECT, File, eventually, listing, put, read, shows

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("federation"), pytest.mark.timeout(300)]

SESSIONS = 3
# As README.md says; the role of the services has them, since a pooler passes no options on.
LIMITS = ("statement_timeout = '60s'", "idle_in_transaction_session_timeout = '30s'", "lock_timeout = '10s'")


@dataclass(frozen=True)
class Pooled:
    """Two sites and a global, none of whose services reaches its database but by the pooler, or to listen."""

    federation: Federation
    directory: Path

    def peer(self, name: str) -> Peer:
        return Peer(name, self.inventory(name).url, self.federation.secrets.token)

    def inventory(self, name: str) -> Inventory:
        return next(inventory for inventory in self.federation.inventories if inventory.name == name)

    def sql(self, name: str, query: LiteralString) -> list[tuple[object, ...]]:
        """Asked of PostgreSQL itself."""
        with psycopg.connect(
            embedded.location(self.inventory(name).servers).database_url, autocommit=True, application_name="test"
        ) as connection:
            return connection.execute(query).fetchall()

    def command(self, name: str, *argv: str) -> str:
        """What a command of this inventory prints."""
        inventory = self.inventory(name)
        known = environment(inventory, neighbours(inventory, self.federation.inventories), self.federation.secrets)
        outcome = subprocess.run(
            [sys.executable, "manage.py", *argv], cwd=PROJECT, env=known, capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout + outcome.stderr


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[Pooled]:
    inventories = usual_inventories(tmp_path, free_ports(3))
    direct = {inventory.name: embedded.location(inventory.servers).database_url for inventory in inventories}
    with running_pgbouncer(direct, sessions=SESSIONS) as urls:
        behind = [
            replace(
                inventory,
                settings={
                    "DATABASE_URL": urls[inventory.name],
                    "INVENTORY_DIRECT_DATABASE_URL": direct[inventory.name],
                    "INVENTORY_DATABASE_STARTUP_OPTIONS": "false",
                    # Nothing travels in time but what a listener has heard of.
                    "INVENTORY_HARVEST_SECONDS": "3600",
                },
            )
            for inventory in inventories
        ]
        for inventory in behind:
            inventory.directory.mkdir()
            limit(embedded.start(inventory.servers).database_url)
        said: list[str] = []
        federation = Federation(tmp_path, behind, said.append)
        try:
            federation.start(threading.Event())
            yield Pooled(federation, tmp_path)
        finally:
            federation.stop()
        assert not [line for line in said if "restarted" in line or "died" in line]


def limit(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in LIMITS:
            connection.execute(f"ALTER ROLE CURRENT_USER SET {setting}")


def test_everything_works_behind_a_pooler_of_transactions_with_few_sessions(pooled: Pooled) -> None:
    alpha, beta, all_sites = (pooled.peer(name) for name in ("alpha", "beta", "global"))

    def put_and_wait(number: int) -> File:
        """Read at the global at once, which waits until it has harvested the write, and is woken when it has."""
        file = put(alpha, f"demo:kept/pooled/{number}", b"%d" % number)
        assert read(all_sites, file.uri, position=file.stored.position) == file.content
        return file

    with ThreadPoolExecutor(16) as threads:
        files = list(threads.map(put_and_wait, range(48)))
    replaced = put(alpha, files[0].uri, b"replaced")
    alpha.delete(files[1].uri)
    eventually(
        lambda: shows(beta, replaced) and len(listing(beta, "demo:kept/pooled/")) == 47, "nothing travels to beta"
    )
    eventually(
        lambda: all(beta.status_of(file.uri) == 200 for file in files[2:]), "what beta wants is not brought there"
    )
    assert read(beta, files[2].uri) == files[2].content
    assert listing(alpha, "demo:kept/pooled/") == listing(all_sites, "demo:kept/pooled/")

    assert "no issues" in pooled.command("alpha", "check", "--database", "default", "--fail-level", "ERROR")
    pooled.command("global", "reconcile")
    pooled.command("alpha", "validate_files")
    listed = pooled.directory / "list.csv"
    listed.write_text("uri\ndemo:kept/pooled/0\ndemo:kept/pooled/nowhere\n")
    told = pooled.command("alpha", "cross_match", str(listed), "--namespace", "demo:kept/pooled/")
    assert "2 listed, 1 match" in told
    backups = pooled.directory / "backups"
    backups.mkdir()
    pooled.command("global", "backup", str(backups))

    for name in ("global", "alpha", "beta"):
        nothing_of_a_session_is_left(pooled, name)


def nothing_of_a_session_is_left(pooled: Pooled, name: str) -> None:
    by_pooler = pooled.sql(
        name,
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
        "AND application_name !~ '^(inventory-(news|audit)|test)$'",
    )
    assert by_pooler <= [(SESSIONS,)], "somebody goes around the pooler"
    assert pooled.sql(name, "SELECT relname FROM pg_class WHERE relpersistence = 't'") == []
    held = "SELECT pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE locktype = 'advisory' AND a.state = 'idle'"
    assert pooled.sql(name, held) == []
    log = (pooled.inventory(name).servers / "postgres.log").read_text()
    assert "can only be used in transaction blocks" not in log
    assert "prepared statement" not in log
