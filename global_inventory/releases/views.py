"""The doors: /releases and POST /releases/returned, for sites."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from datamodel.auth import caller_of
from datamodel.checksums import Checksum
from datamodel.doors import guarded
from datamodel.errors import InvalidRequestError, NotPermittedError
from datamodel.permissions import Caller, Grant, require_speaker
from datamodel.uris import ArtifactUri
from global_inventory.locate.requests import read_body
from global_inventory.releases import operations, queries
from global_inventory.releases.operations import Release
from global_inventory.releases.rules import Verdict

MAX_FILES = 1000
_EXAMPLE = (
    '{"site": "<id>", "files": [{"release": "<id>", "id": "<id>", "uri": "cadc:TEST/file.fits", "digest": "md5:…", '
    '"storedAt": "2026-01-02T03:04:05.678Z"}]}'
)
_QUERY = "?site=<id of the site>[&after=<id of the last artifact of the page before>]"
_Value = TypeVar("_Value")


_FIRST_ID = "00000000-0000-0000-0000-000000000000"


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
@guarded(Grant.HARVEST)
def releases(request: HttpRequest) -> HttpResponse:
    """POST: which of up to 1,000 copies the asking site may drop, one answer for each. GET: what it may drop, by page."""
    return _grants(request) if request.method == "POST" else _granted(request)


def _granted(request: HttpRequest) -> HttpResponse:
    asked = {"after": _FIRST_ID, **request.GET.dict()}
    site_id = _asking_site(caller_of(request), _field(asked, "site", uuid.UUID, _QUERY))
    page = queries.marked(site_id, after=_field(asked, "after", uuid.UUID, _QUERY), limit=MAX_FILES)
    files = [{"id": str(artifact_id), "release": str(release_id)} for artifact_id, release_id in page]
    following = files[-1]["id"] if len(files) == MAX_FILES else None
    return _json({"site": str(site_id), "files": files, "next": following})


def _grants(request: HttpRequest) -> HttpResponse:
    site_id, entries = _asked(request)
    asked = [_release(entry) for entry in entries]
    if len({one.artifact_id for one in asked}) < len(asked):
        raise InvalidRequestError('no "id" may come twice')
    verdicts = operations.grant_releases(site_id=site_id, asked=asked)
    answers = [_answer(one, verdict) for one, verdict in zip(asked, verdicts, strict=True)]
    return _json({"site": str(site_id), "files": answers})


@csrf_exempt
@require_http_methods(["POST"])
@guarded(Grant.HARVEST)
def returned(request: HttpRequest) -> HttpResponse:
    """The asking site keeps these copies after all."""
    site_id, entries = _asked(request)
    pairs = [(_field(entry, "id", uuid.UUID), _field(entry, "release", uuid.UUID)) for entry in entries]
    return _json({"site": str(site_id), "returned": operations.return_releases(site_id=site_id, returned=pairs)})


def _asked(request: HttpRequest) -> tuple[uuid.UUID, list[Mapping[str, object]]]:
    """The asking site and what it asks about. Raises `InvalidRequestError`, and what `_asking_site` raises."""
    try:
        document = json.loads(read_body(request, limit=settings.DATA_UPLOAD_MAX_MEMORY_SIZE))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON ({error}); send {_EXAMPLE}") from error
    entries = document.get("files") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidRequestError(f'"files" must be a list of at least one object: {_EXAMPLE}')
    if len(entries) > MAX_FILES:
        raise InvalidRequestError(f'"files" may have at most {MAX_FILES} entries; it has {len(entries)}')
    return _asking_site(caller_of(request), _field(document, "site", uuid.UUID)), entries


def _asking_site(caller: Caller, site_id: uuid.UUID) -> uuid.UUID:
    """The site that the caller names, if it speaks for that, and that is harvested here. Raises `NotPermittedError`.

    The id of a site is that of its inventory.
    """
    require_speaker(caller, site_id)
    if not queries.is_known_site(site_id):
        raise NotPermittedError(f"no site {site_id} is harvested here, or it was disabled")
    return site_id


def _release(entry: Mapping[str, object]) -> Release:
    """Raises `InvalidUriError`, `InvalidChecksumError`, `InvalidRequestError` naming what is wrong."""
    return Release(
        release_id=_field(entry, "release", uuid.UUID),
        artifact_id=_field(entry, "id", uuid.UUID),
        uri=ArtifactUri.parse(_field(entry, "uri", str)).value,
        digest=Checksum.parse(_field(entry, "digest", str)),
        stored_at=_field(entry, "storedAt", _time),
    )


def _field(entry: Mapping[str, object], name: str, read: Callable[[str], _Value], example: str = _EXAMPLE) -> _Value:
    value = entry.get(name)
    try:
        if isinstance(value, str):
            return read(value)
    except ValueError:
        pass
    raise InvalidRequestError(f'"{name}" is missing or malformed: {example}')


def _time(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(text)
    return when


def _answer(asked: Release, verdict: Verdict) -> dict[str, object]:
    return {
        "release": str(asked.release_id),
        "id": str(asked.artifact_id),
        "granted": verdict.is_granted,
        "reason": None if verdict.is_granted else verdict.outcome.value,
        "copies": verdict.copies,
        "demanded": verdict.demanded,
    }


def _json(document: Mapping[str, object]) -> HttpResponse:
    response = HttpResponse(json.dumps(document), content_type="application/json")
    response["Cache-Control"] = "private, no-store"
    return response
