"""Pages of a feed: what is asked, what has arrived, and the proof that it is whole. No HTTP."""

from __future__ import annotations

import hashlib
import re
import tempfile
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self
from urllib.parse import urlencode

from datamodel.errors import InvalidRequestError, RemoteProtocolError, RemoteUnavailableError
from datamodel.positions import Cursor
from datamodel.uris import Namespace
from harvest.proof import Prover
from harvest.streams import END_MARK, HEADER_MARK, Stream

_LINE_BYTES = 8192
_MEMORY_BYTES = 16 * 1024 * 1024
# More than any row that passes the checks can have (uri 512, types 2 x 128, checksums, escapes).
_ROW_BYTES = 4096
# The longest query that every server takes; more namespaces than fit are asked for by their schemes.
QUERY_LENGTH = 6000
_TRANSACTION = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What is asked of a stream."""

    stream: Stream
    cursor: Cursor | None
    limit: int
    namespaces: tuple[Namespace, ...] = ()
    holder: uuid.UUID | None = None
    sender: uuid.UUID | None = None

    @property
    def text(self) -> str:
        """The query string; asking for more than is wanted is always right, for rows are chosen again on arrival."""
        fields: list[tuple[str, str]] = [("limit", str(self.limit))]
        if self.cursor is not None:
            fields.append(("cursor", str(self.cursor)))
        if self.holder is not None:
            fields.append(("holder", str(self.holder)))
        if self.sender is not None:
            fields.append(("sender", str(self.sender)))
        names = [namespace.value for namespace in self.namespaces]
        schemes = sorted({name.partition(":")[0] + ":" for name in names})
        for choice in (names, schemes):
            text = urlencode([*fields, *(("namespace", name) for name in choice)])
            if len(text) <= QUERY_LENGTH:
                return text
        return urlencode([pair for pair in fields if pair[0] != "holder"])


@dataclass(frozen=True, slots=True)
class Page:
    """Proven rows in a file (COPY text, `columns` in order), after `start`; the next page begins at `next_cursor`. Close it."""

    stream: Stream
    start: Cursor | None
    epoch: str
    columns: tuple[str, ...]
    rows: IO[bytes]
    count: int
    next_cursor: Cursor
    more: bool
    # The remote says that no deletion is newer than this transaction; None if it does not say.
    deletions: int | None = None
    # Who has proven the rows, which are those that proved true then, as `staging.prove` leaves them.
    prover: Prover | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.rows.close()


def new_rows() -> IO[bytes]:
    """A file for rows: in memory while they are few."""
    return tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)


class Receiver:
    """Takes the bytes of one page: header line, rows into the file, and the end line, which is known only at the end."""

    def __init__(self, remote_name: str, query: PageQuery, rows: IO[bytes]) -> None:
        self._remote_name = remote_name
        self._query = query
        self._rows = rows
        self._digest = hashlib.sha256()
        self._count = 0
        self._size = 0
        self._header: list[str] | None = None
        # What may still turn out to be the end line.
        self._held = b""

    def take(self, chunk: bytes) -> None:
        self._held += chunk
        if self._header is None:
            line, newline, rest = self._held.partition(b"\n")
            if not newline:
                self._require(len(line) <= _LINE_BYTES, "sent no header line")
                return
            self._header, self._held = self._parse_header(line), rest
        kept = self._held.rfind(b"\n", 0, -1) + 1
        self._require(len(self._held) - kept <= _LINE_BYTES, "sent a line that is too long")
        self._keep(self._held[:kept])
        self._held = self._held[kept:]

    def page(self, epoch_header: str | None, deletions_header: str | None = None) -> Page:
        """The whole page, proven."""
        words = self._held.decode("utf-8", "replace").split("\t")
        if self._header is None or words[0] != END_MARK or not self._held.endswith(b"\n") or len(words) < 5:
            raise RemoteUnavailableError(
                f"{self._remote_name} stopped in the middle of a page of {self._query.stream.name}"
            )
        _, count, cursor, digest, more = (word.strip() for word in words[:5])
        epoch = self._header[0]
        self._require(count == str(self._count), f"counted {count} rows but sent {self._count}")
        self._require(digest == self._digest.hexdigest(), "sent rows that do not fit their digest")
        self._require(self._count <= self._query.limit, "sent more rows than were asked for")
        self._require(epoch_header in {None, epoch}, "names two epochs in one answer")
        self._require(more in {"0", "1"}, "does not say whether more rows follow")
        following = self._parse_cursor(cursor, epoch, more=more == "1")
        self._rows.seek(0)
        columns = tuple(self._header[1:])
        deletions = int(deletions_header) if deletions_header and _TRANSACTION.fullmatch(deletions_header) else None
        query, is_more = self._query, more == "1"
        return Page(query.stream, query.cursor, epoch, columns, self._rows, self._count, following, is_more, deletions)

    def _parse_header(self, line: bytes) -> list[str]:
        """Epoch and columns. A newer protocol version may add columns and words to the end line, never take any away."""
        words = line.decode("utf-8", "replace").split("\t")
        self._require(words[0] == HEADER_MARK and len(words) > 4, "did not send a feed")
        self._require(words[1].isdigit() and int(words[1]) >= 1, "sent a feed without a version")
        self._require(words[3] == self._query.stream.name, f"sent the stream {words[3]!r}")
        columns = words[4:]
        self._require(len(set(columns)) == len(columns), "names a column twice")
        missing = [c.wire for c in self._query.stream.columns if not c.is_optional and c.wire not in columns]
        self._require(not missing, f"left out {', '.join(missing)}")
        cursor = self._query.cursor
        self._require(cursor is None or cursor.epoch == words[2], "answered a cursor with rows of another epoch")
        return [words[2], *columns]

    def _parse_cursor(self, text: str, epoch: str, *, more: bool) -> Cursor:
        try:
            cursor = Cursor.parse(text)
        except InvalidRequestError:
            raise self._error("sent an end line without a cursor") from None
        start = self._query.cursor or Cursor.before_all(epoch)
        before, after = (start.txid, start.row_id), (cursor.txid, cursor.row_id)
        self._require(cursor.epoch == epoch, "sent a cursor of another epoch")
        self._require(after > before or (after == before and not more), "sent a cursor that does not go on")
        return cursor

    def _keep(self, lines: bytes) -> None:
        self._rows.write(lines)
        self._digest.update(lines)
        self._count += lines.count(b"\n")
        self._size += len(lines)
        self._require(self._size <= self._query.limit * _ROW_BYTES + _LINE_BYTES, "sent a page that is too large")

    def _require(self, condition: bool, failure: str) -> None:  # noqa: FBT001  # reads as "require that, else …"
        if not condition:
            raise self._error(failure)

    def _error(self, failure: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self._remote_name} {failure} (stream {self._query.stream.name})")
