"""Doors of the catalogue: `/artifacts` (pages, NDJSON, look-up) and `/explain`."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime

from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_safe

from datamodel.auth import caller_of
from datamodel.doors import filtered
from datamodel.errors import ArtifactNotFoundError, InvalidRequestError
from datamodel.pages import next_page, page_bounds
from datamodel.permissions import Grant, reach, require
from datamodel.snapshots.views import list_as_of
from datamodel.uris import ArtifactUri, Namespace
from datamodel.wire import artifact_item, time_text
from global_inventory.artifacts import queries
from global_inventory.artifacts.queries import Listed
from global_inventory.sites.queries import SiteTable, site_table_cache
from global_inventory.sites.rules import Direction, SiteState, obstacle, rank_sites

_NDJSON = "application/x-ndjson"


@require_safe
@filtered(Grant.READ)
def artifacts(request: HttpRequest) -> HttpResponseBase:
    """One page, the whole stream, or (`uri`) one artifact."""
    readable = reach(caller_of(request), Grant.READ)
    if "uri" in request.GET:
        uri = ArtifactUri.parse(request.GET["uri"])
        require(caller_of(request), Grant.READ, uri)
        return _item(queries.listed_by_uri(uri.value), uri.value)
    namespace = request.GET.get("namespace", "")
    prefix = Namespace.parse(namespace).value if namespace else ""
    if "as_of" in request.GET:
        # What was there then is listed whole: for whoever may read all of it.
        require(caller_of(request), Grant.READ, Namespace.parse(namespace) if namespace else None)
        return list_as_of(request, prefix, is_stream=_is_stream(request))
    if _is_stream(request):
        lines: Iterator[bytes] = queries.json_lines(prefix, readable) if request.method == "GET" else iter(())
        response: HttpResponseBase = StreamingHttpResponse(lines, content_type=_NDJSON)
        response["Cache-Control"] = "no-store"
        return response
    limit, after = page_bounds(request)
    page = queries.artifact_page(prefix, readable, after=after, limit=limit)
    last = page[-1].artifact.uri if len(page) == limit else None
    return _json({"items": [_listed_item(listed) for listed in page], "next": next_page(request, last)})


@require_safe
@filtered(Grant.READ)
def artifact(request: HttpRequest, artifact_id: uuid.UUID) -> HttpResponse:
    """One artifact by id; one that the caller may not read is not there."""
    found = queries.listed_by_id(artifact_id)
    is_readable = found is not None and found.artifact.uri in reach(caller_of(request), Grant.READ)
    return _item(found if is_readable else None, f"with the id {artifact_id}")


@require_safe
@filtered(Grant.READ)
def explain(request: HttpRequest) -> HttpResponse:
    """All that this inventory knows about one uri, and what it would answer now."""
    uri = ArtifactUri.parse(request.GET.get("uri", ""))
    require(caller_of(request), Grant.READ, uri)
    table = site_table_cache.get()
    listed = queries.listed_by_uri(uri.value)
    tombstones = queries.tombstones(uri.value)
    ids = [tombstone.artifact_id for tombstone in tombstones]
    holders: dict[uuid.UUID, bool] = {}
    if listed is not None:
        ids.append(listed.artifact.id)
        holders = queries.holders(listed.artifact.id)
    located = frozenset(holder for holder, is_releasing in holders.items() if not is_releasing)
    answer = {
        "uri": uri.value,
        "artifact": _listed_item(listed) if listed is not None else None,
        "tombstones": [asdict(tombstone) for tombstone in tombstones],
        "copies": [_copy(table, holder) | {"releasing": holders[holder]} for holder in sorted(holders, key=str)],
        "conflicts": [asdict(conflict) for conflict in queries.conflicts(ids)],
        "ranking": {direction.value: _ranking(table, uri.value, direction, located) for direction in Direction},
        "harvests": [asdict(harvest) for harvest in queries.harvests()],
    }
    return _json(answer)


def _is_stream(request: HttpRequest) -> bool:
    asked = request.GET.get("format")
    if asked not in {None, "json", "ndjson"}:
        raise InvalidRequestError(f"invalid format {asked!r}: choose json or ndjson")
    return asked == "ndjson" or (asked is None and _NDJSON in request.headers.get("Accept", ""))


def _listed_item(listed: Listed) -> dict[str, object]:
    return {**artifact_item(listed.artifact), "copies": list(listed.copies), "releasing": list(listed.releasing)}


def _item(listed: Listed | None, name: str) -> HttpResponse:
    if listed is None:
        raise ArtifactNotFoundError(f"no artifact {name}")
    return _json(_listed_item(listed))


def _copy(table: SiteTable, holder: uuid.UUID) -> dict[str, object]:
    site = table.sites.get(holder)
    if site is None:
        return {"siteId": str(holder), "site": None, "get": "no harvested site", "put": "no harvested site"}
    return {
        "siteId": str(holder),
        "site": site.name,
        "url": site.url,
        "latencyMs": site.latency_ms,
        "get": obstacle(site, Direction.GET) or "offered",
        "put": obstacle(site, Direction.PUT) or "offered",
    }


def _ranking(
    table: SiteTable, uri: str, direction: Direction, holders: frozenset[uuid.UUID]
) -> list[dict[str, str | None]]:
    """The order that a caller would get now, and after it the sites that are not offered, each with the reason."""
    candidates = [s for s in table.sites.values() if direction is Direction.PUT or s.site_id in holders]
    ranked = rank_sites(candidates, uri, direction, chance=random.random, rules=table.rules, holders=holders)
    offered = {place.site.site_id for place in ranked}
    places: list[dict[str, str | None]] = [{"site": p.site.name, "reason": p.reason} for p in ranked]
    return places + [_unoffered(site, direction) for site in candidates if site.site_id not in offered]


def _unoffered(site: SiteState, direction: Direction) -> dict[str, str | None]:
    why = obstacle(site, direction) or "avoided by a rule"
    return {"site": site.name, "reason": None, "obstacle": why}


def _json(document: Mapping[str, object]) -> HttpResponse:
    text = json.dumps(document, default=_plain)
    connection.close()
    response = HttpResponse(text, content_type="application/json")
    response["Cache-Control"] = "private, no-store"
    return response


def _plain(value: object) -> str:
    return time_text(value) if isinstance(value, datetime) else str(value)
