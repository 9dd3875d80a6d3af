"""The five streams as data: wire names, tables, columns and order; both ends of the exchange are built from it.

A column knows how it is written on the wire (an expression for the serving side) and what text is well-formed there (a form
for the receiving side, which `proof.py` looks at).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from datamodel.checksums import DIGEST_BYTES
from datamodel.uris import MAX_URI_LENGTH
from harvest.cells import artifact_checksum, event_checksum, site_checksum

PROTOCOL_VERSION = 1
HEADER_MARK = "#storage-inventory-feed"
END_MARK = "#end"
# A further word of the end line: rows that the asker may not harvest were left out.
LIMITED_MARK = "limited"
EPOCH_HEADER = "X-Inventory-Epoch"
READER_HEADER = "x-inventory-reader"
# With a page of artifacts: no deletion is newer than this transaction, or the event of it is gone.
DELETIONS_HEADER = "X-Inventory-Deletions"

# What COPY writes as one field: it escapes what it must, and `\N` alone is no text.
_PLAIN, _ESCAPED = r"[^\t\r\n\0\\]", r"\\[bfnrtv\\]"
# The model's rules for a canonical uri (reference 1.3): `%` only as the escape of a byte beyond ASCII, of which `proof.py` sees the rest.
_URI_FORM = (
    rf"(?=[^\t]{{1,{MAX_URI_LENGTH}}}(?![^\t]))"
    r"[A-Za-z][A-Za-z0-9+.-]*:(?!/)[A-Za-z0-9!'()*+,./:=@_~-]*"
    r"(?:%[89A-F][0-9A-F][A-Za-z0-9!'()*+,./:=@_~-]*)*(?<![/:])"
)
_CHECKSUM_FORM = "|".join(f"{name}:[0-9a-f]{{{2 * size}}}" for name, size in DIGEST_BYTES.items())


def _text_form(least: int, most: int) -> str:
    """Of a text of so many characters; what needs no escapes is looked at first, for that is much faster."""
    size = f"{{{least},{most}}}"
    return rf"{_PLAIN}{size}|(?:{_PLAIN}|{_ESCAPED}){size}"


class Kind(Enum):
    """How a column is written on the wire: (serving expression of `{}`, form of its text, type of the staged value)."""

    UUID = ("{}", "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "uuid")
    TEXT = ("{}", "", "text STORAGE PLAIN")
    INTEGER = ("{}", "[0-9]{1,18}|[1-8][0-9]{18}", "bigint")
    FLAG = ("{}::text", "true|false", "boolean")
    SHA256 = ("encode({}, 'hex')", "[0-9a-f]{64}", "bytea STORAGE PLAIN")
    TIME = (
        "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')",
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}",
        "timestamptz",
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name on the wire, in our tables, and what must hold of its text beside its kind.

    A nullable column may be empty; one with `stand_in` may be absent: that other column's value is used then. A text has
    `least` to `most` characters, or a form of its own.
    """

    wire: str
    name: str
    kind: Kind = Kind.TEXT
    is_nullable: bool = False
    is_optional: bool = False
    stand_in: str | None = None
    own_form: str | None = None
    least: int = 0
    most: int = 136

    def served(self, *, as_json: bool) -> str:
        """The expression of the serving side over the table alias `t`; JSON has booleans of its own."""
        form = "{}" if as_json and self.kind is Kind.FLAG else self.kind.value[0]
        return form.format(f"t.{self.name}")

    @property
    def form(self) -> str:
        """A regular expression for its text on the wire."""
        form = self.own_form or self.kind.value[1] or _text_form(self.least, self.most)
        return rf"\\N|{form}" if self.is_nullable or self.is_optional else form


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of news. `checksum` computes `metaChecksum` from the proven cells of a row."""

    name: str
    table: str
    columns: tuple[Column, ...]
    checksum: Callable[[Sequence[str]], str]
    has_uri: bool = True

    @property
    def wire_names(self) -> tuple[str, ...]:
        return tuple(column.wire for column in self.columns)


_POSITION = Column("txid", "txid", Kind.INTEGER)
_ID = Column("id", "id", Kind.UUID)
_LAST_MODIFIED = Column("lastModified", "last_modified", Kind.TIME)
# Its form needs no look: it must equal what is computed.
_META_CHECKSUM = Column("metaChecksum", "meta_checksum")
_EVENT_COLUMNS = (
    _POSITION,
    _ID,
    Column("uri", "uri", is_nullable=True, own_form=_URI_FORM),
    _LAST_MODIFIED,
    _META_CHECKSUM,
)


def _short(wire: str, name: str, length: int) -> Column:
    return Column(wire, name, is_nullable=True, most=length)


SITES = Stream(
    "sites",
    "storage_site",
    (
        _POSITION,
        _ID,
        Column("resourceID", "resource_id", least=1, most=512),
        Column("name", "name", most=32),
        Column("allowRead", "allow_read", Kind.FLAG),
        Column("allowWrite", "allow_write", Kind.FLAG),
        _LAST_MODIFIED,
        _META_CHECKSUM,
    ),
    site_checksum,
    has_uri=False,
)
DELETED_LOCATIONS = Stream("deleted-locations", "deleted_storage_location_event", _EVENT_COLUMNS, event_checksum)
LOCATIONS = Stream("locations", "storage_location_event", _EVENT_COLUMNS, event_checksum)
DELETED_ARTIFACTS = Stream(
    "deleted-artifacts",
    "deleted_artifact_event",
    (
        *_EVENT_COLUMNS,
        Column("deletedAt", "deleted_at", Kind.TIME, is_optional=True, stand_in="last_modified"),
    ),
    event_checksum,
)
ARTIFACTS = Stream(
    "artifacts",
    "artifact",
    (
        _POSITION,
        _ID,
        Column("uri", "uri", own_form=_URI_FORM),
        Column("contentChecksum", "content_checksum", own_form=_CHECKSUM_FORM),
        Column("contentLastModified", "content_last_modified", Kind.TIME),
        Column("contentLength", "content_length", Kind.INTEGER),
        _short("contentType", "content_type", 128),
        _short("contentEncoding", "content_encoding", 128),
        _LAST_MODIFIED,
        _META_CHECKSUM,
        Column("contentSha256", "content_sha256", Kind.SHA256, is_nullable=True, is_optional=True),
        Column("metaModified", "meta_modified_at", Kind.TIME, is_optional=True, stand_in="last_modified"),
    ),
    artifact_checksum,
)

# In the order of application: news of absence before news of presence.
STREAMS = {stream.name: stream for stream in (SITES, DELETED_LOCATIONS, LOCATIONS, DELETED_ARTIFACTS, ARTIFACTS)}
