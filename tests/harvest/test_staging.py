"""What a page must prove before it counts: forms are those of the model and of what is served, checksums in SQL those in Python."""

from __future__ import annotations

import io
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings as hypothesis_settings, strategies as st

from datamodel import rules
from datamodel.errors import InvalidUriError
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri, bucket_of
from harvest.cells import NULL, text_of
from harvest.proof import Prover
from harvest.streams import ARTIFACTS, STREAMS, Column, Kind
from tests.factories import WHEN, artifact_row
from tests.fakes.feed import artifact_fields, cell, stamp

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
@example("cadc:e%CC%81")
@example("cadc:/a")
@example("cadc:a//b")
@example("cadc:a:")
@example("cadc:")
@example("a")
def test_a_uri_is_believed_if_it_is_canonical(uri: str) -> None:
    cells = [cell(value) for value in artifact_fields(artifact_row()).values()]
    cells[1] = cell(uri)
    cells[8] = rules.meta_checksum_of(replace(artifact_row_of(cells), uri=uri, uri_bucket=bucket_of(uri)))
    lines, prover = proven("1", *cells)
    assert bool(lines) == is_canonical(uri)
    assert [row.reason for row in prover.false_rows] == ([] if lines else ["uri is malformed"])


def artifact_row_of(cells: list[str]) -> ArtifactRow:
    return replace(artifact_row(), id=uuid.UUID(cells[0]))


def proven(*cells: str, columns: tuple[str, ...] = ARTIFACTS.wire_names) -> tuple[list[list[str]], Prover]:
    """The proven cells of a page of one row."""
    prover = Prover(ARTIFACTS, columns, latest="2100")
    page = io.BytesIO(("\t".join(cells) + "\n").encode())
    text = b"".join(prover.proven_lines(page)).decode()
    return [line.split("\t") for line in text.split("\n")[:-1]], prover


@SHARED
@given(texts, texts)
def test_whatever_text_is_served_is_believed_up_to_its_length(kind: str | None, encoding: str | None) -> None:
    row = artifact_row(content_type=kind, content_encoding=encoding)
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY (SELECT %s::text, %s::text) TO STDOUT", [kind, encoding]) as copy,
    ):
        written = b"".join(bytes(data) for data in copy).decode().removesuffix("\n").split("\t")
    cells = [cell(value) for value in artifact_fields(row).values()]
    cells[5:7] = written
    lines, _ = proven("1", *cells)
    assert [line[6:8] for line in lines] == [written]
    assert [text_of(word) for word in written] == [kind, encoding]


@pytest.mark.parametrize(
    ("text", "is_believed"),
    [
        ("x" * 128, True),
        ("x" * 129, False),
        (r"\t" * 128, True),
        (r"\t" * 129, False),
        (r"\x41", False),
        ("\r", False),
        ("\0", False),
        ("é" * 128, True),
    ],
)
def test_a_text_has_its_length_and_the_escapes_of_the_protocol(text: str, *, is_believed: bool) -> None:
    row = artifact_row(content_type=text_of(text))
    cells = [cell(value) for value in artifact_fields(row).values()]
    cells[5] = text
    lines, prover = proven("1", *cells)
    assert bool(lines) == is_believed
    assert [row.reason for row in prover.false_rows] == ([] if is_believed else ["contentType is malformed"])


def test_columns_come_in_any_order_some_unknown_and_some_absent() -> None:
    fields = artifact_fields(artifact_row()) | {"txid": "7", "colour": "red"}
    columns = [*reversed(fields)]
    columns.remove("metaModified")
    columns.remove("contentSha256")
    lines, _ = proven(*(cell(fields[wire]) for wire in columns), columns=tuple(columns))
    row = artifact_row(id=uuid.UUID(fields["id"]))
    assert lines == [["7", *(cell(fields[c.wire]) for c in ARTIFACTS.columns[1:10]), NULL, stamp(WHEN), row.uri_bucket]]


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
def test_what_is_served_is_well_formed_and_staged_as_it_was(kind: Kind) -> None:
    column = Column("wire", "value", kind)
    served = column.served(as_json=False).replace("t.value", f"%s::{TYPES[kind]}")
    text = sql(f"({served})::text", SAMPLES[kind])
    assert re.fullmatch(column.form, text)
    mark = r"\x" if kind is Kind.SHA256 else ""
    value = sql(f"%s::{kind.value[2].split()[0]}", mark + text)
    assert (bytes(value) if kind is Kind.SHA256 else value) == SAMPLES[kind]


def test_the_streams_are_applied_absence_first() -> None:
    assert list(STREAMS) == ["sites", "deleted-locations", "locations", "deleted-artifacts", "artifacts"]
