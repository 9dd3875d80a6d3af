"""Bringing the rows of a backup back: all or nothing, into an empty database (or, if asked, in place of what one holds).

The schema is made by the migrations that the backup names, so a backup of an older release, or from another major of PostgreSQL,
comes back too; then the schema goes on to the present. Rows are loaded, stamped anew and closed to everybody in one transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from datamodel import restoration
from datamodel.archive import ArchiveReader, BackupError, Manifest, TableFacts, verify
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.backup import configured_fingerprints, patiently, tables_in_order
from datamodel.identity import restamp_feed

# Any row in one of these is something that a restore would take away.
_HOLDINGS = (
    "artifact",
    "deleted_artifact_event",
    "deleted_storage_location_event",
    "storage_location_event",
    "storage_location",
    "site_location",
    "retired_artifact",
    "obsolete_storage_location",
)
_OTHERS_SQL = """
    SELECT coalesce(nullif(application_name, ''), 'unnamed'), count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1 ORDER BY 1
"""
_SEQUENCES_SQL = """
    SELECT c.relname, a.attname, pg_get_serial_sequence(quote_ident(c.relname), a.attname)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY(%s)
        AND pg_get_serial_sequence(quote_ident(c.relname), a.attname) IS NOT NULL
"""


def load_backup(path: Path, *, replace: bool, by: str, say: Callable[[str], None]) -> Manifest:
    """Restore a backup: afterwards the inventory is as it was then, under a new epoch, and closed (see `restoration`).

    Raises `BackupError` for a file that is damaged or of another inventory's role, a key that is not the right one, migrations
    that this release does not know, a database that holds something (without `replace`) or is in use. Until everything has been
    read and checked nothing is changed; then all is, in one transaction. A repeat after a crash begins anew.
    """
    manifest = verify(path)
    say(f"{path.name}: {manifest.rows} rows of {manifest.name}, taken {manifest.taken_at}; whole and undamaged")
    _check_key(manifest)
    _check_role(manifest)
    _check_unused()
    _make_schema(manifest, replace=replace)
    with transaction.atomic():
        patiently()
        _load(path, manifest)
        stamped = restamp_feed()
        restoration.begin(source=path.name, by=by, taken_at=datetime.fromisoformat(manifest.taken_at))
        record(Action.RESTORE, path.name, details={"takenAt": manifest.taken_at, "rows": manifest.rows, "by": by})
    say(f"loaded {manifest.rows} rows; {stamped} restamped; the feed has a new epoch and is closed")
    bring_to_present()
    _execute("ANALYZE")
    return manifest


def bring_to_present() -> None:
    """Migrate the schema that a backup came with, unless that is done: whoever loaded it may have died before. A repeat costs a look."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=0, skip_checks=True)


def _check_key(manifest: Manifest) -> None:
    if settings.INVENTORY_SECRET_KEY_IS_TEMPORARY:
        raise BackupError("set INVENTORY_SECRET_KEY to the key that the services of the lost inventory had")
    missing = set(manifest.secrets) - set(configured_fingerprints(manifest.inventory_id))
    if missing:
        named = ", ".join(sorted(key[:12] for key in missing))
        raise BackupError(
            f"this backup needs {len(manifest.secrets)} key(s), and the one with fingerprint {named} is neither INVENTORY_SECRET_KEY "
            "nor among INVENTORY_SECRET_KEY_FALLBACKS: without it the tokens and signing keys in the backup stay sealed. "
            "Nothing was changed."
        )


def _check_role(manifest: Manifest) -> None:
    if manifest.role != settings.INVENTORY_ROLE:
        raise BackupError(f"it is the backup of a {manifest.role}, and INVENTORY_ROLE is {settings.INVENTORY_ROLE}")


def _check_unused() -> None:
    others = _fetch(_OTHERS_SQL)
    if others:
        named = ", ".join(f"{name} ({count})" for name, count in others)
        raise BackupError(f"others are connected to this database: {named}. Stop the services first.")


def _make_schema(manifest: Manifest, *, replace: bool) -> None:
    """The schema as of the backup. Raises `BackupError`."""
    wanted = {(app, name) for app, name in manifest.migrations}
    executor = MigrationExecutor(connection)
    ours = {key for key in wanted if key in executor.loader.disk_migrations}
    if unknown := sorted(f"{app}.{name}" for app, name in wanted - ours):
        raise BackupError(
            f"it was made by release {manifest.version} with migrations that this one does not know: {', '.join(unknown[:5])}"
        )
    applied = set(executor.loader.applied_migrations)
    if not replace and (held := _holdings()):
        raise BackupError(f"this database holds rows ({', '.join(held)}): --replace if they shall go")
    if beyond := sorted(f"{app}.{name}" for app, name in applied - wanted):
        raise BackupError(
            f"this database is of a newer schema than the backup ({', '.join(beyond[:5])}): restore into an empty database; "
            "its schema is brought to the present afterwards"
        )
    if applied != wanted:
        graph = executor.loader.graph
        leaves = [
            key for key in wanted if not any(child in wanted for child in map(_key, graph.node_map[key].children))
        ]
        executor.migrate(leaves)


def _key(node: object) -> tuple[str, str]:
    return node.key  # type: ignore[attr-defined,no-any-return]  # a node of Django's migration graph


def _holdings() -> list[str]:
    existing = set(connection.introspection.table_names())
    return [
        name
        for name in _HOLDINGS
        if name in existing and _fetch(f'SELECT 1 FROM "{name}" LIMIT 1')  # a name of ours
    ]


def _load(path: Path, manifest: Manifest) -> None:
    """Replace all rows. Foreign keys are checked as the tables come; what triggers would make of a row is in the backup already."""
    order = tables_in_order()
    facts = {table.name: table for table in manifest.tables}
    if {table.name: table.columns for table in order} != {name: table.columns for name, table in facts.items()}:
        raise BackupError("the tables of this database are not those of the backup")
    names = ", ".join(f'"{table.name}"' for table in order)
    _execute("SET CONSTRAINTS ALL IMMEDIATE")
    for table in order:
        _execute(f'ALTER TABLE "{table.name}" DISABLE TRIGGER USER')
    _execute(f"TRUNCATE {names}")
    for name, pieces in ArchiveReader(path).tables():
        _load_table(facts[name], pieces)
    for table in order:
        _execute(f'ALTER TABLE "{table.name}" ENABLE TRIGGER USER')
    for name, column, sequence in _fetch(_SEQUENCES_SQL, [[table.name for table in order]]):
        _execute(
            f"""SELECT setval('{sequence}', coalesce(max("{column}"), 1), max("{column}") IS NOT NULL) FROM "{name}" """
        )


def _load_table(facts: TableFacts, pieces: Iterator[bytes]) -> None:
    columns = ", ".join(f'"{column}"' for column in facts.columns)
    digest = hashlib.sha256()
    with connection.cursor() as cursor:
        with cursor.copy(f'COPY "{facts.name}" ({columns}) FROM STDIN') as copy:
            for piece in pieces:
                digest.update(piece)
                copy.write(piece)
        if (cursor.rowcount, digest.hexdigest()) != (facts.rows, facts.sha256):
            raise BackupError(f"the rows of {facts.name} changed while they were read")


def _fetch(sql: str, parameters: list[list[str]] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def _execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
