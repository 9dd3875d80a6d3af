"""Writes the files of `datamodel.baseline`, from what the migrations make of an empty database: `python -m tests.baseline`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql

from datamodel import clusters, embedded
from datamodel.baseline import APPLIED
from datamodel.embedded import EmbeddedServers

PACKAGES = {"site": "site_service", "global": "global_inventory"}
_PROJECT = Path(__file__).parents[1]
_STEP_BY_STEP = """
import django
django.setup()
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
executor = MigrationExecutor(connection)
executor.migrate(executor.loader.graph.leaf_nodes())
for name in sorted(executor.recorder.applied_migrations()):
    print(*name, sep=".")
"""
_IN_ONE_STEP = (
    "from django.core.management import execute_from_command_line as run; run(['', 'migrate', '--skip-checks'])"
)
# Of the session that loads them, or the same everywhere.
_LEFT_OUT = ("--", "\\", "SET ", "SELECT pg_catalog.set_config(")
_UNUSED_SEQUENCE = ", 1, false);"


def file_of(role: str) -> Path:
    return _PROJECT / PACKAGES[role] / "baseline.sql"


def from_migrations(servers: EmbeddedServers, role: str, database: str) -> str:
    """The text of the file, from a new database that each migration has gone through."""
    applied = _run(_STEP_BY_STEP, servers, role, database).split()
    lines = [*(f"{APPLIED}{name}" for name in applied), *_statements(dump(servers, database))]
    return "\n".join(lines).replace("public.", "") + "\n"


def load(servers: EmbeddedServers, role: str, database: str) -> str:
    """Make a new database by `manage.py migrate`; what it said."""
    return _run(_IN_ONE_STEP, servers, role, database)


def dump(servers: EmbeddedServers, database: str) -> str:
    """What is in a database, but for what Django notes and fills in after all migrations."""
    program = clusters.postgres_tools(clusters.DEFAULT_MAJOR) / "pg_dump"
    options = ["--no-owner", "--no-privileges", "--inserts", "--exclude-table=django_migrations"]
    options += [f"--exclude-table-data={name}" for name in ("auth_permission*", "django_content_type*")]
    argv = [str(program), f"--dbname={_url(servers, database)}", *options]
    return subprocess.run(argv, check=True, capture_output=True, encoding="utf-8").stdout


def _statements(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line and not line.startswith(_LEFT_OUT) and not line.endswith(_UNUSED_SEQUENCE):
            yield line


def create(servers: EmbeddedServers, database: str) -> str:
    """A new database beside that of these servers; its URL."""
    with psycopg.connect(servers.database_url, autocommit=True) as there:
        there.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    return _url(servers, database)


def _run(program: str, servers: EmbeddedServers, role: str, database: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INVENTORY_", "DJANGO_"))}
    own = {
        "INVENTORY_ROLE": role,
        "INVENTORY_SECRET_KEY": "x" * 50,
        "DJANGO_SETTINGS_MODULE": f"{PACKAGES[role]}.settings",
        "DATABASE_URL": create(servers, database),
        "REDIS_URL": servers.redis_url,
    }
    argv = [sys.executable, "-c", program]
    return subprocess.run(
        argv, cwd=_PROJECT, env=inherited | own, check=True, stdout=subprocess.PIPE, encoding="utf-8"
    ).stdout


def _url(servers: EmbeddedServers, database: str) -> str:
    return servers.database_url.replace("/inventory?", f"/{database}?")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        servers = embedded.start(
            Path(directory), durable=False, with_redis=False, postgres_major=clusters.DEFAULT_MAJOR
        )
        try:
            for role in PACKAGES:
                file_of(role).write_text(from_migrations(servers, role, role), encoding="utf-8")
        finally:
            embedded.stop(Path(directory))


if __name__ == "__main__":
    main()
