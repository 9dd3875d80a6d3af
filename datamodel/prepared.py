"""Cursors for the statements of hot paths: each connection has the server parse and plan them once.

Values travel beside the statement, so it must not change with them. Elsewhere Django's own cursor is right: it writes the values
into the text, which plans each statement for its values and takes any of them anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.backends.utils import CursorWrapper
from psycopg import Cursor


def prepared_cursor() -> CursorWrapper:
    """On Django's connection, and in its transaction. What is repeated is prepared, unless INVENTORY_PREPARED_STATEMENTS is off."""
    connection.ensure_connection()
    cursor: Any = Cursor(connection.connection)
    return connection.make_debug_cursor(cursor) if connection.queries_logged else connection.make_cursor(cursor)


def prepared_rows(sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """All rows of one statement: in the transaction that this thread is in, or by itself.

    By itself it has a connection of the pool for no longer than that, and past Django's own, to open and close which costs more
    than such a statement does. Raises as Django's cursors do.
    """
    # The proxy that Django offers instead looks for this thread's connection at each of its attributes.
    ours = connections[DEFAULT_DB_ALIAS]
    is_busy = ours.connection is not None or ours.queries_logged or ours.execute_wrappers
    pool: Any = None if is_busy else getattr(ours, "pool", None)
    if pool is None:
        with prepared_cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())
    with ours.wrap_database_errors:
        pool.open()
        lent = pool.getconn()
        try:
            if not lent.autocommit:
                lent.autocommit = True
            rows: list[tuple[Any, ...]] = lent.rows(sql, parameters)
            return rows
        finally:
            pool.putconn(lent)
