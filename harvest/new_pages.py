"""A site's page of artifacts of which none is known here goes into a global's tables as it is: proven, but never staged.

Most pages of a global are such. Where anything stands in the way nothing is done, and the page is staged and looked at row by row.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

from django.db import IntegrityError, connection, transaction

from harvest.echo import note_page
from harvest.pages import Page
from harvest.staging import copy_proven, list_rejected
from harvest.streams import ARTIFACTS, Kind

_IS_UUID = re.compile(Kind.UUID.value[1].encode()).fullmatch
# Where a page is not all new, most of its rows are known: a few tell.
_SAMPLE_BYTES = 32 * 1024
_IS_KNOWN = "SELECT EXISTS (SELECT FROM artifact WHERE id = ANY(%s::uuid[]))"
_OURS = "artifact a WHERE a.txid = pg_current_xact_id()::text::bigint"
_IS_DELETED = f"SELECT EXISTS (SELECT FROM {_OURS} AND EXISTS (SELECT FROM deleted_artifact_event t WHERE t.id = a.id))"
_INSERT_LOCATIONS = f"INSERT INTO site_location (artifact_id, site_id) SELECT a.id, %s FROM {_OURS}"


def insert_page(page: Page, *, remote_id: int, site_id: uuid.UUID) -> tuple[int, int] | None:
    """How many rows were set aside and changed; None if not all others were new. First in its transaction that changes artifacts."""
    if _holds(_IS_KNOWN, [_first_ids(page)]):
        return None
    try:
        with transaction.atomic():
            prover, rows = copy_proven(page, "artifact")
            if _holds(_IS_DELETED):
                raise IntegrityError("some are deleted")
            with connection.cursor() as cursor:
                cursor.execute(_INSERT_LOCATIONS, [site_id])
            note_page(site_id)
    except IntegrityError:
        return None
    list_rejected(prover, ARTIFACTS, remote_id=remote_id)
    return prover.rejected, 2 * rows


def _first_ids(page: Page) -> list[str]:
    """Those that are ids; a proven page has its columns in our order."""
    columns = page.columns if page.prover is None else ARTIFACTS.wire_names
    at = columns.index("id")
    page.rows.seek(0)
    cells = (line.split(b"\t", at + 1) for line in page.rows.readlines(_SAMPLE_BYTES))
    return [found[at].decode() for found in cells if len(found) > at and _IS_UUID(found[at])]


def _holds(select: str, parameters: list[Any] | None = None) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(select, parameters)
        return bool(cursor.fetchone()[0])
