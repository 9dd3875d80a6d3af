"""What a page must prove before it counts: the SQL says the same as the model in Python."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, example, given, settings as hypothesis_settings, strategies as st

from datamodel import rules
from datamodel.errors import InvalidUriError
from datamodel.uris import ArtifactUri
from harvest.streams import STREAMS, URI_FORM, Column, Kind

pytestmark = pytest.mark.usefixtures("inventory")

SHARED = hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=False
)
texts = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30)
times = st.integers(0, 7_258_118_400_000).map(
    lambda millis: datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=millis)
)


def sql(expression: str, *parameters: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {expression}", parameters)
        return cursor.fetchone()[0]


@SHARED
@given(
    identity=st.uuids(),
    uri=st.text(st.characters(codec="ascii", exclude_characters="\x00"), max_size=40),
    checksum=st.text("0123456789abcdef:md", max_size=40),
    when=times,
    length=st.integers(0, 2**63 - 1),
    kind=texts,
    encoding=texts,
)
def test_the_checksum_of_an_artifact_in_sql_is_that_in_python(
    *, identity: uuid.UUID, uri: str, checksum: str, when: datetime, length: int, kind: str | None, encoding: str | None
) -> None:
    expected = rules.artifact_meta_checksum(
        identity=identity,
        uri=uri,
        uri_bucket="abcde",
        content_checksum=checksum,
        content_last_modified=when,
        content_length=length,
        content_type=kind,
        content_encoding=encoding,
    )
    arguments = [identity, uri, "abcde", checksum, when, length, kind, encoding]
    assert sql("artifact_meta_checksum(%s, %s, %s, %s, %s, %s, %s, %s)", *arguments) == expected


@SHARED
@given(
    identity=st.uuids(),
    text=texts,
    other=st.text(max_size=10).filter(lambda t: "\x00" not in t),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_the_checksums_of_events_and_sites_in_sql_are_those_in_python(
    identity: uuid.UUID, text: str | None, other: str, flags: tuple[bool, bool]
) -> None:
    other = other.encode("utf-8", "ignore").decode()
    assert sql("event_meta_checksum(%s, %s)", identity, text) == rules.event_meta_checksum(identity, text)
    read, write = flags
    expected = rules.site_meta_checksum(
        identity, allow_read=read, allow_write=write, name=other, resource_id=text or ""
    )
    assert sql("site_meta_checksum(%s, %s, %s, %s, %s)", identity, read, write, other, text or "") == expected


@pytest.mark.parametrize(
    ("identity", "uri", "checksum", "when", "length", "encoding", "kind", "expected"),
    [
        (
            "61d482fe-cd4c-475f-be93-8f9d16fd1edf",
            "cadc:IRIS/I001B3H0.fits",
            "md5:2ada853a8ae135e16504aeba4e47489e",
            "2006-07-25T16:15:19.000",
            1008000,
            None,
            "application/fits",
            "md5:ba0af5277852ab5aea7184fdac90ca9c",
        ),
        (
            "9b053ecf-4f3f-45f0-934b-8b32be42b6bf",
            "cadc:FOO/bar",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "2024-02-14T19:02:31.459",
            1024,
            "gzip",
            "text/plain",
            "md5:450e68e0536f9c0cf78452382c9db9f4",
        ),
        (
            "9b53914f-1465-4440-94fa-2871b8532fca",
            "cadc:IRIS/I001B1H0.fits",
            "md5:b6ead425ae84289246e4528bbdd7da9a",
            "2006-07-25T16:15:19.000",
            1008000,
            "",
            "application/fits",
            "md5:daf96da09f157ff65272118ebb2ec589",
        ),
    ],
)
def test_the_vectors_of_the_reference_hold_in_both_languages(
    *, identity: str, uri: str, checksum: str, when: str, length: int, encoding: str | None, kind: str, expected: str
) -> None:
    bucket = ArtifactUri.parse(uri).bucket
    moment = datetime.fromisoformat(f"{when}+00:00")
    arguments = [identity, uri, bucket, checksum, moment, length, kind, encoding]
    assert sql("artifact_meta_checksum(%s, %s, %s, %s, %s, %s, %s, %s)", *arguments) == expected
    assert (
        rules.artifact_meta_checksum(
            identity=uuid.UUID(identity),
            uri=uri,
            uri_bucket=bucket,
            content_checksum=checksum,
            content_last_modified=moment,
            content_length=length,
            content_type=kind,
            content_encoding=encoding,
        )
        == expected
    )


def is_canonical(uri: str) -> bool:
    try:
        return ArtifactUri.parse(uri).value == uri
    except InvalidUriError:
        return False


URI_CHARACTERS = "aZ09/:+-._~!'()*,=@%&$;?#[]\\^`{|}<>\" \té"


@SHARED
@given(st.text(URI_CHARACTERS, max_size=8).map(lambda path: f"cadc:{path}") | st.text(URI_CHARACTERS, max_size=12))
@example("cadc:a%C3%A9")
@example("cadc:a%c3%a9")
@example("cadc:/a")
@example("cadc:a//b")
@example("cadc:a:")
@example("a")
def test_the_form_of_a_uri_in_sql_is_that_of_the_model(uri: str) -> None:
    """Except that SQL does not see whether escaped bytes are UTF-8 in normal form."""
    if "%" in uri and not is_canonical(uri):
        return
    assert sql("%s ~ %s", uri, URI_FORM) == is_canonical(uri)


@contextmanager
def staged(column: Column, value: str | None) -> Iterator[None]:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE one ON COMMIT DROP AS SELECT %s::text AS {column.name}", [value])
        yield


SAMPLES: dict[Kind, object] = {
    Kind.UUID: uuid.UUID(int=7),
    Kind.INTEGER: 2**62,
    Kind.FLAG: True,
    Kind.SHA256: b"x" * 32,
    Kind.TIME: datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
}


TYPES = {
    Kind.UUID: "uuid",
    Kind.INTEGER: "bigint",
    Kind.FLAG: "boolean",
    Kind.SHA256: "bytea",
    Kind.TIME: "timestamptz(3)",
}


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.name)
def test_what_is_served_is_well_formed_and_read_back_as_it_was(kind: Kind) -> None:
    column = Column("wire", "value", kind)
    served = column.served(as_json=False).replace("t.value", f"%s::{TYPES[kind]}")
    text = sql(f"({served})::text", SAMPLES[kind])
    with staged(column, text), connection.cursor() as cursor:
        cursor.execute(f"SELECT {column.is_well_formed}, {column.read} FROM one")
        is_well_formed, value = cursor.fetchone()
    assert is_well_formed
    assert (bytes(value) if kind is Kind.SHA256 else value) == SAMPLES[kind]


def test_the_streams_are_applied_absence_first() -> None:
    assert list(STREAMS) == ["sites", "deleted-locations", "locations", "deleted-artifacts", "artifacts"]
