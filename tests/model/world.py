"""Two sites and a global of a model test: three processes, three databases of the test's own PostgreSQL, two stores, real HTTP between.

Nothing runs by itself here: no worker, no beat, no listener. The test says who does what, and when.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit
from urllib.request import urlopen

import psycopg
from psycopg import sql

from tests.ports import free_port
from tests.site_service.server import PROJECT

TOKEN = "model-token"
GLOBAL, SITES = "omega", ("alpha", "beta")
ALL = (GLOBAL, *SITES)
_SECONDS = 30.0
_ROUNDS = 12
# How a table is put back as it was, whatever refers to it.
_RESTORE = """
DO $$ DECLARE t text; BEGIN
    SET LOCAL session_replication_role = replica;
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'django_migrations' LOOP
        EXECUTE format('DELETE FROM public.%1$I', t);
        EXECUTE format('INSERT INTO public.%1$I OVERRIDING SYSTEM VALUE SELECT * FROM {schema}.%1$I', t);
    END LOOP;
END $$
"""
_BACKUP = """
DO $$ DECLARE t text; BEGIN
    DROP SCHEMA IF EXISTS {schema} CASCADE;
    CREATE SCHEMA {schema};
    FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'django_migrations' LOOP
        EXECUTE format('CREATE TABLE {schema}.%1$I AS TABLE public.%1$I', t);
    END LOOP;
END $$
"""


class ActError(AssertionError):
    """An act ended in a way that no user or operator should ever see."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process was killed before the act was done."""


@dataclass(frozen=True, slots=True)
class Held:
    """An artifact as one inventory knows it; `storage_id` None: not stored there."""

    artifact_id: str
    uri: str
    checksum: str
    content_last_modified: datetime
    reaffirmed_at: datetime | None
    storage_id: str | None


@dataclass(slots=True)
class Node:
    """One inventory."""

    name: str
    role: str
    port: int
    directory: Path
    database: str
    process: subprocess.Popen[str] | None = None
    connection: psycopg.Connection[tuple[Any, ...]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def faults(self) -> Path:
        return self.directory / "faults.json"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()[-6000:]

    def send(self, act: str, crash: int | None = None, **arguments: Any) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"act": act, "with": arguments, "crash": crash}) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"failed": "its process has ended"}')
        return said

    def judged(self, said: dict[str, Any]) -> Any:
        if "failed" in said:
            raise ActError(f"{self.name}: {said['failed']}\n{self.log}")
        return Crashed() if "crashed" in said else said["result"]

    def do(self, act: str, crash: int | None = None, **arguments: Any) -> Any:
        """One act, done or crashed."""
        self.send(act, crash, **arguments)
        return self.judged(self.hear())

    def query(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        assert self.connection is not None
        cursor = self.connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []

    def run(self, statement: str) -> None:
        assert self.connection is not None
        self.connection.execute(sql.SQL(statement))


@dataclass(slots=True)
class World:
    """The federation; `acts` counts what was done in it."""

    nodes: Mapping[str, Node]
    acts: int = 0
    restored: set[str] = field(default_factory=set)
    counted: dict[str, int] = field(default_factory=dict)

    # --- acts

    def do(self, name: str, act: str, crash: int | None = None, **arguments: Any) -> Any:
        self.acts += 1
        self.count(act)
        result = self.nodes[name].do(act, crash, **arguments)
        if isinstance(result, Crashed):
            self.count("crash")
            self.await_quiet_databases()
        return result

    def do_all(self, act: str, arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """At the same time."""
        for name, those in arguments.items():
            self.acts += 1
            self.count(act)
            self.nodes[name].send(act, **those)
        # All of them, or the next one to ask would hear the answers to this.
        answers = {name: self.nodes[name].hear() for name in arguments}
        return {name: self.nodes[name].judged(said) for name, said in answers.items()}

    def count(self, what: str, times: int = 1) -> None:
        self.counted[what] = self.counted.get(what, 0) + times

    def serve(self, names: Iterable[str] = ALL) -> None:
        """New web servers; returns when they answer."""
        chosen = [self.nodes[name] for name in names]
        for node in chosen:
            node.do("serve")
        for node in chosen:
            deadline = time.monotonic() + _SECONDS
            while not _answers(node.url):
                if time.monotonic() > deadline:
                    raise ActError(f"{node.name} does not serve:\n{node.log}")
                time.sleep(0.01)

    def trouble(self, name: str, faults: Sequence[tuple[str, str, int]]) -> None:
        """What the network does to the next answers of an inventory."""
        self.nodes[name].faults.write_text(json.dumps(faults))

    def await_quiet_databases(self) -> None:
        """Until nobody has an open transaction: the dead are noticed by a closed connection, a moment later."""
        deadline = time.monotonic() + _SECONDS
        open_ones = "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_xid IS NOT NULL"
        while self.nodes[GLOBAL].query(open_ones):
            if time.monotonic() > deadline:
                raise ActError("a transaction does not end")
            time.sleep(0.002)

    # --- looks

    def artifacts(self, name: str) -> dict[str, Held]:
        """By uri, all that an inventory knows."""
        rows = self.nodes[name].query(
            """SELECT a.id::text, a.uri, a.content_checksum, a.content_last_modified, a.reaffirmed_at, l.storage_id
               FROM artifact a LEFT JOIN storage_location l ON l.artifact_id = a.id"""
        )
        found = {row[1]: Held(*row) for row in rows}
        assert len(found) == len(rows), "one uri twice"
        return found

    def look(self, name: str, uri: str) -> Held | None:
        return self.artifacts(name).get(uri)

    def holders(self) -> dict[str, set[str]]:
        """By artifact id, the sites that the global says hold it."""
        rows = self.nodes[GLOBAL].query(
            """SELECT l.artifact_id::text, r.name FROM site_location l JOIN remote_inventory r ON r.site_id = l.site_id"""
        )
        found: dict[str, set[str]] = {}
        for artifact_id, site in rows:
            found.setdefault(artifact_id, set()).add(site)
        return found

    def going(self) -> list[tuple[Any, ...]]:
        """Copies that the global takes for going."""
        return self.nodes[GLOBAL].query("SELECT artifact_id::text FROM site_location WHERE releasing_at IS NOT NULL")

    def file(self, name: str, storage_id: str) -> Path:
        return self.nodes[name].directory / "storage" / "objects" / storage_id[:3] / storage_id

    # --- time

    def wait(self, name: str) -> None:
        """Leases of the dead run out, and what failed is due again."""
        node = self.nodes[name]
        leased = ["remote_inventory", *(["sync_attempt", "scrub_progress", "validation_run"] if name in SITES else [])]
        for table in leased:
            node.run(f"UPDATE {table} SET lease_holder = NULL, lease_until = NULL WHERE lease_until IS NOT NULL")
        if name in SITES:
            node.run("UPDATE sync_attempt SET next_try_at = '2000-01-01Z'")
            node.run("UPDATE copy_release SET next_try_at = '2000-01-01Z' WHERE state IN ('asked', 'returning')")

    def clock(self, name: str, ahead: float) -> None:
        """The one clock of an inventory is so many seconds ahead of everybody else's."""
        self.nodes[name].run(
            "CREATE OR REPLACE FUNCTION inventory_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE AS "
            f"$$ SELECT date_trunc('milliseconds', clock_timestamp() + interval '{ahead} seconds') $$"
        )

    def settle(self) -> int:
        """Everybody harvests and syncs until nothing is new; how many rounds it took."""
        for name in ALL:
            self.trouble(name, [])
            self.wait(name)
        for number in range(_ROUNDS):
            # A row that is not yet below the horizon is not news yet.
            self.await_quiet_databases()
            if self._round():
                return number
        raise ActError(f"no peace after {_ROUNDS} rounds: {self.counted}")

    def _round(self) -> bool:
        """Everybody at the same time; whether nothing has changed, so that nothing ever will."""
        found = self.do_all("turn", {GLOBAL: {"names": list(SITES)}, **{site: {"names": [GLOBAL]} for site in SITES}})
        if any("refused" in one or one["rejected"] for one in found.values()):
            raise ActError(f"without any fault: {found}\n{self.nodes[GLOBAL].log}")
        return all(one["is_complete"] and not one["changed"] and not one["stored"] for one in found.values())

    # --- backups

    def backup(self, name: str, label: str) -> None:
        """The database as it is now; the store is not part of it."""
        self.await_quiet_databases()
        self.nodes[name].run(_BACKUP.format(schema=f"backup_{label}"))

    def restore(self, name: str, label: str) -> None:
        """The database as it was; every process of the inventory begins anew."""
        self.await_quiet_databases()
        self.nodes[name].run(_RESTORE.format(schema=f"backup_{label}"))
        self.restored.add(name)
        self.count("restore")

    def reset(self) -> None:
        """As it was in the beginning."""
        for node in self.nodes.values():
            self.trouble(node.name, [])
            self.await_quiet_databases()
            node.run(_RESTORE.format(schema="backup_pristine"))
            if node.role == "site":
                for directory in (node.directory / "storage" / "objects").iterdir():
                    shutil.rmtree(directory)
        for name in ALL:
            self.clock(name, 0)
        if self.restored:
            # They remember for a while which epoch they serve.
            self.serve(self.restored)
            self.restored.clear()


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/livez", timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def running_world(directory: Path, *, servers: Mapping[str, str], template: str | None) -> Iterator[World]:
    """A federation for as long as the block lasts; its databases are copies of `template`, whose tables must be empty.

    Without one the tables are made by migrating, which takes a while.
    """
    nodes = {
        name: Node(name, "global" if name == GLOBAL else "site", 0, directory / name, f"model_{name}") for name in ALL
    }
    for node in nodes.values():
        node.port = free_port()
        node.directory.mkdir()
        node.faults.write_text("[]")
    admin = servers["DATABASE_URL"]
    _create_databases(admin, template or "template0", [node.database for node in nodes.values()])
    world = World(nodes)
    try:
        for node in nodes.values():
            _start(node, servers)
        for node in nodes.values():
            node.judged(node.hear())
        _provision(world, has_tables=template is not None)
        yield world
    finally:
        for node in nodes.values():
            _stop(node)
        _drop_databases(admin, [node.database for node in nodes.values()])


def _provision(world: World, *, has_tables: bool) -> None:
    with ThreadPoolExecutor(len(ALL)) as pool:
        list(pool.map(lambda name: world.nodes[name].do("provision", has_tables=has_tables), ALL))
    world.serve()
    for name in SITES:
        world.do(name, "accept", code=world.do(GLOBAL, "invite", site=name), known_as=GLOBAL)
    world.settle()
    for name in ALL:
        world.backup(name, "pristine")


def _start(node: Node, servers: Mapping[str, str]) -> None:
    with (node.directory / "log").open("ab") as log:
        node.process = subprocess.Popen(
            [sys.executable, "-m", "tests.model.node"],
            cwd=PROJECT,
            env=_environment(node, servers),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    node.connection = psycopg.connect(_url_of(servers["DATABASE_URL"], node.database), autocommit=True)


def _stop(node: Node) -> None:
    if node.connection is not None:
        node.connection.close()
    if node.process is not None:
        assert node.process.stdin is not None
        assert node.process.stdout is not None
        node.process.stdin.close()
        try:
            node.process.wait(_SECONDS)
        finally:
            if node.process.poll() is None:
                os.killpg(node.process.pid, signal.SIGKILL)
                node.process.wait()
            node.process.stdout.close()


def _environment(node: Node, servers: Mapping[str, str]) -> dict[str, str]:
    package = "global_inventory" if node.role == "global" else "site_service"
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("INVENTORY_", "DJANGO_", "DATABASE_", "REDIS_"))
    }
    return {
        **inherited,
        **servers,
        "DJANGO_SETTINGS_MODULE": f"{package}.settings",
        "DATABASE_URL": _url_of(servers["DATABASE_URL"], node.database),
        "INVENTORY_ROLE": node.role,
        "INVENTORY_NAME": node.name,
        "INVENTORY_PUBLIC_URL": node.url,
        "INVENTORY_BIND": f"127.0.0.1:{node.port}",
        "INVENTORY_THREADS": "4",
        "INVENTORY_SECRET_KEY": "for-tests-only-" + "x" * 40,
        "INVENTORY_ALLOW_UNSAFE_DATABASE": "true",
        "INVENTORY_OPERATOR_TOKEN": TOKEN,
        "INVENTORY_STORAGE_DIR": str(node.directory / "storage"),
        "INVENTORY_RESOURCE_ID": f"ivo://model.example/{node.name}",
        "INVENTORY_SYNC_FREE_BYTES": "0",
        "INVENTORY_PUT_FREE_BYTES": "0",
        "INVENTORY_LOG_LEVEL": "WARNING",
        "MODEL_FAULTS": str(node.faults),
    }


def _url_of(url: str, database: str) -> str:
    return urlsplit(url)._replace(path=f"/{database}").geturl()


def _create_databases(admin: str, template: str, names: Iterable[str]) -> None:
    """Only what nobody is connected to can be copied: pools and listeners of this process come back by themselves."""
    allowing = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with psycopg.connect(_url_of(admin, "postgres"), autocommit=True) as connection:
        is_ours = template != "template0"
        try:
            if is_ours:
                connection.execute(allowing.format(sql.Identifier(template), sql.SQL("false")))
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [template]
                )
            for name in names:
                statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
                connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        finally:
            if is_ours:
                connection.execute(allowing.format(sql.Identifier(template), sql.SQL("true")))


def _drop_databases(admin: str, names: Iterable[str]) -> None:
    with psycopg.connect(_url_of(admin, "postgres"), autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
