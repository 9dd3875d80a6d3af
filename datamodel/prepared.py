"""Cursors for the statements of hot paths: each connection has the server parse and plan them once.

Values travel beside the statement, so it must not change with them. Elsewhere Django's own cursor is right: it writes the values
into the text, which plans each statement for its values and takes any of them anywhere.
"""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper
from psycopg import Cursor


def prepared_cursor() -> CursorWrapper:
    """On Django's connection, and in its transaction. What is repeated is prepared, unless INVENTORY_PREPARED_STATEMENTS is off."""
    connection.ensure_connection()
    cursor: Any = Cursor(connection.connection)
    return connection.make_debug_cursor(cursor) if connection.queries_logged else connection.make_cursor(cursor)
