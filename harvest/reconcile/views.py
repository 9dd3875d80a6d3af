"""The doors of reconcile: digests of a set, listings of its parts, and what is known of single ids (README.md)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, QueryDict, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from datamodel.doors import guarded
from datamodel.errors import InvalidRequestError
from datamodel.permissions import Grant
from datamodel.positions import read_identity
from datamodel.uris import Namespace
from harvest import feed
from harvest.feed import FeedPage
from harvest.reconcile import queries, wire
from harvest.reconcile.kept import kept_trees
from harvest.reconcile.scope import ID_DIGITS, MOST_PARTS, Filter, Kind, Scope, count_parts, digest_of, tree_lines
from harvest.streams import ARTIFACTS, DELETED_ARTIFACTS, DELETED_LOCATIONS, EPOCH_HEADER

MOST_ROWS = 100_000
MOST_IDS = 1000
_PREFIX = re.compile(r"[0-9a-f]{1,32}\Z")
_TSV = "text/tab-separated-values; charset=utf-8"


@csrf_exempt
@require_http_methods(["GET", "POST"])
@guarded(Grant.HARVEST)
def tree(request: HttpRequest) -> HttpResponseBase:
    """Digests of a set by the first digits of the id; 304 when they are those that the caller has."""
    asked = _asked(request)
    depth = _number(asked, "depth", default=2, least=0, most=ID_DIGITS)
    then = _number(asked, "then", default=depth, least=depth, most=ID_DIGITS)
    prefixes = _prefixes(asked)
    if (parts := count_parts(max(depth, then), prefixes)) > MOST_PARTS:
        raise InvalidRequestError(
            f"{parts} parts are more than the {MOST_PARTS} of one tree: ask for fewer digits (depth, then) or prefixes"
        )
    found = kept_trees.read(_scope(asked), depth=depth, then=then, prefixes=prefixes, whole=asked.get("whole"))
    connection.close()
    lines = tree_lines(found.tree)
    etag = f'"{digest_of(lines)}"'
    if etag in request.headers.get("If-None-Match", ""):
        response: HttpResponse = HttpResponseNotModified()
    else:
        body = wire.answer(wire.TREE_MARK, found.head.identity.epoch, found.head.settled, lines)
        response = HttpResponse(body, content_type=_TSV)
    response["ETag"] = etag
    return _finished(response, found.head.identity.epoch)


@csrf_exempt
@require_http_methods(["GET", "POST"])
@guarded(Grant.HARVEST)
def listing(request: HttpRequest) -> HttpResponseBase:
    """The rows of some parts of a set, from one snapshot."""
    asked = _asked(request)
    prefixes = _prefixes(asked)
    if not prefixes:
        raise InvalidRequestError("prefix is missing: name at least the first digit of the ids")
    limit = _number(asked, "limit", default=MOST_ROWS, least=1, most=MOST_ROWS)
    found = queries.read_listing(_scope(asked), prefixes=prefixes, after=_after(asked), limit=limit)
    connection.close()
    lines = wire.listing_lines(found.rows)
    head = found.head
    body = wire.answer(wire.LISTING_MARK, head.identity.epoch, head.settled, lines, str(int(found.more)))
    return _finished(HttpResponse(body, content_type=_TSV), head.identity.epoch)


@csrf_exempt
@require_http_methods(["GET", "POST"])
@guarded(Grant.HARVEST)
def rows(request: HttpRequest) -> HttpResponseBase:
    """What is known of single ids, as pages of the feed one after the other, of one moment."""
    asked = _asked(request)
    is_site = settings.INVENTORY_ROLE == "site"
    streams = [DELETED_LOCATIONS, DELETED_ARTIFACTS, ARTIFACTS] if is_site else [DELETED_ARTIFACTS, ARTIFACTS]
    pages = feed.read_rows(streams, _ids(asked), stored_only=is_site)
    connection.close()
    response = StreamingHttpResponse(_pages(pages), content_type=_TSV)
    size = sum(len(page.header_line) + page.size + len(page.end_line) for page in pages)
    response["Content-Length"] = str(size)
    return _finished(response, pages[0].head.identity.epoch)


def _pages(pages: list[FeedPage]) -> Iterator[bytes]:
    for page in pages:
        yield page.header_line
        yield from page.chunks()
        yield page.end_line


def _asked(request: HttpRequest) -> QueryDict:
    """The parameters; a list that is too long for a query is posted as a form."""
    return request.POST if request.method == "POST" else request.GET


def _finished(response: HttpResponseBase, epoch: str) -> HttpResponseBase:
    response[EPOCH_HEADER] = epoch
    response["Cache-Control"] = "no-store"
    return response


def _scope(asked: QueryDict) -> Scope:
    kinds = {kind.value: kind for kind in Kind}
    name = asked.get("set", "")
    if name not in kinds:
        raise InvalidRequestError(f"set must be one of {', '.join(kinds)}; it is {name!r}")
    site_id = _uuid("site", asked.get("site", ""))
    if settings.INVENTORY_ROLE == "site" and site_id != read_identity().inventory_id:
        raise InvalidRequestError(f"this is not site {site_id}; ask it, or a global")
    included, excluded = (tuple(map(Namespace.parse, asked.getlist(key))) for key in ("namespace", "except"))
    return Scope(kinds[name], site_id, Filter(included, excluded))


def _prefixes(asked: QueryDict) -> list[str]:
    prefixes = asked.getlist("prefix")
    for prefix in prefixes:
        if not _PREFIX.match(prefix):
            raise InvalidRequestError(f"prefix must be 1 to {ID_DIGITS} digits 0-9a-f; it is {prefix!r}")
    return prefixes


def _after(asked: QueryDict) -> uuid.UUID | None:
    text = asked.get("after")
    return _uuid("after", text) if text else None


def _ids(asked: QueryDict) -> tuple[uuid.UUID, ...]:
    texts = [text for text in asked.get("ids", "").split(",") if text]
    if not 1 <= len(texts) <= MOST_IDS:
        raise InvalidRequestError(f"ids must be 1 to {MOST_IDS} ids with commas between them; there are {len(texts)}")
    return tuple(_uuid("ids", text) for text in texts)


def _uuid(name: str, text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise InvalidRequestError(f"{name} must be an id (UUID); it is {text!r}") from None


def _number(asked: QueryDict, name: str, *, default: int, least: int, most: int) -> int:
    text = asked.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        raise InvalidRequestError(f"{name} must be a whole number between {least} and {most}; it is {text!r}")
    return int(text)
