"""Pages that say nothing new: a stream that is read again from its start, rows of a site that come back to it all the same (`echo.py`).

They are told by a look at four cells of each row, before anything is proven or staged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from django.conf import settings
from django.db import connection

from harvest.cells import NULL, millis_of
from harvest.pages import Page
from harvest.streams import ARTIFACTS, Kind

# Of a page whose first rows are new no more is looked at.
_FIRST_BYTES = 16 * 1024
_CHUNK_BYTES = 256 * 1024
_UUID, _TIME, _SHA256 = (kind.value[1] for kind in (Kind.UUID, Kind.TIME, Kind.SHA256))
# What is looked at, by its name on the wire. No text of these forms can be taken for more than one element of an array.
_FORMS = {
    "id": _UUID,
    "metaChecksum": "[a-z0-9-]+:[0-9a-f]+",
    "metaModified": _TIME,
    "contentSha256": rf"{_SHA256}|\\N",
}
# A metadata checksum covers the id and all that is proven of a row: one with ours differs in nothing else.
_COUNT = """
    SELECT count(*) FROM unnest(%(id)s::uuid[], %(metaChecksum)s::text[], %(metaModified)s::timestamp[], %(contentSha256)s::text[])
        h(id, meta_checksum, meta_modified_at, sha256)
    JOIN artifact a ON a.id = h.id AND a.meta_checksum = h.meta_checksum
    WHERE a.meta_modified_at >= h.meta_modified_at AT TIME ZONE 'UTC'
        AND (h.sha256 IS NULL OR a.content_sha256 = decode(h.sha256, 'hex')) AND EXISTS ({copy})
"""
_OF_ITS_SITE = (
    "SELECT FROM site_location l WHERE l.artifact_id = h.id "
    "AND l.site_id = (SELECT r.site_id FROM remote_inventory r WHERE r.id = %(remote)s)"
)
_OURS = "SELECT FROM storage_location l WHERE l.artifact_id = h.id"


def is_known(page: Page, *, remote_id: int) -> bool:
    """Whether each row of a page of artifacts is one that we have, with the copy that it stands for: it changes nothing then.

    False where a cell is missing or malformed: what is to be thought of that is `proof`'s to say. Such a row of a peer that lies is
    not set aside if it names what we have; it does nothing else either.
    """
    wanted = [name for name in page.columns if name in _FORMS]
    if page.stream is not ARTIFACTS or len(wanted) < len(_FORMS):
        return False
    line = re.compile("(?m)^" + "\t".join(f"({_FORMS[n]})" if n in _FORMS else "[^\t\n]*" for n in page.columns) + "\n")
    page.rows.seek(0)
    size = _FIRST_BYTES
    while lines := page.rows.readlines(size):
        if not _are_known(wanted, _cells(line, lines), len(lines), remote_id):
            return False
        size = _CHUNK_BYTES
    return True


def _cells(line: re.Pattern[str], lines: Sequence[bytes]) -> list[tuple[str, ...]]:
    """Those that are wanted, of each line that has them in their form."""
    with suppress(UnicodeDecodeError):
        return line.findall(b"".join(lines).decode())
    return []


def _are_known(names: Sequence[str], rows: Sequence[tuple[str, ...]], expected: int, remote_id: int) -> bool:
    if len(rows) != expected:
        return False
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    try:
        for time in columns["metaModified"]:
            millis_of(time)
    except ValueError:
        return False
    arrays = {name: f"{{{','.join(cells)}}}" for name, cells in columns.items()}
    arrays["contentSha256"] = arrays["contentSha256"].replace(NULL, "NULL")
    copy = _OF_ITS_SITE if settings.INVENTORY_ROLE == "global" else _OURS
    with connection.cursor() as cursor:
        cursor.execute(_COUNT.format(copy=copy), {**arrays, "remote": remote_id})
        return bool(cursor.fetchone()[0] == expected)
