"""What needs a session of PostgreSQL is told when a pooler of transactions stands between."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.checks import run_checks
from django.db import connection
from pytest_django import Settings

from datamodel import direct, notify
from datamodel.embedded import EmbeddedServers
from datamodel.models import InventoryIdentity
from tests.pooler import running_pgbouncer


@pytest.fixture
def pooled(servers: EmbeddedServers) -> Iterator[str]:
    database = connection.get_connection_params()["dbname"]
    url = servers.database_url.replace("/inventory?", f"/{database}?")
    with running_pgbouncer({"pooled": url}, sessions=2) as urls:
        yield urls["pooled"]


def complaints() -> set[str | None]:
    return {message.id for message in run_checks(tags=["inventory", "database"], databases=["default"])}


def test_a_pooler_is_recognised(inventory: InventoryIdentity, pooled: str, settings: Settings) -> None:
    with direct.connect("test") as connection:
        assert not direct.is_pooled(connection)
    assert "inventory.E013" not in complaints()
    settings.INVENTORY_DIRECT_DATABASE_URL = pooled
    with direct.connect("test") as connection:
        assert direct.is_pooled(connection)
    assert "inventory.E013" in complaints()


def test_a_listener_behind_a_pooler_does_not_pretend_to_hear(
    inventory: InventoryIdentity, pooled: str, settings: Settings
) -> None:
    settings.INVENTORY_DIRECT_DATABASE_URL = pooled
    assert notify.NewsListener().access() == (0, False)


def test_a_database_without_limits_of_time_is_told(inventory: InventoryIdentity) -> None:
    assert "inventory.E014" not in complaints()
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = 0")
    try:
        assert "inventory.E014" in complaints()
    finally:
        connection.close()
