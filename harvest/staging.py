"""A harvested page becomes a temporary table of proven, typed rows named `harvested`; rows that prove false are set aside.

Works inside the transaction of a batch; the tables go with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper

from datamodel.alarms.operations import raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.models import RemoteInventory
from harvest.pages import Page, new_rows
from harvest.proof import MOST_LISTED, FalseRow, Prover, staged_columns
from harvest.streams import ARTIFACTS, Kind, Stream

logger = logging.getLogger(__name__)

_ROW_TEXT_LENGTH = 2000
_CHUNK_BYTES = 256 * 1024
# A clock may be a day ahead, but a time beyond that would win every comparison for ever.
_TOMORROW = "SELECT " + Kind.TIME.value[0].format("(inventory_now() + interval '1 day')")


def prove(page: Page) -> Page:
    """The same page with its rows proven, for whoever has time for that before `stage`. Closes the page that it is given.

    Raises `RemoteProtocolError` when that is no table at all.
    """
    with page:
        prover, rows = _prover_of(page), new_rows()
        try:
            for lines in prover.proven_lines(page.rows):
                rows.write(lines)
        except BaseException:
            rows.close()
            raise
    return replace(page, rows=rows, prover=prover)


def stage(page: Page, *, remote_id: int) -> int:
    """Fill `harvested`; returns how many rows were set aside as HarvestRejection.

    Raises `RemoteProtocolError` when the page is no table at all.
    """
    omitted = _omitted(page.stream)
    columns = [
        f"{name} {kind} DEFAULT inventory_now()" if name == omitted else f"{name} {kind}"
        for name, kind in staged_columns(page.stream)
    ]
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMP TABLE harvested ({', '.join(columns)}) ON COMMIT DROP")
        prover, _ = copy_proven(page, "harvested")
        if prover.has_repeated:
            cursor.execute(_KEEP_LATEST)
    list_rejected(prover, page.stream, remote_id=remote_id)
    return prover.rejected


def copy_proven(page: Page, table: str) -> tuple[Prover, int]:
    """The rows of a page that prove true go into a table of its columns; who proved them, and how many they are.

    Raises `RemoteProtocolError` when that is no table at all, `IntegrityError` when the table does not take them.
    """
    prover = page.prover or _prover_of(page)
    page.rows.seek(0)
    proven = iter(partial(page.rows.read, _CHUNK_BYTES), b"") if page.prover else prover.proven_lines(page.rows)
    omitted = _omitted(page.stream)
    names = ", ".join(name for name, _ in staged_columns(page.stream) if name != omitted)
    with connection.cursor() as cursor, connection.wrap_database_errors:
        with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for lines in proven:
                copy.write(lines)
        return prover, cursor.rowcount


def list_rejected(prover: Prover, stream: Stream, *, remote_id: int) -> None:
    """Rows that proved false, for the operator."""
    if prover.rejected:
        with connection.cursor() as cursor:
            _list(cursor, prover.false_rows, remote_id, stream)
        _warn(stream, remote_id, prover.rejected)


def _omitted(stream: Stream) -> str | None:
    """What is not taken from the wire: a global stamps its artifacts with its own clock, when they come into a table."""
    return "last_modified" if stream is ARTIFACTS and settings.INVENTORY_ROLE == "global" else None


def _prover_of(page: Page) -> Prover:
    with connection.cursor() as cursor:
        cursor.execute(_TOMORROW)
        return Prover(page.stream, page.columns, latest=cursor.fetchone()[0], omitted=_omitted(page.stream))


def set_aside(stream: Stream, *, remote_id: int, reason: str, where: str) -> int:
    """Take the rows of `harvested h` that fulfil `where` out, as HarvestRejection; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM harvested h WHERE {where}")
        (count,) = cursor.fetchone()
        if count:
            cursor.execute(
                f"""
                WITH gone AS (DELETE FROM harvested h WHERE {where} RETURNING h.id, (to_jsonb(h) - %(omitted)s::text[])::text AS line)
                INSERT INTO harvest_rejection (id, remote_id, stream, row_id, row, row_digest, reason, rejected_at)
                SELECT gen_random_uuid(), %(remote)s, %(stream)s, id, left(line, {_ROW_TEXT_LENGTH}),
                    encode(sha256(convert_to(line, 'UTF8')), 'hex'), %(reason)s, inventory_now()
                FROM gone LIMIT {MOST_LISTED} ON CONFLICT DO NOTHING
                """,
                {"remote": remote_id, "stream": stream.name, "reason": reason, "omitted": [_omitted(stream)]},
            )
            _warn(stream, remote_id, count)
    return int(count)


def _warn(stream: Stream, remote_id: int, count: int) -> None:
    name = RemoteInventory.objects.values_list("name", flat=True).get(id=remote_id)
    text = f"{count} rows of its stream {stream.name} could not be believed and were set aside; the others were taken."
    raise_alarm(kind=AlarmKind.REJECTED_ROWS, subject=name, text=text, count=count)
    facts = {"remote": remote_id, "stream": stream.name, "rows": count, "reason": "rejected"}
    logger.warning("END event=harvest_rejection", extra={"facts": facts})


# Two states of one id in one page are nothing to complain of: the later one stands.
_KEEP_LATEST = """
    DELETE FROM harvested h USING harvested o WHERE o.id = h.id AND (o.txid, o.ctid) > (h.txid, h.ctid)
"""


def _list(cursor: CursorWrapper, false_rows: Sequence[FalseRow], remote_id: int, stream: Stream) -> None:
    cursor.executemany(
        """
        INSERT INTO harvest_rejection (id, remote_id, stream, row_id, row, row_digest, reason, rejected_at)
        VALUES (gen_random_uuid(), %s, %s, %s, %s, %s, %s, inventory_now()) ON CONFLICT DO NOTHING
        """,
        [
            [
                remote_id,
                stream.name,
                row.row_id,
                row.line[:_ROW_TEXT_LENGTH],
                hashlib.sha256(row.line.encode()).hexdigest(),
                row.reason,
            ]
            for row in false_rows
        ],
    )
