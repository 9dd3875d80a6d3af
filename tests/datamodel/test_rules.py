"""Metadata checksums (the reference's vectors; SQL and Python agree), collisions, updates, what a put means."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings, strategies as st

from datamodel import rules
from datamodel.models import InventoryIdentity
from datamodel.rules import MILLISECOND, ArtifactRow, PutMeaning, meta_checksum_of
from datamodel.uris import ArtifactUri
from tests.factories import WHEN, artifact_row

ARTIFACT_SQL = "SELECT artifact_meta_checksum(%s, %s, %s, %s, %s, %s, %s, %s)"

# Reference 1.1: (uri, contentChecksum, contentLastModified, length, encoding, type, id, metaChecksum)
VECTORS = [
    (
        "cadc:IRIS/I001B3H0.fits",
        "md5:2ada853a8ae135e16504aeba4e47489e",
        datetime(2006, 7, 25, 16, 15, 19, tzinfo=UTC),
        1008000,
        None,
        "application/fits",
        "61d482fe-cd4c-475f-be93-8f9d16fd1edf",
        "md5:ba0af5277852ab5aea7184fdac90ca9c",
    ),
    (
        "cadc:FOO/bar",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        datetime(2024, 2, 14, 19, 2, 31, 459000, tzinfo=UTC),
        1024,
        "gzip",
        "text/plain",
        "9b053ecf-4f3f-45f0-934b-8b32be42b6bf",
        "md5:450e68e0536f9c0cf78452382c9db9f4",
    ),
    (
        "cadc:IRIS/I001B1H0.fits",
        "md5:b6ead425ae84289246e4528bbdd7da9a",
        datetime(2006, 7, 25, 16, 15, 19, tzinfo=UTC),
        1008000,
        "",
        "application/fits",
        "9b53914f-1465-4440-94fa-2871b8532fca",
        "md5:daf96da09f157ff65272118ebb2ec589",
    ),
]
Vector = tuple[str, str, datetime, int, str | None, str | None, str, str]


def row_of(vector: Vector) -> ArtifactRow:
    uri, checksum, when, length, encoding, kind, identity, expected = vector
    return artifact_row(
        uri,
        id=uuid.UUID(identity),
        content_checksum=checksum,
        content_last_modified=when,
        content_length=length,
        content_type=kind,
        content_encoding=encoding,
        meta_checksum=expected,
    )


@pytest.mark.parametrize("vector", VECTORS, ids=[vector[0] for vector in VECTORS])
def test_the_metadata_checksum_is_that_of_the_reference(vector: Vector) -> None:
    row = row_of(vector)
    assert meta_checksum_of(row) == row.meta_checksum


def in_sql(row: ArtifactRow) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            ARTIFACT_SQL,
            [
                row.id,
                row.uri,
                row.uri_bucket,
                row.content_checksum,
                row.content_last_modified,
                row.content_length,
                row.content_type,
                row.content_encoding,
            ],
        )
        (checksum,) = cursor.fetchone()
    return str(checksum)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector[0] for vector in VECTORS])
@pytest.mark.django_db
def test_sql_gives_the_checksums_of_the_reference_too(vector: Vector) -> None:
    assert in_sql(row_of(vector)) == vector[-1]


# What a column can hold: no NUL; what Java trims is in it, and so are blanks that it does not trim.
TEXTS = st.none() | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    | st.sampled_from("\x01\x1f\x20\x85\u00a0\u2003é\U0001f600"),
    max_size=20,
)
WHENS = st.datetimes(datetime(1, 1, 2), datetime(9998, 12, 31)).map(  # noqa: DTZ001  # the zone is set below
    lambda when: rules.truncate_to_millis(when.replace(tzinfo=UTC))
)
URIS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
ROWS = st.builds(
    lambda identity, uri, when, length, kind, encoding: artifact_row(
        id=identity,
        content_last_modified=when,
        content_length=length,
        content_type=kind,
        content_encoding=encoding,
        meta_checksum="x",
        uri_bucket="0a1b2",
        content_checksum=f"md5:{length:032x}",
        uri="cadc:x" if not uri else "cadc:" + "".join(c for c in uri if c.isalnum()) + "x",
    ),
    st.uuids(),
    URIS,
    WHENS,
    st.integers(0, 2**63 - 1),
    TEXTS,
    TEXTS,
)


@pytest.mark.django_db
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_sql_and_python_agree_on_every_artifact(row: ArtifactRow) -> None:
    assert in_sql(row) == meta_checksum_of(row)


@pytest.mark.django_db
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.uuids(), TEXTS, st.booleans(), st.booleans(), TEXTS, TEXTS)
def test_sql_and_python_agree_on_events_and_sites(
    identity: uuid.UUID, uri: str | None, allow_read: bool, allow_write: bool, name: str | None, resource: str | None
) -> None:
    site = rules.site_meta_checksum(
        identity, allow_read=allow_read, allow_write=allow_write, name=name or "", resource_id=resource or ""
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT event_meta_checksum(%s, %s)", [identity, uri])
        assert cursor.fetchone() == (rules.event_meta_checksum(identity, uri),)
        cursor.execute(
            "SELECT site_meta_checksum(%s, %s, %s, %s, %s)",
            [identity, allow_read, allow_write, name or "", resource or ""],
        )
        assert cursor.fetchone() == (site,)


def test_empty_and_absent_text_are_one_to_the_checksum_but_blanks_inside_are_not() -> None:
    row = artifact_row(content_type=None)
    assert meta_checksum_of(replace(row, content_type="")) == row.meta_checksum
    assert meta_checksum_of(replace(row, content_type=" \x1f")) == row.meta_checksum
    assert meta_checksum_of(replace(row, content_type="a b")) != meta_checksum_of(replace(row, content_type="ab"))


def test_sha256_and_the_times_of_bookkeeping_are_outside_the_checksum() -> None:
    row = artifact_row()
    changed = replace(row, content_sha256=None, meta_modified_at=WHEN + MILLISECOND, last_modified=WHEN + MILLISECOND)
    assert meta_checksum_of(changed) == row.meta_checksum


LATER = WHEN + MILLISECOND
LOW, HIGH = uuid.UUID(int=1), uuid.UUID(int=2**127)
COLLISIONS = [
    ("the later content wins", (WHEN, HIGH), (LATER, LOW), False),
    ("at the same time the higher id wins", (WHEN, HIGH), (WHEN, LOW), True),
]


@pytest.mark.parametrize(("name", "one", "other", "verdict"), COLLISIONS, ids=[case[0] for case in COLLISIONS])
def test_a_collision_has_one_winner_whoever_asks(
    name: str, one: tuple[datetime, uuid.UUID], other: tuple[datetime, uuid.UUID], verdict: bool
) -> None:
    rows = [artifact_row(id=identity, content_last_modified=when) for when, identity in (one, other)]
    assert rules.is_winner(rows[0], rows[1]) is verdict
    assert rules.is_winner(rows[1], rows[0]) is not verdict


def test_an_artifact_cannot_collide_with_itself() -> None:
    row = artifact_row()
    with pytest.raises(ValueError, match="itself"):
        rules.is_winner(row, replace(row, content_last_modified=LATER))


UPDATES = [
    ("the later change wins", (LATER, "md5:0"), (WHEN, "md5:f"), True),
    ("at the same time the greater checksum wins", (WHEN, "md5:f"), (WHEN, "md5:0"), True),
    ("the same is not newer", (WHEN, "md5:0"), (WHEN, "md5:0"), False),
]


@pytest.mark.parametrize(("name", "one", "other", "verdict"), UPDATES, ids=[case[0] for case in UPDATES])
def test_of_two_updates_one_is_newer(
    name: str, one: tuple[datetime, str], other: tuple[datetime, str], verdict: bool
) -> None:
    rows = [artifact_row(meta_modified_at=when, meta_checksum=checksum) for when, checksum in (one, other)]
    assert rules.is_newer_metadata(rows[0], rows[1]) is verdict
    if one != other:
        assert rules.is_newer_metadata(rows[1], rows[0]) is not verdict


PUTS = [
    (None, False, "md5:a", 1, PutMeaning.CREATE),
    (("md5:a", 1), True, "md5:a", 1, PutMeaning.REAFFIRM),
    (("md5:a", 1), False, "md5:a", 1, PutMeaning.ATTACH),
    (("md5:a", 1), True, "md5:b", 1, PutMeaning.REPLACE),
    (("md5:a", 1), True, "md5:a", 2, PutMeaning.REPLACE),
    (("md5:a", 1), False, "sha-256:a", 1, PutMeaning.REPLACE),
]


@pytest.mark.parametrize(("known", "is_stored", "checksum", "length", "meaning"), PUTS)
def test_what_a_put_means(
    known: tuple[str, int] | None, is_stored: bool, checksum: str, length: int, meaning: PutMeaning
) -> None:
    existing = artifact_row(content_checksum=known[0], content_length=known[1]) if known else None
    decided = rules.decide_put(existing, is_stored=is_stored, content_checksum=checksum, content_length=length)
    assert decided is meaning


def test_every_meaning_of_a_put_is_in_the_table() -> None:
    assert {case[-1] for case in PUTS} == set(PutMeaning)


@given(WHENS, st.lists(st.none() | WHENS, max_size=3))
def test_new_content_is_later_than_everything_it_replaces(now: datetime, replaced: list[datetime | None]) -> None:
    when = rules.next_content_time(now, *replaced)
    assert when >= now
    assert all(when > other for other in replaced if other is not None)
    assert when in {now, *(other + MILLISECOND for other in replaced if other is not None)}


def test_same_content_is_checksum_and_length_and_nothing_else() -> None:
    row = artifact_row()
    assert rules.has_same_content(row, artifact_row("cadc:OTHER", content_type="x", content_last_modified=LATER))
    assert not rules.has_same_content(row, replace(row, content_length=row.content_length + 1))
    assert not rules.has_same_content(row, replace(row, content_checksum="md5:0"))


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))  # noqa: DTZ001  # the zone does not matter here
def test_times_are_truncated_never_rounded(when: datetime) -> None:
    assert timedelta(0) <= when - rules.truncate_to_millis(when) < MILLISECOND


def test_the_clock_of_the_database_has_milliseconds(inventory: InventoryIdentity) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT inventory_now(), clock_timestamp() - inventory_now() < interval '1 minute'")
        now, is_close = cursor.fetchone()
        assert now == rules.truncate_to_millis(now)
    assert is_close


def test_the_bucket_of_a_row_is_that_of_its_uri() -> None:
    assert artifact_row("cadc:FOO/bar").uri_bucket == ArtifactUri.parse("cadc:FOO/bar").bucket == "ec9e0"
