"""The audit over HTTP: the chain as it is, so that whoever reads it can check it."""

from __future__ import annotations

import json

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from datamodel.audit import archiving, queries
from datamodel.audit.queries import Start
from datamodel.audit.rules import Seal
from datamodel.doors import guarded
from datamodel.errors import HistoryGoneError, InvalidRequestError
from datamodel.pages import page_bounds
from datamodel.permissions import Grant

_SEALS = 2000


@require_safe
@guarded(Grant.AUDIT)
def audit(request: HttpRequest) -> HttpResponse:
    """`GET /audit?after=`: whole seals with their entries, about `limit` of them, in the order of the chain."""
    limit, after = page_bounds(request)
    if after and not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise InvalidRequestError("invalid after: pass on the `next` of the last page, or none to start")
    with transaction.atomic():
        # One snapshot: what is archived meanwhile must not be missing in the middle.
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        begin = _begin(int(after or 0))
        end, more = _end(begin, limit)
        lines = list(archiving.exported_lines(begin, until=end)) if request.method == "GET" else []
    connection.close()
    lines.append(f"{json.dumps({'end': True, 'next': str(end), 'more': more}, separators=(',', ':'))}\n")
    response = HttpResponse("".join(lines), content_type="application/x-ndjson")
    response["Cache-Control"] = "no-store"
    return response


def _begin(after: int) -> Start:
    """Raises `HistoryGoneError` for what is archived, `InvalidRequestError` for what is not there yet."""
    first = queries.start()
    if after < first.number:
        raise HistoryGoneError(f"entries up to seal {first.number} are in archive files", cursor=str(first.number))
    if after == first.number:
        return first
    found = queries.seal(after)
    if found is None:
        raise InvalidRequestError(f"there is no seal {after} yet: pass on the `next` of the last page")
    return Start(found.number, found.place, found.digest)


def _end(begin: Start, limit: int) -> tuple[int, bool]:
    """Up to which seal the page goes, and whether there is more."""
    seals: list[Seal] = queries.seals_after(begin.number, _SEALS)
    total, end = 0, begin.number
    for seal in seals:
        if total >= limit:
            return end, True
        total, end = total + seal.entries, seal.number
    return end, len(seals) == _SEALS
