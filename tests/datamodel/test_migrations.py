"""Steps of the schema that a large inventory takes while it serves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection

from datamodel.rules import Located
from tests.factories import artifact_row, insert_artifact_row

pytestmark = pytest.mark.django_db(transaction=True)

BY_PLACE = "storage_location_by_place"
BEFORE = "storage_location_one_per_object"


@pytest.fixture
def before() -> Iterator[None]:
    """The schema without the index by place."""
    call_command("migrate", "datamodel", "0017", verbosity=0)
    yield
    call_command("migrate", "datamodel", verbosity=0)


def indexes() -> dict[str, bool]:
    """Of the places, by name, and whether each is whole."""
    sql = "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname = ANY(%s)"
    with connection.cursor() as cursor:
        cursor.execute(sql, [[BY_PLACE, BEFORE]])
        return dict(cursor.fetchall())


def test_an_index_by_place_that_was_left_half_built_is_built_anew_and_only_then_replaces_the_other(
    before: None,
) -> None:
    assert indexes() == {BEFORE: True}
    with connection.cursor() as cursor:
        # What a killed CREATE INDEX CONCURRENTLY leaves: one of that name, which keeps nothing unique.
        cursor.execute(f"CREATE INDEX {BY_PLACE} ON storage_location (storage_bucket, storage_id)")
        cursor.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [BY_PLACE])
    call_command("migrate", "datamodel", verbosity=0)
    assert indexes() == {BY_PLACE: True}
    one_object_has_one_artifact()


def test_the_step_to_the_index_by_place_may_be_repeated_where_it_ended_before_it_was_noted(before: None) -> None:
    call_command("migrate", "datamodel", "0018", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'datamodel' AND name = '0018_location_by_place'")
        cursor.execute("SELECT %s::regclass::oid", [BY_PLACE])
        built = cursor.fetchone()
    call_command("migrate", "datamodel", "0018", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::regclass::oid", [BY_PLACE])
        assert cursor.fetchone() == built
    one_object_has_one_artifact()


def one_object_has_one_artifact() -> None:
    place = Located("a" * 32, "aaa")
    insert_artifact_row(artifact_row("cadc:TEST/one"), place)
    with pytest.raises(IntegrityError, match=BY_PLACE):
        insert_artifact_row(artifact_row("cadc:TEST/other"), place)
