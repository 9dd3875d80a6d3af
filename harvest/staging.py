"""A harvested page becomes a temporary table of proven, typed rows named `harvested`; rows that prove false are set aside.

Works inside the transaction of a batch; the tables go with it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from django.db import connection
from django.db.backends.utils import CursorWrapper

from datamodel.alarms.operations import raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.models import RemoteInventory
from harvest.pages import Page, new_rows
from harvest.proof import MOST_LISTED, FalseRow, Prover, staged_columns
from harvest.streams import Kind, Stream

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


def _prover_of(page: Page) -> Prover:
    with connection.cursor() as cursor:
        cursor.execute(_TOMORROW)
        return Prover(page.stream, page.columns, latest=cursor.fetchone()[0])


def stage(page: Page, *, remote_id: int) -> int:
    """Fill `harvested`; returns how many rows were set aside as HarvestRejection.

    Raises `RemoteProtocolError` when the page is no table at all.
    """
    prover = page.prover or _prover_of(page)
    proven = iter(partial(page.rows.read, _CHUNK_BYTES), b"") if page.prover else prover.proven_lines(page.rows)
    with connection.cursor() as cursor:
        columns = staged_columns(page.stream)
        cursor.execute(f"CREATE TEMP TABLE harvested ({', '.join(map(' '.join, columns))}) ON COMMIT DROP")
        page.rows.seek(0)
        names = ", ".join(name for name, _ in columns)
        with connection.wrap_database_errors, cursor.copy(f"COPY harvested ({names}) FROM STDIN") as copy:
            for lines in proven:
                copy.write(lines)
        if prover.has_repeated:
            cursor.execute(_KEEP_LATEST)
        if prover.rejected:
            _list(cursor, prover.false_rows, remote_id, page.stream)
    if prover.rejected:
        _warn(page.stream, remote_id, prover.rejected)
    return prover.rejected


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
                FROM gone LIMIT {MOST_LISTED} ON CONFLICT DO NOTHING
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
