"""Fixtures for all tests: real servers, an inventory with an identity, no memory of earlier tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models.signals import post_migrate
from psycopg import sql
from pytest_django import DjangoDbBlocker

from datamodel import auth, positions
from datamodel.audit.pending import pending
from datamodel.audit.reads import read_rules
from datamodel.embedded import EmbeddedServers
from datamodel.identity import ensure_identity, ensure_site
from datamodel.models import InventoryIdentity, StorageSite
from tests.servers import start_test_servers, stop_test_servers


@pytest.fixture(scope="session")
def servers() -> Iterator[EmbeddedServers]:
    """This test process's own PostgreSQL and Redis."""
    yield start_test_servers()
    stop_test_servers()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(servers: EmbeddedServers) -> None:
    """The servers start before the test database is made; each process has its own cluster, so one name serves all."""


class _FilledTablesOnly(DatabaseOperations):
    """Truncating a table makes new files for it and for each of its indexes, also when it is empty, as most are after a test."""

    def sql_flush(
        self, style: Any, tables: Sequence[str], *, reset_sequences: bool = False, allow_cascade: bool = False
    ) -> list[str]:
        """Truncates what has rows, and what refers to it."""
        del allow_cascade
        if not tables:
            return []
        looks = (sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})").format(t, sql.Identifier(t)) for t in tables)
        with self.connection.cursor() as cursor:
            cursor.execute(sql.SQL(" UNION ALL ").join(looks).as_string())
            filled = [name for (name,) in cursor.fetchall()]
        if not filled:
            return []
        kept = [name for name in filled if name.startswith("audit_")]
        rest = [name for name in filled if name not in kept]
        emptied = [f'DELETE FROM "{name}"' for name in kept]
        if rest:
            emptied += super().sql_flush(style, rest, reset_sequences=reset_sequences, allow_cascade=True)
        # Without triggers: the audit refuses to be emptied. It has few rows, and those go sooner one by one.
        return [*(["SET LOCAL session_replication_role = replica"] if kept else []), *emptied]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Emptying the tables after a test must not fill them with permissions again: most of the time went there.

    A database is dropped only when nobody listens to it any more.
    """
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.disconnect(create_contenttypes)
    connection.ops = _FilledTablesOnly(connection)
    yield
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'inventory-news'"
        )


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
