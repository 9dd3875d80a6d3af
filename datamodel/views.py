"""Doors that both roles have: health, metrics, VOSI, API documents, the landing page, and errors outside of views."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import defaults
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from datamodel import explanations, health, key_statements, keys, metrics, queries, vosi
from datamodel.auth import caller_of
from datamodel.doors import decides
from datamodel.errors import InvalidRequestError, NotReadyError, RouteNotFoundError
from datamodel.grants import NAMESPACE_GRANTS
from datamodel.health import ServiceState
from datamodel.keysets import key_set
from datamodel.middleware import DOCS_POLICY, PAGE_POLICY
from datamodel.permissions import Grant, may, require_any
from datamodel.problems import known_error, problem_response, unexpected_response, wants_plain
from datamodel.proxies import client_address
from datamodel.uris import ArtifactUri

# `csrf_exempt` below: other methods are not allowed anyway, and 405 says so; the CSRF check would answer with a page.
_KEY_CACHE_SECONDS = 30
_METRICS_GRANTS = (Grant.READ, Grant.HARVEST, Grant.OPERATE, Grant.AUDIT)
_COUNTS = {
    "site": (
        ("Artifacts known", "artifact"),
        ("Stored here", "storage_location"),
        ("Kept for a while", "retired_artifact"),
    ),
    "global": (("Artifacts", "artifact"), ("Copies", "site_location"), ("Sites", "storage_site")),
}


@never_cache
@csrf_exempt
@require_safe
def livez(request: HttpRequest) -> HttpResponse:
    """The process answers; nothing else is asked."""
    del request
    return HttpResponse("alive\n", content_type="text/plain; charset=utf-8")


@never_cache
@csrf_exempt
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 when this process can serve, else a problem that names the checks which fail."""
    del request
    if found := health.failures():
        detail = "; ".join(f"{failure.check}: {failure.reason}" for failure in found)
        raise NotReadyError(detail, failing=",".join(failure.check for failure in found))
    return HttpResponse(json.dumps({"ready": True}), content_type="application/json")


@never_cache
@csrf_exempt
@require_safe
@decides(*_METRICS_GRANTS)
def prometheus(request: HttpRequest) -> HttpResponse:
    """Metrics in a format of Prometheus; needs any of the grants read, harvest, operate, audit unless they are public."""
    if not settings.INVENTORY_METRICS_PUBLIC:
        require_any(caller_of(request), _METRICS_GRANTS)
    body, content_type = metrics.exposition(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)


@never_cache
@csrf_exempt
@require_safe
@decides(*explanations.ASKED_BY)
def explain_permission(request: HttpRequest) -> HttpResponse:
    """Why a caller may or may not do something with a uri; for auditors and operators."""
    require_any(caller_of(request), explanations.ASKED_BY)
    operation = request.GET.get("operation", "read")
    if operation not in set(NAMESPACE_GRANTS):
        raise InvalidRequestError(f"operation must be one of {', '.join(NAMESPACE_GRANTS)}; it is {operation!r}")
    uri = ArtifactUri.parse(request.GET.get("uri", ""))
    found = explanations.explain(names=request.GET.getlist("caller"), grant=Grant(operation), uri=uri)
    return HttpResponse(json.dumps(found), content_type="application/json")


@never_cache
@csrf_exempt
@require_safe
def availability(request: HttpRequest) -> HttpResponse:
    """VOSI availability; with `detail=min` an empty 200 or 503. The header `X-Inventory-State` names the state in both.

    A service that still serves reads is available: its note and the header tell that it takes no writes.
    """
    report = health.current_state()
    is_available = report.state is not ServiceState.OFFLINE
    if request.GET.get("detail") == "min":
        response = HttpResponse(status=200 if is_available else 503, content_type="text/plain")
    else:
        document = vosi.availability_document(
            is_available=is_available,
            note=report.note,
            up_since=health.started_at,
            client_address=client_address(request),
        )
        response = HttpResponse(document, content_type="text/xml; charset=utf-8")
    response["X-Inventory-State"] = report.state.value
    return response


@csrf_exempt
@require_safe
def pubkey(request: HttpRequest) -> HttpResponse:
    """The JWK set (RFC 7517, 8037) of keys whose signatures are good: also one that will sign only after the overlap.

    A header says the same for paired inventories, signed by those that sign now (`key_statements.py`). `keys=all` adds those that
    have expired, for whoever verifies a receipt of long ago; no header speaks for them.
    """
    wanted = request.GET.get("keys", "good")
    if wanted not in {"good", "all"}:
        raise InvalidRequestError(f'"keys" must be good (the default) or all; it is {wanted!r}')
    published = keys.historical_keys() if wanted == "all" else keys.published_keys(now=datetime.now(UTC))
    document = json.dumps(key_set(published)).encode()
    response = HttpResponse(document, content_type="application/jwk-set+json")
    if wanted == "good" and (signed := key_statements.statements(document)):
        response[key_statements.HEADER] = signed
    response["Cache-Control"] = f"public, max-age={_KEY_CACHE_SECONDS}"
    return response


@csrf_exempt
@require_safe
def capabilities(request: HttpRequest) -> HttpResponse:
    """VOSI capabilities: where this role's services are."""
    del request
    document = vosi.capabilities_document(settings.INVENTORY_PUBLIC_URL, settings.INVENTORY_CAPABILITIES)
    return HttpResponse(document, content_type="text/xml; charset=utf-8")


@never_cache
@csrf_exempt
@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """What this is and where to go from here; counts are shown to those who may read."""
    caller = caller_of(request)
    wanted = _COUNTS[settings.INVENTORY_ROLE] if may(caller, Grant.READ) else ()
    counts = [(label, f"{queries.row_count(table):,}") for label, table in wanted]
    facts = {"settings": settings, "caller": caller, "counts": counts, "report": health.current_state()}
    response = render(request, "datamodel/landing.html", facts)
    response["Content-Security-Policy"] = PAGE_POLICY
    return response


class SchemaView(SpectacularAPIView):
    """The OpenAPI document as YAML or JSON, by `Accept` or `?format=json`."""


class DocsView(SpectacularSwaggerSplitView):
    """Swagger UI from files of this service, under the page policy."""

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]
        response["Content-Security-Policy"] = DOCS_POLICY
        return response


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """No route fits: a problem, or a page for a browser."""
    if _wants_page(request):
        return defaults.page_not_found(request, exception)
    return problem_response(known_error(exception) or RouteNotFoundError(""), plain=wants_plain(request))


def refused(request: HttpRequest, exception: Exception) -> HttpResponse:
    """A request that the framework refused before any view: malformed, of a foreign host, not permitted."""
    return problem_response(known_error(exception) or RouteNotFoundError(""), plain=wants_plain(request))


def failed(request: HttpRequest) -> HttpResponse:
    """A failure outside of views."""
    return unexpected_response(RuntimeError(request.path), plain=wants_plain(request))


def _wants_page(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "").startswith("text/html")
