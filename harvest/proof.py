"""Whether the rows of a page are what they claim to be: their form, their times, their metadata checksums. No clock, no database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import IO

from datamodel.errors import InvalidUriError, RemoteProtocolError
from datamodel.uris import ArtifactUri, bucket_of
from harvest.cells import NULL, millis_of
from harvest.streams import ARTIFACTS, Kind, Stream

# The list of what was set aside is for an operator's eye, and no peer shall fill our disk with it.
MOST_LISTED = 100
_CHUNK_BYTES = 256 * 1024
# In every stream that has uris.
_URI_AT = 2
_ID_AT = 1
# Earlier than any inventory. Times are compared as they are written, for that is their order, too.
_EARLIEST = "1970-01-01"


@dataclass(frozen=True, slots=True)
class FalseRow:
    """A row that cannot be believed: its id if it has one, its cells without the transaction, and why."""

    row_id: str | None
    line: str
    reason: str


class Prover:
    """Proves the rows of one page, whose columns may be in any order, some of them unknown to us.

    A proven row has the cells of its stream's columns in their order, and the bucket of its uri if it is an artifact.
    """

    def __init__(self, stream: Stream, columns: Sequence[str], *, latest: str) -> None:
        """`latest`: the time, as it is written on the wire, beyond which none can be believed."""
        self._stream, self._columns, self._latest = stream, tuple(columns), latest
        forms = {column.wire: f"({column.form})" for column in stream.columns}
        self._match = re.compile("\t".join(forms.get(wire, "[^\t]*") for wire in columns)).fullmatch
        known = [wire for wire in columns if wire in forms]
        # What is absent is the cell after the last one.
        self._in_order = itemgetter(*(known.index(wire) if wire in known else len(known) for wire in stream.wire_names))
        names = [column.name for column in stream.columns]
        numbered = list(enumerate(stream.columns))
        self._stand_ins = [(n, names.index(column.stand_in)) for n, column in numbered if column.stand_in is not None]
        self._times = [n for n, column in numbered if column.kind is Kind.TIME]
        self._digests = [n for n, column in numbered if column.kind is Kind.SHA256]
        self._has_uri, self._has_bucket = stream.has_uri, stream is ARTIFACTS
        self._checksum = stream.checksum
        self._checksum_at = names.index("meta_checksum")
        self._ids: set[str] = set()
        self.proven = 0
        self.rejected = 0
        # The first of them.
        self.false_rows: list[FalseRow] = []

    @property
    def has_repeated(self) -> bool:
        """Whether an id was proven more than once."""
        return len(self._ids) < self.proven

    def proven_lines(self, rows: IO[bytes]) -> Iterator[bytes]:
        """The proven rows, as COPY takes them. Raises `RemoteProtocolError` for what is no table."""
        while lines := rows.readlines(_CHUNK_BYTES):
            try:
                text = b"".join(lines).decode()
            except UnicodeDecodeError as error:
                raise self._no_table(str(error)) from None
            proven = [cells for line in text.split("\n")[:-1] if (cells := self._proven(line))]
            self.proven += len(proven)
            self._ids.update([cells[_ID_AT] for cells in proven])
            yield "".join(["\t".join(cells) + "\n" for cells in proven]).encode()

    def _proven(self, line: str) -> list[str]:
        """Its cells, or none."""
        match = self._match(line)
        if match is None:
            self._reject(line, self._malformation(line))
            return []
        cells = list(self._in_order((*match.groups(), NULL)))
        doubt = self._complete(cells)
        if doubt:
            self._reject(line, doubt)
            return []
        return cells

    def _complete(self, cells: list[str]) -> str:
        """Adds to the cells what the wire has not; why they cannot be believed, or nothing."""
        for n, stand_in in self._stand_ins:
            if cells[n] == NULL:
                cells[n] = cells[stand_in]
        latest = self._latest
        for n in self._times:
            cell = cells[n]
            try:
                millis_of(cell)
            except ValueError:
                return f"{self._stream.wire_names[n]} is malformed"
            if not _EARLIEST <= cell <= latest:
                return f"{self._stream.wire_names[n]} is out of range"
        if self._has_uri:
            uri = cells[_URI_AT]
            if "%" in uri and not _is_canonical(uri):
                return "uri is malformed"
            if self._has_bucket:
                cells.append(bucket_of(uri))
        if self._checksum(cells) != cells[self._checksum_at]:
            return "metaChecksum does not fit the row"
        for n in self._digests:
            if cells[n] != NULL:
                cells[n] = rf"\\x{cells[n]}"
        return ""

    def _malformation(self, line: str) -> str:
        """Of a row that does not have the form of the whole."""
        words = line.split("\t")
        if len(words) != len(self._columns):
            raise self._no_table(f"a line of {len(words)} columns, not {len(self._columns)}")
        found = dict(zip(self._columns, words, strict=True))
        for column in self._stream.columns:
            word = found.get(column.wire, NULL)
            if not re.fullmatch(column.form, word):
                return f"{column.wire} is {'missing' if word == NULL else 'malformed'}"
        return "a cell is malformed"

    def _reject(self, line: str, reason: str) -> None:
        self.rejected += 1
        if len(self.false_rows) < MOST_LISTED:
            found = dict(zip(self._columns, line.split("\t"), strict=True))
            cells = [found.get(wire, NULL) for wire in self._stream.wire_names if wire != "txid"]
            identity = found["id"]
            is_id = re.fullmatch(Kind.UUID.value[1], identity) is not None
            # PostgreSQL takes every character but this one.
            shown = "\t".join(cells).replace("\0", "\N{REPLACEMENT CHARACTER}")
            self.false_rows.append(FalseRow(identity if is_id else None, shown, reason))

    def _no_table(self, why: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"a page of {self._stream.name} is not a table: {why}")


def _is_canonical(uri: str) -> bool:
    with suppress(InvalidUriError):
        return ArtifactUri.parse(uri).value == uri
    return False


def staged_columns(stream: Stream) -> list[tuple[str, str]]:
    """Name and type of each cell of a proven row."""
    columns = [(column.name, column.kind.value[2]) for column in stream.columns]
    return [*columns, ("uri_bucket", Kind.TEXT.value[2])] if stream is ARTIFACTS else columns
