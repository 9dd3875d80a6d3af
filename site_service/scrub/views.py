"""Doors: how scrub stands, and when copies here were last known good."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from datamodel.auth import caller_of
from datamodel.doors import decides, filtered
from datamodel.errors import InvalidRequestError, InvalidUriError
from datamodel.permissions import Grant, reach, require
from datamodel.uris import ArtifactUri
from datamodel.wire import time_text
from site_service.scrub import actors, queries, scan
from site_service.scrub.queries import VerifiedCopy

MAX_URIS = 10_000


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
@decides(Grant.READ, Grant.OPERATE)
def scrub(request: HttpRequest) -> HttpResponse:
    """Every rule of the schedule with what was read and what is late; findings; damaged copies. POST: read these copies now."""
    if request.method == "POST":
        return _request_reading(request)
    require(caller_of(request), Grant.READ)
    standings = [asdict(standing) for standing in queries.standings(queries.configured_schedule())]
    rules = [{_camel(name): value for name, value in standing.items()} for standing in standings]
    done = {result: {"files": files, "bytes": size} for result, (files, size) in queries.outcomes().items()}
    return _json({"rules": rules, "outcomes": done, **queries.damaged_counts()})


@csrf_exempt
@require_http_methods(["POST"])
@filtered(Grant.READ)
def verified(request: HttpRequest) -> HttpResponse:
    """Of up to 10,000 URIs those whose copy is in service here: what it is, and when it was last known good."""
    readable = reach(caller_of(request), Grant.READ)
    asked = [uri for uri in _asked(request.body) if uri in readable]
    return _json({"copies": [_item(copy) for copy in queries.verified_copies(asked)]})


def _request_reading(request: HttpRequest) -> HttpResponse:
    require(caller_of(request), Grant.OPERATE)
    due = scan.request_reading(uris=_asked(request.body), schedule=queries.configured_schedule())
    return _json({"due": due, "sent": actors.ring()})


def _asked(body: bytes) -> list[str]:
    try:
        uris = json.loads(body)["uris"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequestError('send JSON like {"uris": ["cadc:TEST/file.fits"]}') from error
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        raise InvalidRequestError('"uris" must be a list of texts')
    if len(uris) > MAX_URIS:
        raise InvalidRequestError(f'"uris" may have at most {MAX_URIS} entries; it has {len(uris)}')
    return [uri for text in uris if (uri := _canonical(text)) is not None]


def _canonical(text: str) -> str | None:
    """None for what cannot name an artifact: then there is none."""
    try:
        return ArtifactUri.parse(text).value
    except InvalidUriError:
        return None


def _item(copy: VerifiedCopy) -> dict[str, object]:
    return {
        "uri": copy.uri,
        "id": copy.artifact_id,
        "contentChecksum": copy.content_checksum,
        "contentSha256": copy.content_sha256.hex() if copy.content_sha256 is not None else None,
        "contentLength": copy.content_length,
        "verifiedAt": copy.verified_at,
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _json(document: dict[str, object]) -> HttpResponse:
    text = json.dumps(document, default=lambda value: time_text(value) if isinstance(value, datetime) else str(value))
    connection.close()
    response = HttpResponse(text, content_type="application/json")
    response["Cache-Control"] = "private, no-store"
    return response
