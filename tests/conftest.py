"""Fixtures for all tests: real servers, an inventory with an identity, no memory of earlier tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import psycopg
import pytest
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models.signals import post_migrate
from psycopg import sql

from datamodel import auth, positions, restoration
from datamodel.audit import pending as gathering
from datamodel.audit.pending import pending
from datamodel.audit.reads import read_rules
from datamodel.embedded import EmbeddedServers
from datamodel.identity import ensure_identity, ensure_site
from datamodel.models import InventoryIdentity, StorageSite
from tests.servers import start_test_servers, stop_test_servers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have `told` (`record_property`): their own process may have no terminal."""
    for report in chain(*terminalreporter.stats.values()):
        if getattr(report, "when", None) == "call":
            for name, text in report.user_properties:
                if name == "told":
                    terminalreporter.write_line(str(text))


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """This test process's own PostgreSQL and Redis."""
    yield start_test_servers()
    stop_test_servers()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: EmbeddedServers) -> None:
    """The servers start before the test database is made; each process has its own cluster, so one name serves all."""


@pytest.fixture
def known_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who counts statements: whether this inventory is open is asked once a second, by whichever request comes then."""
    monkeypatch.setattr(restoration.gate, "_open_until", float("inf"))


_FEW_ROWS = 2000


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """The whole cluster goes in the end: no database in it need be dropped."""
    return True


class _FilledTablesOnly(DatabaseOperations):
    """Truncating a table makes new files for it and for each of its indexes: few rows go sooner one by one.

    By a connection that stays: a new one would first have to learn about all tables, after each test.
    """

    _own: psycopg.Connection[Any] | None = None

    def sql_flush(
        self, style: Any, tables: Sequence[str], *, reset_sequences: bool = False, allow_cascade: bool = False
    ) -> list[str]:
        """Empties what has rows, and leaves nothing to be done."""
        del style, reset_sequences, allow_cascade
        try:
            self._empty(tables)
        except psycopg.OperationalError:
            # Somebody has ended all connections of this database.
            self._own = None
            self._empty(tables)
        return []

    def _empty(self, tables: Sequence[str]) -> None:
        """Without triggers, for the audit refuses, and the order of tables is nobody's concern."""
        if self._own is None:
            parameters = self.connection.get_connection_params()
            kept = {name: parameters[name] for name in ("dbname", "user", "host", "port")}
            self._own = psycopg.connect(**kept, autocommit=True, prepare_threshold=0)
            self._own.execute("SET session_replication_role = replica")
        looks = (
            sql.SQL("SELECT {}, EXISTS (SELECT FROM {} OFFSET {}) WHERE EXISTS (SELECT FROM {})").format(
                name, sql.Identifier(name), _FEW_ROWS, sql.Identifier(name)
            )
            for name in tables
        )
        with self._own.transaction():
            filled = dict(self._own.execute(sql.SQL(" UNION ALL ").join(looks)).fetchall())
            few = [
                sql.SQL("DELETE FROM {}").format(sql.Identifier(name))
                for name, has_many in filled.items()
                if not has_many
            ]
            many = [sql.Identifier(name) for name, has_many in filled.items() if has_many]
            for statement in few:
                self._own.execute(statement)
            if many:
                self._own.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.SQL(", ").join(many)))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> None:
    """Emptying the tables after a test must not fill them with permissions again: most of the time went there."""
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.disconnect(create_contenttypes)
    connection.ops = _FilledTablesOnly(connection)


@pytest.fixture(scope="session", autouse=True)
def _gather_until_told() -> None:
    """What this process gathers for the audit is written when a test says so, not every five seconds, too."""
    gathering._READ_SECONDS = 3600.0


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    auth.clear_caches()
    pending.forget()
    read_rules.forget()
    positions.cached_identity.clear()
    ContentType.objects.clear_cache()


@pytest.fixture
def inventory(transactional_db: None) -> InventoryIdentity:
    """An inventory whose writes really commit: what the feed shows depends on it."""
    return ensure_identity()


@pytest.fixture
def site(inventory: InventoryIdentity) -> StorageSite:
    """This site's own row."""
    return ensure_site(resource_id="ivo://test.example/alpha")
