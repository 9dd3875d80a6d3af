"""Writing a backup: every row of this inventory's database, of one moment, whatever program of PostgreSQL is installed.

Rows only: the schema comes from the migrations, whose names are in the manifest. Secrets in the rows stay sealed; the key they are sealed
with is not in the backup, only its fingerprint.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from datamodel import positions
from datamodel.archive import FORMAT, SUFFIX, ArchiveWriter, BackupError, Manifest, TableFacts, published
from datamodel.positions import HORIZON_SQL
from datamodel.wire import time_text

# What is not brought back: the schema's own record (the manifest has it), and who was logged in.
_LEFT_OUT = ["django_migrations", "django_session"]
_TABLES_SQL = """
    SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND NOT c.relname = ANY(%s)
    GROUP BY c.relname ORDER BY c.relname
"""
_REFERENCES_SQL = """
    SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint
    WHERE contype = 'f' AND connamespace = current_schema()::regnamespace AND conrelid <> confrelid
"""
# The form of values must not hang on what somebody has configured for the role or the database.
_FORMS = ("datestyle = 'ISO, YMD'", "intervalstyle = 'postgres'", "bytea_output = 'hex'", "extra_float_digits = 1")


@dataclass(frozen=True, slots=True)
class Table:
    """A table with the columns that are written."""

    name: str
    columns: list[str]


def write_backup(target: Path) -> tuple[Path, Manifest]:
    """Write a backup to this new file, or under a name with the time into this directory; returns where, and its manifest.

    All rows are of one snapshot, which holds back neither the feed nor any writer. Raises `BackupError`, `NotConfiguredError`;
    then there is no file.
    """
    if settings.INVENTORY_SECRET_KEY_IS_TEMPORARY:
        raise BackupError("set INVENTORY_SECRET_KEY, as the services have it: the backup says which key it needs")
    with transaction.atomic():
        _execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        patiently()
        manifest = _describe()
        path = target / _file_name(manifest) if target.is_dir() else target
        with published(path) as file:
            writer = ArchiveWriter(file)
            facts = [_write_table(writer, table) for table in tables_in_order()]
            manifest.tables.extend(facts)
            writer.finish(manifest)
    return path, manifest


def chosen_file(source: Path) -> Path:
    """This file, or the newest backup of this inventory in a directory. Raises `BackupError`."""
    if not source.is_dir():
        return source
    found = sorted(source.glob(f"{settings.INVENTORY_NAME}-*{SUFFIX}"))
    if not found:
        raise BackupError(f"{source} holds no backup of {settings.INVENTORY_NAME}")
    return found[-1]


def tables_in_order() -> list[Table]:
    """All tables that hold this inventory's rows, each after those that it refers to."""
    columns: dict[str, list[str]] = dict(_fetch(_TABLES_SQL, [_LEFT_OUT]))
    waits_for: dict[str, set[str]] = {name: set() for name in columns}
    for name, other in _fetch(_REFERENCES_SQL):
        if name in waits_for and other in waits_for:
            waits_for[name].add(other)
    ordered: list[Table] = []
    while waits_for:
        free = sorted(name for name, others in waits_for.items() if not others)
        if not free:
            raise BackupError(f"the tables {', '.join(sorted(waits_for))} refer to each other in a circle")
        ordered += [Table(name, columns[name]) for name in free]
        waits_for = {name: others.difference(free) for name, others in waits_for.items() if name not in free}
    return ordered


def fingerprint(key: str, inventory_id: str) -> str:
    """Tells whether a key is the right one, and is of no use to who wants to find it out."""
    return hashlib.scrypt(key.encode(), salt=inventory_id.encode(), n=2**14, r=8, p=1, dklen=16).hex()


def configured_fingerprints(inventory_id: str) -> list[str]:
    """Of INVENTORY_SECRET_KEY, then of its fallbacks."""
    return [fingerprint(key, inventory_id) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]


def patiently() -> None:
    """In this transaction no statement is too long, no pause of ours too, and values have one form."""
    for form in ("statement_timeout = 0", "idle_in_transaction_session_timeout = 0", *_FORMS):
        _execute(f"SET LOCAL {form}")


def _describe() -> Manifest:
    identity = positions.read_identity()
    (horizon, now, version), *_ = _fetch(
        f"SELECT {HORIZON_SQL}, inventory_now(), current_setting('server_version_num')::int"
    )
    applied = _fetch("SELECT app, name FROM django_migrations ORDER BY app, name")
    return Manifest(
        format=FORMAT,
        version=settings.INVENTORY_VERSION,
        role=settings.INVENTORY_ROLE,
        name=settings.INVENTORY_NAME,
        inventory_id=str(identity.inventory_id),
        epoch=identity.epoch,
        horizon=horizon,
        taken_at=time_text(now),
        server_version=version,
        secrets=configured_fingerprints(str(identity.inventory_id)),
        migrations=[list(row) for row in applied],
    )


def _file_name(manifest: Manifest) -> str:
    moment = re.sub("[-:.]", "", manifest.taken_at[:23])
    return f"{manifest.name}-{moment}{SUFFIX}"


def _write_table(writer: ArchiveWriter, table: Table) -> TableFacts:
    return writer.add_table(table.name, table.columns, _copied(table))


def _copied(table: Table) -> Iterator[bytes | memoryview]:
    columns = ", ".join(map(connection.ops.quote_name, table.columns))
    with connection.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({columns}) TO STDOUT') as copy:
        yield from copy


def _fetch(sql: str, parameters: list[list[str]] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def _execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
