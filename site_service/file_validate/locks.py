"""The lock of a storage id: who decides about one object decides alone."""

from __future__ import annotations

from django.db import connection


def lock_storage_id(storage_id: str) -> None:
    """Until the end of the transaction. Rows must be read after it, in statements of their own."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('storage ' || %s, 0))", [storage_id])
