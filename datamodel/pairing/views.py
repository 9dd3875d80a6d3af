"""The doors of pairing: for whoever may do everything, and one for whoever knows the secret of a code."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from datetime import timedelta

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from datamodel import rates
from datamodel.doors import unlimited
from datamodel.errors import ContentTooLargeError, InvalidRequestError
from datamodel.models import RemoteInventory
from datamodel.pairing import client, operations, queries
from datamodel.pairing.client import PROOF_HEADER
from datamodel.pairing.rules import Introduction, MalformedError
from datamodel.wire import time_text

_MOST_BYTES = 64 * 1024


@csrf_exempt
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@unlimited
def pairings(request: HttpRequest) -> HttpResponse:
    """GET: every other inventory, and open codes. POST: a code for one."""
    if request.method != "POST":
        return JsonResponse({"items": [one.as_json() for one in queries.standings()]})
    asked = _document(_body(request))
    invited = operations.invite(
        name=_text(asked, "name"), role=_text(asked, "role"), lifetime=_lifetime(asked.get("lifetimeSeconds"))
    )
    answer = {
        "code": invited.code,
        "invitation": str(invited.invitation_id),
        "expiresAt": time_text(invited.expires_at),
    }
    return JsonResponse(answer, status=201)


@csrf_exempt
@never_cache
@require_POST
@unlimited
def acceptances(request: HttpRequest) -> HttpResponse:
    """This inventory accepts a code, by a call to whoever made it."""
    asked = _document(_body(request))
    return _paired(client.accept(code=_text(asked, "code"), name=_text(asked, "name")))


@csrf_exempt
@never_cache
@require_POST
@unlimited
def revocations(request: HttpRequest) -> HttpResponse:
    """Another inventory loses everything at once."""
    asked = _document(_body(request))
    return _paired(operations.revoke(name=_text(asked, "name"), reason=_text(asked, "reason")))


@csrf_exempt
@never_cache
@require_POST
def redemption(request: HttpRequest, invitation: uuid.UUID) -> HttpResponse:
    """The accepting inventory introduces itself, and proves to know the secret of the code; the answer is signed.

    Anybody may come, so each address may come only so often.
    """
    rates.charge_pairing(request)
    body = _body(request)
    try:
        introduction = Introduction.parse(_document(body))
    except MalformedError as error:
        raise InvalidRequestError(str(error)) from None
    answer = operations.redeem(
        invitation_id=invitation,
        body=body,
        given_proof=request.headers.get(PROOF_HEADER, ""),
        introduction=introduction,
    )
    return HttpResponse(answer, content_type="application/jose")


def _paired(remote: RemoteInventory) -> HttpResponse:
    return JsonResponse(queries.standing_of(remote).as_json())


def _body(request: HttpRequest) -> bytes:
    """Only one whose length is declared; Django reads no further."""
    if int(request.META.get("CONTENT_LENGTH") or 0) > _MOST_BYTES:
        raise ContentTooLargeError(f"the body may have at most {_MOST_BYTES} bytes")
    return request.body


def _document(body: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequestError("the body must be a JSON object, sent with its Content-Length")
    return found


def _text(asked: Mapping[str, object], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise InvalidRequestError(f'"{name}" must be a text')
    return value


def _lifetime(value: object) -> timedelta:
    if value is None:
        return operations.LIFETIME
    longest = operations.LONGEST_LIFETIME.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > longest:
        raise InvalidRequestError(f'"lifetimeSeconds" must be a number of at most {longest:.0f}')
    return timedelta(seconds=value)
