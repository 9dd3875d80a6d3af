"""Lists that others keep of their files: CSV or VOTable (TABLEDATA) of uri[, digest, length], read row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from datamodel.checksums import Checksum
from datamodel.errors import InvalidChecksumError, InvalidRequestError, InvalidUriError
from datamodel.uris import ArtifactUri

_NAMES = {
    "uri": "uri",
    "digest": "digest",
    "checksum": "digest",
    "contentchecksum": "digest",
    "md5": "digest",
    "sha256": "digest",
    "length": "length",
    "contentlength": "length",
    "size": "length",
}
_BARE_DIGESTS = {32: "md5", 40: "sha-1", 64: "sha-256"}
_DEFAULT_COLUMNS = ("uri", "digest", "length")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a list; `row` counts from 1, headings excluded."""

    row: int
    uri: str
    digest: str | None
    length: int | None


@dataclass(frozen=True, slots=True)
class Malformed:
    """A row that says nothing that could be compared."""

    row: int
    text: str
    reason: str


def read_list(stream: BinaryIO) -> Iterator[Entry | Malformed]:
    """Rows of a list, whichever of the two it is. Raises `InvalidRequestError` when it is neither."""
    buffered: io.BufferedReader = io.BufferedReader(_Raw(stream))
    is_votable = buffered.peek(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    return _read_votable(buffered) if is_votable else _read_csv(buffered)


class _Raw(io.RawIOBase):
    """Any binary stream, for a buffer that can look ahead."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # what BufferedReader hands over
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _read_csv(stream: io.BufferedReader) -> Iterator[Entry | Malformed]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    rows = (row for row in csv.reader(text) if row and not row[0].startswith("#"))
    columns: Sequence[str] = _DEFAULT_COLUMNS
    number = 0
    try:
        for row in rows:
            if number == 0 and row[0].strip().lower() in {"uri", *_NAMES} and ":" not in row[0]:
                columns = _columns(row)
                continue
            number += 1
            yield _entry(number, dict(zip(columns, row, strict=False)))
    except csv.Error as error:
        raise InvalidRequestError(f"the list cannot be read as CSV after row {number}: {error}") from error


def _read_votable(stream: io.BufferedReader) -> Iterator[Entry | Malformed]:
    names: list[str] = []
    number = 0
    table: Element | None = None
    try:
        for event, element in iterparse(stream, events=("start", "end"), forbid_dtd=True):
            tag = element.tag.rpartition("}")[2]
            if event == "start":
                table = _started(tag, element, names, table)
            elif tag == "TR":
                number += 1
                yield _entry(number, dict(zip(_columns(names), (cell.text or "" for cell in element), strict=False)))
                if table is not None:
                    # The rows behind are not needed any more: memory stays flat.
                    table.clear()
    except (ParseError, DefusedXmlException) as error:
        raise InvalidRequestError(f"the list cannot be read as a VOTable after row {number}: {error}") from error


def _started(tag: str, element: Element, names: list[str], table: Element | None) -> Element | None:
    if tag == "FIELD":
        names.append(element.get("name", ""))
    if tag in {"BINARY", "BINARY2", "FITS"}:
        raise InvalidRequestError(f"a VOTable with {tag} data is not understood: write it as TABLEDATA")
    return element if tag == "TABLEDATA" else table


def _columns(names: Iterable[str]) -> list[str]:
    columns = [_NAMES.get(name.strip().lower().replace("_", "").replace("-", ""), "") for name in names]
    if "uri" not in columns:
        raise InvalidRequestError("the list has no column uri; known are uri, digest (or md5, sha256) and length")
    return columns


def _entry(number: int, cells: dict[str, str]) -> Entry | Malformed:
    text = cells.get("uri", "").strip()
    try:
        uri = ArtifactUri.parse(text).value
        digest = _digest(cells.get("digest", "").strip())
        length = _length(cells.get("length", "").strip())
    except (InvalidUriError, InvalidChecksumError, InvalidRequestError) as error:
        return Malformed(number, text, error.detail)
    return Entry(number, uri, digest, length)


def _digest(text: str) -> str | None:
    if not text:
        return None
    bare = _BARE_DIGESTS.get(len(text)) if ":" not in text else None
    return str(Checksum.parse(f"{bare}:{text.lower()}" if bare else text))


def _length(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRequestError(f"invalid length {text!r}: write a number of bytes")
    return int(text)
