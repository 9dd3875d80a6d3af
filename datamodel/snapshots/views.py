"""Doors of both roles: listings as of a moment; snapshots, their differences and manifests."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice

from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from datamodel.auth import caller_of
from datamodel.doors import decides, guarded
from datamodel.errors import InvalidRequestError
from datamodel.pages import chunks, moment_of, next_page, page_bounds
from datamodel.permissions import Caller, Grant, require
from datamodel.rows import database_now
from datamodel.snapshots import operations, queries, rules, wire
from datamodel.snapshots.models import Snapshot
from datamodel.snapshots.queries import Changed
from datamodel.snapshots.wire import Item
from datamodel.uris import Namespace
from datamodel.wire import time_text

_FORMATS = {"json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
# So long a request waits for writers that were under way at the moment of a new snapshot.
_SETTLE_SECONDS = 1.0
_EXAMPLE = '{"name": "before-the-release", "namespace": "cadc:CFHT/"}'
_BODY_BYTES = 64 * 1024


def list_as_of(request: HttpRequest, prefix: str, *, is_stream: bool) -> HttpResponseBase:
    """`GET /artifacts?as_of=`: what lived at a moment; the caller has authorized the request."""
    moment = queries.checked_moment(moment_of(request.GET["as_of"]))
    if is_stream:
        lines = wire.json_lines(wire.entry_item(entry) for entry in queries.all_entries(prefix, moment))
        return _stream(request, lines, "ndjson")
    limit, after = page_bounds(request)
    page = queries.entries_page(prefix, moment, after=after, limit=limit)
    return _page(request, [wire.entry_item(entry) for entry in page], page[-1].uri if len(page) == limit else None)


@csrf_exempt
@decides(Grant.READ, Grant.OPERATE)
def snapshots(request: HttpRequest) -> HttpResponse:
    """`GET /snapshots`, and `POST` to take one."""
    if request.method == "POST":
        return _create(request)
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    authorize(request, Grant.READ)
    limit, after = page_bounds(request)
    namespace = request.GET.get("namespace", "")
    found = queries.listed(
        namespace=Namespace.parse(namespace).value if namespace else "",
        before=_place(after) if after else None,
        limit=limit,
    )
    last = f"{time_text(found[-1].moment)}~{found[-1].id}" if len(found) == limit else None
    return _page(request, [described(each) for each in found], last)


@csrf_exempt
@decides(Grant.READ, Grant.OPERATE)
def snapshot(request: HttpRequest, name: str) -> HttpResponse:
    """`GET /snapshots/{name}`, and `DELETE` to let go what only it keeps."""
    if request.method == "DELETE":
        authorize(request, Grant.OPERATE)
        operations.release_snapshot(snapshot=queries.find(name))
        return HttpResponse(status=204)
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "DELETE"])
    authorize(request, Grant.READ)
    return _json(described(queries.find(name)))


@require_safe
@guarded(Grant.READ)
def manifest(request: HttpRequest, name: str) -> HttpResponseBase:
    """`GET /snapshots/{name}/manifest`: everything that it names, as one stream."""
    found = queries.find(name)
    entries = queries.all_entries(found.namespace, found.moment)
    kind = _format(request, ("ndjson", "csv"))
    lines = wire.csv_lines(entries) if kind == "csv" else wire.json_lines(map(wire.entry_item, entries))
    return _stream(request, lines, kind)


@require_safe
@guarded(Grant.READ)
def diff(request: HttpRequest, name: str) -> HttpResponseBase:
    """`GET /snapshots/{name}/diff?to=`: what became of its uris until another snapshot, or until now."""
    limit, after = page_bounds(request)
    other = request.GET.get("to", "")
    found = differences(queries.find(name), queries.find(other) if other else None, after=after)
    if _format(request, ("json", "ndjson")) == "ndjson":
        return _stream(request, wire.json_lines(map(wire.change_item, found)), "ndjson")
    page = list(islice(found, limit))
    return _page(request, list(map(wire.change_item, page)), page[-1].uri if len(page) == limit else None)


@require_safe
@guarded(Grant.READ)
def verification(request: HttpRequest, name: str) -> HttpResponse:
    """`GET /snapshots/{name}/verification`: its digest, computed anew."""
    del request
    return _json(wire.verification_item(operations.verify_snapshot(snapshot=queries.find(name))))


def differences(one: Snapshot, other: Snapshot | None, *, after: str = "") -> Iterator[Changed]:
    """Between two snapshots of one namespace, in their differing buckets only; or from one until now.

    Raises `InvalidRequestError` for two namespaces.
    """
    if other is None:
        return queries.changes(one.namespace, one.moment, database_now(), after=after)
    if one.namespace != other.namespace:
        raise InvalidRequestError(f"{one} is of {one.namespace}, but {other} of {other.namespace}: compare two of one")
    buckets = None
    if one.tree and other.tree:
        buckets = rules.differing(rules.tree_from(one.tree), rules.tree_from(other.tree))
    return queries.changes(one.namespace, one.moment, other.moment, buckets=buckets, after=after)


def described(found: Snapshot) -> Item:
    """As JSON, with whom it waits for."""
    return wire.snapshot_item(found, awaited=queries.awaited(found))


def authorize(request: HttpRequest, grant: Grant) -> Caller:
    """Raises as `require` does."""
    caller = caller_of(request)
    require(caller, grant)
    return caller


def json_body(request: HttpRequest, example: str) -> dict[str, object]:
    """The body as a JSON object. Raises `InvalidRequestError`."""
    try:
        document = json.loads(request.read(_BODY_BYTES + 1))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON of at most {_BODY_BYTES} bytes; send {example}") from error
    if not isinstance(document, dict):
        raise InvalidRequestError(f"the body must be a JSON object: {example}")
    return document


def _create(request: HttpRequest) -> HttpResponse:
    caller = authorize(request, Grant.OPERATE)
    document = json_body(request, _EXAMPLE)
    name, namespace = document.get("name"), document.get("namespace")
    if not isinstance(name, str) or not isinstance(namespace, str):
        raise InvalidRequestError(f"name and namespace must be texts: {_EXAMPLE}")
    created = operations.create_snapshot(name=name, namespace=Namespace.parse(namespace), created_by=caller.name)
    operations.settle_soon(snapshot=created, seconds=_SETTLE_SECONDS)
    created.refresh_from_db()
    response = _json(described(created))
    response.status_code = 201
    return response


def _place(after: str) -> tuple[datetime, uuid.UUID]:
    moment, _, identity = after.partition("~")
    try:
        return moment_of(moment), uuid.UUID(identity)
    except ValueError:
        raise InvalidRequestError("invalid after: pass on the one of the last page") from None


def _format(request: HttpRequest, offered: tuple[str, ...]) -> str:
    asked = request.GET.get("format", offered[0])
    if asked not in offered:
        raise InvalidRequestError(f"invalid format {asked!r}: choose one of {', '.join(offered)}")
    return asked


def _stream(request: HttpRequest, lines: Iterable[str], kind: str) -> HttpResponseBase:
    response: HttpResponseBase = (
        StreamingHttpResponse(chunks(lines), content_type=_FORMATS[kind])
        if request.method == "GET"
        else HttpResponse(content_type=_FORMATS[kind])
    )
    response["Cache-Control"] = "no-store"
    return response


def _page(request: HttpRequest, items: list[Item], last: str | None) -> HttpResponse:
    return _json({"items": items, "next": next_page(request, last)})


def _json(document: Item) -> HttpResponse:
    connection.close()
    response = HttpResponse(json.dumps(document), content_type="application/json")
    response["Cache-Control"] = "private, no-store"
    return response
