"""The schema of a new inventory in one step: what all migrations together would make of an empty database, as a file of SQL.

Django makes the models of each migration anew, which takes seconds of the processor, and nothing of them is needed where there are
no rows. `make baseline` writes the files, a test compares them with what the migrations make; what comes after the file is migrated.
"""

from __future__ import annotations

from pathlib import Path

from django.db import connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

APPLIED = "-- applied "
"""What a line of such a file begins with that names a migration: `app.name`."""

_LOCK = 0x6261_7365
_IS_EMPTY_SQL = """
    SELECT NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = current_schema()::regnamespace)
        AND NOT EXISTS (SELECT FROM pg_proc WHERE pronamespace = current_schema()::regnamespace)
"""


def make_schema(path: Path) -> bool:
    """Whether the database was empty and now has the schema of this file, and its migrations as applied; all or nothing.

    Those who come at once take turns. False, and nothing is done, for a database that has anything in it, and for a file that
    names a migration which is not installed here: an older version of a library would meet newer tables.
    """
    text = path.read_text(encoding="utf-8")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        cursor.execute(_IS_EMPTY_SQL)
        if cursor.fetchone() != (True,):
            return False
        applied = [_named(line) for line in text.splitlines() if line.startswith(APPLIED)]
        if not MigrationLoader(connection).disk_migrations.keys() >= set(applied):
            return False
        # Functions come before the tables that they speak of.
        cursor.execute("SET LOCAL check_function_bodies = off")
        cursor.execute(text)
        recorder = MigrationRecorder(connection)
        recorder.ensure_schema()
        recorder.migration_qs.bulk_create(recorder.Migration(app=app, name=name) for app, name in applied)
    return True


def _named(line: str) -> tuple[str, str]:
    app, _, name = line.removeprefix(APPLIED).partition(".")
    return app, name
