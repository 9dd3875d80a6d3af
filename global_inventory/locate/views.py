"""Doors of negotiation: `/locate`, `/files/{uri}`. Plain views: this is the hot path of a global."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from datamodel.auth import caller_of
from datamodel.doors import decides
from datamodel.errors import InvalidRequestError, InventoryError
from datamodel.permissions import Caller, Grant, grant_for, require, require_somewhere
from datamodel.problems import problem_response
from datamodel.uris import ArtifactUri
from global_inventory.locate import bulk, freshness, operations, responses
from global_inventory.locate.metalink import MEDIA_TYPE
from global_inventory.locate.operations import Negotiated, refuse_unoffered, require_offers
from global_inventory.locate.requests import is_xml, parse_locate, position_of, read_body
from global_inventory.locate.transfers import (
    MAX_DOCUMENT_BYTES,
    Transfer,
    fitting_offers,
    parse_transfer,
    transfer_document,
)
from global_inventory.sites.rules import Direction


@csrf_exempt
@require_http_methods(["POST"])
@decides(Grant.READ, Grant.WRITE)
def locate(request: HttpRequest) -> HttpResponse:
    """Transfer negotiation in JSON (one uri or many) or as a VOSpace document."""
    if not is_xml(request):
        return _locate_json(request)
    try:
        return _locate_xml(request)
    except InventoryError as error:
        # Clients of this form print the body as it is.
        return problem_response(error, plain=True)


@csrf_exempt
@require_http_methods(["HEAD", "GET", "PUT", "POST", "DELETE"])
@decides(Grant.READ, Grant.WRITE, Grant.DELETE)
def files(request: HttpRequest, name: str) -> HttpResponse:
    """One artifact: HEAD answers from what is known here, everything else redirects to a site."""
    caller = caller_of(request)
    method = request.method or ""
    uri = ArtifactUri.parse(name)
    require(caller, grant_for(method), uri)
    if "x-put-txn-id" in request.headers:
        raise InvalidRequestError(
            "continue a put transaction at the site that began it: at the URL of its first redirect"
        )
    match method:
        case "HEAD":
            found = freshness.find_artifact(uri, position=position_of(request), user=caller.name)
            return responses.head_response(found.artifact)
        case "GET":
            return _get(request, uri, caller)
        case "PUT":
            put = operations.negotiate_put(uri=uri, caller=caller, position=position_of(request))
            return responses.write_redirect(require_offers(put), _query(request))
    change = operations.negotiate_change(uri=uri, caller=caller, position=position_of(request))
    return responses.write_redirect(require_offers(change), _query(request))


def _get(request: HttpRequest, uri: ArtifactUri, caller: Caller) -> HttpResponse:
    negotiated = operations.negotiate_get(uri=uri, caller=caller, position=position_of(request))
    artifact = negotiated.artifact
    require_offers(negotiated)
    if request.GET.get("format") == "metalink" or MEDIA_TYPE in request.headers.get("Accept", ""):
        return responses.metalink_response(negotiated, artifact)
    return responses.get_redirect(negotiated, artifact, _query(request))


def _query(request: HttpRequest) -> str:
    return str(request.META.get("QUERY_STRING", ""))


def _locate_json(request: HttpRequest) -> HttpResponse:
    caller = caller_of(request)
    asked = parse_locate(read_body(request, limit=settings.DATA_UPLOAD_MAX_MEMORY_SIZE))
    position = position_of(request)
    if asked.is_bulk:
        require_somewhere(caller, Grant.READ)
        return responses.json_response(bulk.locate_many(uris=asked.uris, caller=caller, position=position))
    uri = ArtifactUri.parse(asked.uris[0])
    require(caller, Grant.WRITE if asked.direction is Direction.PUT else Grant.READ, uri)
    negotiate = operations.negotiate_get if asked.direction is Direction.GET else operations.negotiate_put
    negotiated = require_offers(negotiate(uri=uri, caller=caller, position=position))
    return responses.json_response(responses.negotiated_json(negotiated))


def _locate_xml(request: HttpRequest) -> HttpResponse:
    caller = caller_of(request)
    transfer = parse_transfer(read_body(request, limit=MAX_DOCUMENT_BYTES))
    require(caller, Grant.WRITE if transfer.direction is Direction.PUT else Grant.READ, transfer.target)
    negotiated = _negotiate_transfer(request, transfer, caller)
    text = transfer_document(transfer, negotiated.offers)
    response = HttpResponse(text, content_type="text/xml; charset=utf-8")
    response["Cache-Control"] = "private, no-store"
    return response


def _negotiate_transfer(request: HttpRequest, transfer: Transfer, caller: Caller) -> Negotiated:
    position = position_of(request)
    if transfer.direction is Direction.PUT:
        return operations.negotiate_put(uri=transfer.target, caller=caller, position=position)
    negotiated = operations.negotiate_get(uri=transfer.target, caller=caller, position=position)
    refuse_unoffered(negotiated, fitting_offers(transfer, negotiated.offers))
    return negotiated
