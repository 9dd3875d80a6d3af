"""Restore over HTTP."""

from __future__ import annotations

import json

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from datamodel.doors import guarded
from datamodel.errors import InvalidRequestError
from datamodel.permissions import Grant
from datamodel.snapshots import queries
from datamodel.snapshots.views import json_body
from site_service.retention.undelete import Undeleted
from site_service.snapshots.restore import restore_snapshot

MAX_PAGE = 1000
_EXAMPLE = '{"preview": true, "after": "", "limit": 1000}'


@csrf_exempt
@require_http_methods(["POST"])
@guarded(Grant.WRITE)
def restore(request: HttpRequest, name: str) -> HttpResponse:
    """`POST /snapshots/{name}/restore`: the next page; a preview unless `preview` is false."""
    document = json_body(request, _EXAMPLE)
    is_preview, after, limit = document.get("preview", True), document.get("after", ""), document.get("limit", MAX_PAGE)
    if not isinstance(is_preview, bool) or not isinstance(after, str) or "\0" in after:
        raise InvalidRequestError(f"preview is true or false and after a uri: {_EXAMPLE}")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise InvalidRequestError(f"limit is a whole number from 1 to {MAX_PAGE}")
    page = restore_snapshot(snapshot=queries.find(name), after=after, limit=limit, is_preview=is_preview)
    connection.close()
    body = {"items": [_item(item) for item in page.items], "next": page.next or None}
    response = HttpResponse(json.dumps(body), content_type="application/json")
    response["Cache-Control"] = "private, no-store"
    return response


def _item(item: Undeleted) -> dict[str, object]:
    body: dict[str, object] = {"uri": item.uri, "contentLength": item.size, "outcome": item.outcome}
    return body | ({"reason": item.reason} if item.reason else {})
