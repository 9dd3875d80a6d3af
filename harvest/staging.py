"""A harvested page becomes a temporary table of proven, typed rows named `harvested`; rows that prove false are set aside.

Works inside the transaction of a batch; the tables go with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from typing import IO

from django.db import DataError, connection

from datamodel.alarms.operations import raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.errors import RemoteProtocolError
from datamodel.models import RemoteInventory
from harvest.pages import Page
from harvest.streams import ARTIFACTS, Column, Kind, Stream

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024
# The list of what was set aside is for an operator's eye, and no peer shall fill our disk with it.
_LISTED_PER_PAGE = 100
# So few are read faster than an index on them is made.
_UNINDEXED_ROWS = 200
_ROW_TEXT_LENGTH = 2000
# Earlier than any inventory; a clock may be a day ahead, but a time beyond that would win every comparison for ever. Compared
# as it is written, for that is the order of times, too.
_TOMORROW = Kind.TIME.value[0].format("(inventory_now() + interval '1 day')")
_SANE_TIME = f"{{}} COLLATE \"C\" BETWEEN '1970-01-01' AND (SELECT {_TOMORROW})"
_BUCKET = "uri_bucket"


def stage(page: Page, *, remote_id: int) -> int:
    """Fill `harvested`; returns how many rows were set aside as HarvestRejection.

    Raises `RemoteProtocolError` when the page is no table at all.
    """
    _copy(page)
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE harvested ON COMMIT DROP AS {_typed_rows(page.stream)}")
        # Two states of one id in one page are nothing to complain of: the later one stands.
        staged = cursor.rowcount
        rejected = page.count - _different_rows(page.stream) if staged < page.count else 0
        if staged > _UNINDEXED_ROWS:
            cursor.execute("CREATE UNIQUE INDEX ON harvested (id)")
        if rejected:
            cursor.execute(_rejections(page.stream), {"remote": remote_id, "stream": page.stream.name})
    if rejected:
        _warn(page.stream, remote_id, rejected)
    return rejected


def set_aside(stream: Stream, *, remote_id: int, reason: str, where: str) -> int:
    """Take the rows of `harvested h` that fulfil `where` out, as HarvestRejection; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM harvested h WHERE {where}")
        (count,) = cursor.fetchone()
        if count:
            cursor.execute(
                f"""
                WITH gone AS (DELETE FROM harvested h WHERE {where} RETURNING h.id, to_jsonb(h)::text AS line)
                INSERT INTO harvest_rejection (id, remote_id, stream, row_id, row, row_digest, reason, rejected_at)
                SELECT gen_random_uuid(), %(remote)s, %(stream)s, id, left(line, {_ROW_TEXT_LENGTH}),
                    encode(sha256(convert_to(line, 'UTF8')), 'hex'), %(reason)s, inventory_now()
                FROM gone LIMIT {_LISTED_PER_PAGE} ON CONFLICT DO NOTHING
                """,
                {"remote": remote_id, "stream": stream.name, "reason": reason},
            )
            _warn(stream, remote_id, count)
    return int(count)


def _warn(stream: Stream, remote_id: int, count: int) -> None:
    name = RemoteInventory.objects.values_list("name", flat=True).get(id=remote_id)
    text = f"{count} rows of its stream {stream.name} could not be believed and were set aside; the others were taken."
    raise_alarm(kind=AlarmKind.REJECTED_ROWS, subject=name, text=text, count=count)
    facts = {"remote": remote_id, "stream": stream.name, "rows": count, "reason": "rejected"}
    logger.warning("END event=harvest_rejection", extra={"facts": facts})


def _copy(page: Page) -> None:
    """COPY the page as it came; columns that we do not know are staged under names of our own and never read."""
    known = {column.wire: column.name for column in page.stream.columns}
    names = [known.get(wire, f"unknown_{number}") for number, wire in enumerate(page.columns)]
    absent = [column.name for column in page.stream.columns if column.name not in names]
    derived = [_BUCKET] if page.stream is ARTIFACTS else []
    lines = _with_buckets(page.rows, names.index("uri")) if derived else _chunks(page.rows)
    page.rows.seek(0)
    with connection.cursor() as cursor:
        columns = ", ".join(f"{name} text" for name in [*names, *derived, *absent])
        cursor.execute(f"CREATE TEMP TABLE harvested_text ({columns}) ON COMMIT DROP")
        try:
            with (
                connection.wrap_database_errors,
                cursor.copy(f"COPY harvested_text ({', '.join([*names, *derived])}) FROM STDIN") as copy,
            ):
                for chunk in lines:
                    copy.write(chunk)
        except DataError as error:
            raise RemoteProtocolError(f"a page of {page.stream.name} is not a table: {error}") from error


def _chunks(rows: IO[bytes]) -> Iterator[bytes]:
    while chunk := rows.read(_CHUNK_BYTES):
        yield chunk


def _with_buckets(rows: IO[bytes], uri_index: int) -> Iterator[bytes]:
    """Each line with the bucket of its uri behind it: `metaChecksum` covers it, the wire has it not, and SQL has no SHA-1."""
    while lines := rows.readlines(_CHUNK_BYTES):
        yield b"".join(_with_bucket(line, uri_index) for line in lines)


def _with_bucket(line: bytes, uri_index: int) -> bytes:
    line = line.rstrip(b"\n")
    # A legal uri has no character that COPY escapes; the bucket of an illegal one does not matter.
    uri = line.split(b"\t", uri_index + 1)[uri_index : uri_index + 1]
    bucket = hashlib.sha1(b"".join(uri), usedforsecurity=False).hexdigest()[:5]
    return line + b"\t" + bucket.encode() + b"\n"


def _typed_rows(stream: Stream) -> str:
    """One state per id, every value of its type; only rows that are what they claim."""
    derived = [_BUCKET] if stream is ARTIFACTS else []
    columns = [f"{_value(column)} AS {column.name}" for column in stream.columns]
    return (
        f"SELECT DISTINCT ON (id::uuid) {', '.join([*columns, *derived])} "
        f"FROM (SELECT *, {_reason(stream)} AS reason FROM harvested_text) t WHERE reason IS NULL "
        "ORDER BY id::uuid, txid::bigint DESC"
    )


def _different_rows(stream: Stream) -> int:
    """How many of the staged rows are good."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM harvested_text WHERE ({_reason(stream)}) IS NULL")
        (count,) = cursor.fetchone()
    return int(count)


def _value(column: Column) -> str:
    if column.stand_in is None:
        return column.read
    return f"coalesce({column.read}, {column.read.replace(column.name, column.stand_in)})"


def _reason(stream: Stream) -> str:
    """Why a staged row is no good, or NULL. A CASE, because its order is kept: nothing is cast before it was proven."""
    branches: list[str] = []
    for column in stream.columns:
        if column.is_nullable or column.is_optional:
            branches.append(
                f"WHEN {column.name} IS NOT NULL AND NOT ({column.is_well_formed}) THEN '{column.wire} is malformed'"
            )
        else:
            branches.append(f"WHEN {column.name} IS NULL THEN '{column.wire} is missing'")
            branches.append(f"WHEN NOT ({column.is_well_formed}) THEN '{column.wire} is malformed'")
    for column in stream.columns:
        if column.kind is Kind.TIME:
            sane = _SANE_TIME.format(column.name)
            branches.append(f"WHEN {column.name} IS NOT NULL AND NOT ({sane}) THEN '{column.wire} is out of range'")
    reads = {column.name: column.read for column in stream.columns}
    function, *arguments = stream.checksum
    proof = f"{function}({', '.join(reads.get(name, name) for name in arguments)})"
    branches.append(f"WHEN {proof} <> meta_checksum THEN 'metaChecksum does not fit the row'")
    return f"CASE {' '.join(branches)} END"


def _rejections(stream: Stream) -> str:
    # With parameters beside it a per cent sign is written twice.
    reason = _reason(stream).replace("%", "%%")
    cells = ", ".join(f"coalesce({column.name}, '\\N')" for column in stream.columns if column.name != "txid")
    return f"""
        INSERT INTO harvest_rejection (id, remote_id, stream, row_id, row, row_digest, reason, rejected_at)
        SELECT gen_random_uuid(), %(remote)s, %(stream)s, CASE WHEN pg_input_is_valid(id, 'uuid') THEN id::uuid END,
            left(line, {_ROW_TEXT_LENGTH}), encode(sha256(convert_to(line, 'UTF8')), 'hex'), reason, inventory_now()
        FROM (SELECT id, concat_ws(chr(9), {cells}) AS line, {reason} AS reason FROM harvested_text) t
        WHERE reason IS NOT NULL LIMIT {_LISTED_PER_PAGE} ON CONFLICT DO NOTHING
    """
