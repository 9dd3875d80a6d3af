"""What hot paths send is prepared on its connection, unless that is switched off."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection, transaction

from datamodel import operations
from datamodel.prepared import prepared_cursor
from datamodel.uris import ArtifactUri
from tests.factories import new_content

pytestmark = pytest.mark.usefixtures("inventory")


def prepared() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [statement for (statement,) in cursor.fetchall()]


def put_some() -> None:
    for _ in range(12):
        operations.record_stored(uri=ArtifactUri.parse(f"cadc:TEST/{uuid.uuid4()}"), content=new_content(b"one"))


def test_what_a_put_sends_is_prepared() -> None:
    with transaction.atomic():
        put_some()
        found = prepared()
    assert any("INSERT INTO artifact" in statement for statement in found)
    assert any("FOR UPDATE" in statement for statement in found)


def test_nothing_is_prepared_behind_a_pooler_of_transactions() -> None:
    with transaction.atomic():
        connection.ensure_connection()
        connection.connection.prepare_threshold = None
        put_some()
        assert prepared() == []


def test_a_statement_is_counted_as_any_other() -> None:
    connection.force_debug_cursor = True
    try:
        with prepared_cursor() as cursor:
            cursor.execute("SELECT %s::int", [7])
            assert cursor.fetchone() == (7,)
        assert "::int" in connection.queries[-1]["sql"]
    finally:
        connection.force_debug_cursor = False
