"""The door: POST /held."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from datamodel.auth import caller_of
from datamodel.checksums import Checksum
from datamodel.doors import filtered
from datamodel.errors import InvalidRequestError
from datamodel.permissions import Grant, reach
from datamodel.uris import ArtifactUri
from global_inventory.held import operations
from global_inventory.held.rules import Asked, Demand
from global_inventory.locate.requests import read_body

MAX_FILES = 10_000
MAX_COPIES = 100
_EXAMPLE = (
    '{"files": [{"uri": "cadc:TEST/file.fits", "digest": "md5:…"}], "copies": 2, "since": "2026-01-02T03:04:05Z"}'
)


@csrf_exempt
@require_http_methods(["POST"])
@filtered(Grant.READ)
def held(request: HttpRequest) -> HttpResponse:
    """Which of these files are held in at least so many copies that were verified since then, as a signed statement."""
    wait = _seconds(request.GET.get("wait", "0"))
    document = _document(read_body(request, limit=settings.DATA_UPLOAD_MAX_MEMORY_SIZE))
    asked, demand = _files(document.get("files")), Demand(_copies(document.get("copies", 1)), _time(document))
    readable = reach(caller_of(request), Grant.READ)
    found = operations.holdings(asked=asked, demand=demand, wait=wait, readable=readable)
    response = HttpResponse(json.dumps(operations.statement(asked, demand, found)), content_type="application/json")
    response["Cache-Control"] = "private, no-store"
    return response


def _document(body: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON ({error}); send {_EXAMPLE}") from error
    if not isinstance(document, dict):
        raise InvalidRequestError(f"the body must be a JSON object: {_EXAMPLE}")
    return document


def _files(value: object) -> list[Asked]:
    """Raises `InvalidUriError`, `InvalidChecksumError`, `InvalidRequestError` naming what is wrong."""
    if not isinstance(value, list) or not value:
        raise InvalidRequestError(f'"files" must be a list with at least one entry: {_EXAMPLE}')
    if len(value) > MAX_FILES:
        raise InvalidRequestError(f'"files" may have at most {MAX_FILES} entries; it has {len(value)}')
    return [_file(entry) for entry in value]


def _file(entry: object) -> Asked:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), str) for name in ("uri", "digest")):
        raise InvalidRequestError(f'each of "files" has the texts "uri" and "digest": {_EXAMPLE}')
    return Asked(ArtifactUri.parse(entry["uri"]).value, Checksum.parse(entry["digest"]))


def _copies(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COPIES:
        raise InvalidRequestError(f'"copies" must be a whole number from 1 to {MAX_COPIES}')
    return value


def _time(document: Mapping[str, object]) -> datetime | None:
    value = document.get("since")
    if value is None:
        return None
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        raise InvalidRequestError('"since" must be a time in ISO 8601, as in 2026-01-02T03:04:05Z') from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InvalidRequestError("wait must be a number of seconds")
    return seconds
