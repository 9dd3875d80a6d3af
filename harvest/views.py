"""The doors of the feed: `/harvest/{stream}` and the long-poll `/harvest/news`."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET

from datamodel.auth import caller_of
from datamodel.doors import filtered
from datamodel.errors import InvalidRequestError
from datamodel.notify import news
from datamodel.permissions import Caller, Grant, reach, require_speaker
from datamodel.positions import Cursor, cached_identity
from datamodel.uris import Namespace, namespace_filter
from datamodel.wire import time_text
from harvest import feed, readers
from harvest.feed import FeedPage, News, PageRequest
from harvest.streams import ARTIFACTS, DELETIONS_HEADER, EPOCH_HEADER, READER_HEADER, STREAMS

MAX_LIMIT = 100_000
MAX_WAIT_SECONDS = 30.0
_FORMATS = {"tsv": "text/tab-separated-values; charset=utf-8", "ndjson": "application/x-ndjson"}
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 1.0


@csrf_exempt
@require_GET
@filtered(Grant.HARVEST)
def stream_page(request: HttpRequest, stream: str) -> HttpResponseBase:
    """One page of a stream; see README.md for the form."""
    form = request.GET.get("format", "tsv")
    if form not in _FORMATS:
        raise InvalidRequestError(f"format must be one of {', '.join(_FORMATS)}; it is {form!r}")
    page = feed.read_page(_page_request(request, stream), as_json=form == "ndjson")
    # Back to the pool before the first byte leaves: how long a peer takes to read is its own affair.
    connection.close()
    head, end = (b"", page.end_object) if form == "ndjson" else (page.header_line, page.end_line)
    response = StreamingHttpResponse(_lines(head, page, end), content_type=_FORMATS[form])
    response["Content-Length"] = str(len(head) + page.size + len(end))
    response[EPOCH_HEADER] = page.head.identity.epoch
    if page.stream is ARTIFACTS:
        response[DELETIONS_HEADER] = str(page.head.deletions)
    response["Cache-Control"] = "no-store"
    return response


@csrf_exempt
@require_GET
@filtered(Grant.HARVEST)
def wait_for_news(request: HttpRequest) -> HttpResponse:
    """Answers as soon as a stream has rows at or after a transaction, or when the wait is over; how far the peer is, is noted."""
    caller = caller_of(request)
    epoch, after, sender = request.GET.get("epoch", ""), _number(request, "after", 0), _site(request, "sender")
    readers.record_reader(
        caller=caller.name,
        inventory_id=_reader(request, caller),
        is_itself=caller.inventory_id is not None,
        epoch=epoch,
        txid=max(after - 1, 0),
        present=cached_identity.get().epoch,
    )
    wait = min(float(_number(request, "wait", 0)), MAX_WAIT_SECONDS)
    is_admitted = wait > 0 and _long_polls.acquire()
    try:
        found = _wait(epoch, after, wait if is_admitted else 0.0, sender)
    finally:
        if is_admitted:
            _long_polls.release()
    answer = {
        "epoch": found.head.identity.epoch,
        "expiredUntil": time_text(gone_at) if (gone_at := found.head.identity.gone_at) is not None else None,
        "horizon": found.head.horizon,
        "inventoryId": str(found.head.identity.inventory_id),
        "news": bool(found.streams),
        "settled": found.head.settled,
        "streams": list(found.streams),
    }
    response = JsonResponse(answer)
    response["Cache-Control"] = "no-store"
    return response


class _LongPolls:
    """At most INVENTORY_LONG_POLLS requests of this process wait at a time; the others are answered at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def acquire(self) -> bool:
        with self._lock:
            if self._count >= settings.INVENTORY_LONG_POLLS:
                return False
            self._count += 1
            return True

    def release(self) -> None:
        with self._lock:
            self._count -= 1


_long_polls = _LongPolls()


def _wait(epoch: str, after: int, wait: float, sender: uuid.UUID | None) -> News:
    """Woken by the doorbell. Rows that are committed but not yet final ring no second time: they are looked at again soon."""
    deadline = time.monotonic() + wait
    pause = _FIRST_PAUSE_SECONDS
    while True:
        seen = news.count() if wait else 0
        found = feed.read_news(epoch, after, sender=sender)
        connection.close()
        left = deadline - time.monotonic()
        if found.streams or left <= 0 or news.is_closing:
            return found
        if news.wait(seen, min(pause, left) if found.is_pending else left):
            # Whatever came now may be final soon, however long something else has kept us.
            pause = _FIRST_PAUSE_SECONDS
        else:
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _reader(request: HttpRequest, caller: Caller) -> uuid.UUID:
    """Whose reading this is: a paired inventory's own, or that of the one which the header names, if the caller speaks for it."""
    text = request.headers.get(READER_HEADER)
    if text is None:
        return caller.inventory_id or readers.NOBODY
    try:
        named = uuid.UUID(text)
    except ValueError:
        raise InvalidRequestError(f"{READER_HEADER} must be the id of an inventory; it is {text!r}") from None
    require_speaker(caller, named)
    return named


def _lines(head: bytes, page: FeedPage, end: bytes) -> Iterator[bytes]:
    yield head
    yield from page.chunks()
    yield end


def _page_request(request: HttpRequest, stream: str) -> PageRequest:
    limit = _number(request, "limit", settings.INVENTORY_HARVEST_BATCH)
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequestError(f"limit must be between 1 and {MAX_LIMIT}; it is {limit}")
    cursor = request.GET.get("cursor")
    namespaces = namespace_filter([Namespace.parse(text) for text in request.GET.getlist("namespace")])
    if namespaces and not STREAMS[stream].has_uri:
        raise InvalidRequestError(f"the stream {stream} has no namespaces")
    return PageRequest(
        stream=STREAMS[stream],
        cursor=Cursor.parse(cursor) if cursor else None,
        limit=limit,
        namespaces=tuple(namespaces),
        holder=_site(request, "holder", stream),
        sender=_site(request, "sender", stream),
        stored_only=settings.INVENTORY_ROLE == "site",
        reach=reach(caller_of(request), Grant.HARVEST),
    )


def _site(request: HttpRequest, name: str, stream: str = ARTIFACTS.name) -> uuid.UUID | None:
    text = request.GET.get(name)
    if text is None:
        return None
    if settings.INVENTORY_ROLE != "global" or STREAMS[stream] is not ARTIFACTS:
        raise InvalidRequestError(f"{name} is about artifacts of a global inventory: leave it out here")
    try:
        return uuid.UUID(text)
    except ValueError:
        raise InvalidRequestError(f"{name} must be the id of a site; it is {text!r}") from None


def _number(request: HttpRequest, name: str, default: int) -> int:
    text = request.GET.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise InvalidRequestError(f"{name} must be a whole number; it is {text!r}")
    return int(text)
