"""The five streams as data: wire names, tables, columns and order; both ends of the exchange are built from it.

A column knows its form on the wire (one expression for the serving side) and how text from the wire is checked and read
back (expressions for the receiving side).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from datamodel.checksums import DIGEST_BYTES

PROTOCOL_VERSION = 1
HEADER_MARK = "#storage-inventory-feed"
END_MARK = "#end"
# A further word of the end line: rows that the asker may not harvest were left out.
LIMITED_MARK = "limited"
EPOCH_HEADER = "X-Inventory-Epoch"
READER_HEADER = "x-inventory-reader"
# With a page of artifacts: no deletion is newer than this transaction, or the event of it is gone.
DELETIONS_HEADER = "X-Inventory-Deletions"

# The model's rules for a canonical uri (reference 1.3): `%` only as the escape of a byte beyond ASCII.
URI_FORM = r"^[A-Za-z][A-Za-z0-9+.-]*:(?!/)([A-Za-z0-9!'()*+,./:=@_~-]|%[89A-F][0-9A-F])*([A-Za-z0-9!'()*+,.=@_~-]|%[89A-F][0-9A-F])$"
# Lengths are counted apart: a pattern with a bounded repeat is ten times slower in PostgreSQL.
_TIME_FORM = "length({0}) = 23 AND {0} ~ '^[0-9-]+T[0-9:.]+$' AND pg_input_is_valid({0}, 'timestamp')"
_SHA256_FORM = "length({0}) = 64 AND {0} ~ '^[0-9a-f]+$'"
_CHECKSUM_LENGTHS = ", ".join(f"('{name}', {len(name) + 1 + 2 * size})" for name, size in DIGEST_BYTES.items())
CHECKSUM_FORM = (
    f"(split_part({{0}}, ':', 1), length({{0}})) IN ({_CHECKSUM_LENGTHS}) AND {{0}} ~ '^[a-z0-9-]+:[0-9a-f]+$'"
)


class Kind(Enum):
    """How a column is written on the wire: (serving expression, well-formedness, reading expression) of `{}`."""

    UUID = ("{}", "pg_input_is_valid({}, 'uuid')", "{}::uuid")
    TEXT = ("{}", "true", "{}")
    INTEGER = ("{}", "pg_input_is_valid({}, 'bigint')", "{}::bigint")
    FLAG = ("{}::text", "{} IN ('true', 'false')", "{}::boolean")
    SHA256 = ("encode({}, 'hex')", _SHA256_FORM, "decode({}, 'hex')")
    TIME = (
        "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')",
        _TIME_FORM,
        "({}::timestamp AT TIME ZONE 'UTC')::timestamptz(3)",
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name on the wire, in our tables, and what must hold of its text beside its kind.

    A nullable column may be empty; one with `stand_in` may be absent: that other column's value is used then.
    """

    wire: str
    name: str
    kind: Kind = Kind.TEXT
    is_nullable: bool = False
    is_optional: bool = False
    stand_in: str | None = None
    form: str = "true"

    def served(self, *, as_json: bool) -> str:
        """The expression of the serving side over the table alias `t`; JSON has booleans of its own."""
        form = "{}" if as_json and self.kind is Kind.FLAG else self.kind.value[0]
        return form.format(f"t.{self.name}")

    @property
    def is_well_formed(self) -> str:
        """A condition over the staged text."""
        return f"({self.kind.value[1].format(self.name)}) AND ({self.form})"

    @property
    def read(self) -> str:
        """The typed value of the staged text."""
        return self.kind.value[2].format(self.name)


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of news. `checksum`: the SQL function of its `metaChecksum` and the columns that this takes."""

    name: str
    table: str
    columns: tuple[Column, ...]
    checksum: tuple[str, ...]
    has_uri: bool = True

    @property
    def wire_names(self) -> tuple[str, ...]:
        return tuple(column.wire for column in self.columns)


_POSITION = Column("txid", "txid", Kind.INTEGER)
_ID = Column("id", "id", Kind.UUID)
_LAST_MODIFIED = Column("lastModified", "last_modified", Kind.TIME)
# Its form needs no look: it must equal what is computed.
_META_CHECKSUM = Column("metaChecksum", "meta_checksum")
_URI_CONDITION = "length(uri) <= 512 AND uri ~ '" + URI_FORM.replace("'", "''") + "'"
_EVENT_COLUMNS = (
    _POSITION,
    _ID,
    Column("uri", "uri", is_nullable=True, form=_URI_CONDITION),
    _LAST_MODIFIED,
    _META_CHECKSUM,
)
_EVENT_CHECKSUM = ("event_meta_checksum", "id", "uri")


def _short(wire: str, name: str, length: int) -> Column:
    return Column(wire, name, is_nullable=True, form=f"length({name}) <= {length}")


SITES = Stream(
    "sites",
    "storage_site",
    (
        _POSITION,
        _ID,
        Column("resourceID", "resource_id", form="length(resource_id) BETWEEN 1 AND 512"),
        Column("name", "name", form="length(name) <= 32"),
        Column("allowRead", "allow_read", Kind.FLAG),
        Column("allowWrite", "allow_write", Kind.FLAG),
        _LAST_MODIFIED,
        _META_CHECKSUM,
    ),
    ("site_meta_checksum", "id", "allow_read", "allow_write", "name", "resource_id"),
    has_uri=False,
)
DELETED_LOCATIONS = Stream("deleted-locations", "deleted_storage_location_event", _EVENT_COLUMNS, _EVENT_CHECKSUM)
LOCATIONS = Stream("locations", "storage_location_event", _EVENT_COLUMNS, _EVENT_CHECKSUM)
DELETED_ARTIFACTS = Stream(
    "deleted-artifacts",
    "deleted_artifact_event",
    (
        *_EVENT_COLUMNS,
        Column("deletedAt", "deleted_at", Kind.TIME, is_optional=True, stand_in="last_modified"),
    ),
    _EVENT_CHECKSUM,
)
ARTIFACTS = Stream(
    "artifacts",
    "artifact",
    (
        _POSITION,
        _ID,
        Column("uri", "uri", form=_URI_CONDITION),
        Column("contentChecksum", "content_checksum", form=CHECKSUM_FORM.format("content_checksum")),
        Column("contentLastModified", "content_last_modified", Kind.TIME),
        Column("contentLength", "content_length", Kind.INTEGER, form="content_length !~ '^-'"),
        _short("contentType", "content_type", 128),
        _short("contentEncoding", "content_encoding", 128),
        _LAST_MODIFIED,
        _META_CHECKSUM,
        Column("contentSha256", "content_sha256", Kind.SHA256, is_nullable=True, is_optional=True),
        Column("metaModified", "meta_modified_at", Kind.TIME, is_optional=True, stand_in="last_modified"),
    ),
    (
        "artifact_meta_checksum",
        "id",
        "uri",
        "uri_bucket",
        "content_checksum",
        "content_last_modified",
        "content_length",
        "content_type",
        "content_encoding",
    ),
)

# In the order of application: news of absence before news of presence.
STREAMS = {stream.name: stream for stream in (SITES, DELETED_LOCATIONS, LOCATIONS, DELETED_ARTIFACTS, ARTIFACTS)}
