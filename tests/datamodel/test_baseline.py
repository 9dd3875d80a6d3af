"""The schema of a new inventory in one step is what the migrations make, in empty databases only, and whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from django.db import ProgrammingError, connection, connections
from django.db.migrations.executor import MigrationExecutor

from datamodel import baseline, clusters, embedded
from datamodel.embedded import EmbeddedServers
from tests.baseline import PACKAGES, create, dump, file_of, from_migrations, load

SCHEMA = "emptied"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """Of the major whose pg_dump writes the files."""
    directory = tmp_path_factory.mktemp("baseline") / "servers"
    yield embedded.start(directory, durable=False, with_redis=False, postgres_major=clusters.DEFAULT_MAJOR)
    embedded.stop(directory)


@pytest.mark.parametrize("role", PACKAGES)
def test_a_new_inventory_has_the_schema_that_its_migrations_make(cluster: EmbeddedServers, role: str) -> None:
    """Compared with a copy by `pg_dump` alone: PostgreSQL reads what it tells of a condition, and tells it in other words then."""
    expected = from_migrations(cluster, role, f"steps_{role}")
    assert file_of(role).read_text(encoding="utf-8") == expected, "make baseline"
    assert "it has its schema now" in load(cluster, role, f"once_{role}")
    copied = create(cluster, f"copied_{role}")
    with psycopg.connect(copied) as there:
        there.execute("\n".join(statements(dump(cluster, f"steps_{role}"))).encode())
    assert statements(dump(cluster, f"once_{role}")) == statements(dump(cluster, f"copied_{role}"))


def statements(text: str) -> list[str]:
    """All but what `pg_dump` says to `psql`, with a random word in it."""
    return [line for line in text.splitlines() if not line.startswith("\\")]


@pytest.fixture
def empty(transactional_db: None) -> Iterator[str]:
    """A schema with nothing in it, which is this connection's; whatever is made in it goes with it."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {SCHEMA}")
        cursor.execute(f"SET search_path TO {SCHEMA}")
    yield SCHEMA
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
        cursor.execute("RESET search_path")


def tables() -> set[str]:
    return set(connection.introspection.table_names())


def plan() -> set[str]:
    """The apps of which migrations are left to be applied."""
    executor = MigrationExecutor(connection)
    return {migration.app_label for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())}


def test_what_the_file_does_not_hold_is_migrated_after_it(empty: str) -> None:
    assert baseline.make_schema(file_of("site"))
    assert {"artifact", "storage_location", "sync_attempt", "django_migrations"} <= tables()
    # The test settings have the apps of both roles.
    assert plan() == {"sites", "releases"}


@pytest.mark.parametrize(
    "there", ["CREATE TABLE note (id int)", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'"]
)
def test_a_database_that_has_anything_in_it_is_left_to_the_migrations(empty: str, there: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(there)
    before = tables()
    assert not baseline.make_schema(file_of("site"))
    assert tables() == before


def test_a_file_with_a_migration_that_is_not_installed_is_left_aside(empty: str, tmp_path: Path) -> None:
    newer = tmp_path / "baseline.sql"
    newer.write_text(f"{baseline.APPLIED}auth.9999_of_a_newer_library\nCREATE TABLE note (id int);\n")
    assert not baseline.make_schema(newer)
    assert tables() == set()


def test_a_step_that_fails_leaves_nothing(empty: str, tmp_path: Path) -> None:
    broken = tmp_path / "baseline.sql"
    broken.write_text("CREATE TABLE note (id int);\nCREATE TABLE other (id unknown_type);\n")
    with pytest.raises(ProgrammingError, match="unknown_type"):
        baseline.make_schema(broken)
    assert tables() == set()


def test_of_those_who_come_at_once_one_makes_it(empty: str) -> None:
    def make(_: int) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path TO {SCHEMA}")
        try:
            return baseline.make_schema(file_of("site"))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as executor:
        assert sorted(executor.map(make, range(3))) == [False, False, True]
    assert "artifact" in tables()


@pytest.mark.parametrize("arguments", [["--plan"], ["auth"], ["--fake"]])
def test_who_asks_for_less_than_everything_gets_no_baseline(
    arguments: list[str], empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.management import call_command  # noqa: PLC0415

    def unexpected(path: Path) -> bool:
        raise AssertionError(path)

    monkeypatch.setattr(baseline, "make_schema", unexpected)
    call_command("migrate", *arguments, verbosity=0)
