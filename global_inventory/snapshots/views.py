"""The door for sites: `GET /pins` and `POST /pins`."""

from __future__ import annotations

import json
import uuid

from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.views.decorators.csrf import csrf_exempt

from datamodel.auth import caller_of
from datamodel.doors import guarded
from datamodel.errors import InvalidRequestError
from datamodel.permissions import Grant, require_speaker
from datamodel.positions import Position
from datamodel.snapshots import wire
from datamodel.wire import time_text
from global_inventory.snapshots import operations
from global_inventory.snapshots.queries import PAGE_PINS


@csrf_exempt
@guarded(Grant.HARVEST)
def pins(request: HttpRequest) -> HttpResponse:
    """Our snapshots for a site, and what a site says of them."""
    if request.method == "POST":
        return _acknowledge(request)
    if request.method not in {"GET", "HEAD"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    after = _ids(request.GET.get("after", ""))
    page = operations.tell_pins(after=after[0] if after else None)
    last = str(page.pins[-1].id) if len(page.pins) == PAGE_PINS else None
    return _json({"until": time_text(page.until), "pins": [wire.snapshot_item(pin) for pin in page.pins], "next": last})


def _acknowledge(request: HttpRequest) -> HttpResponse:
    position = Position.parse(request.POST.get("position", ""))
    require_speaker(caller_of(request), position.inventory_id)
    operations.record_acknowledgements(
        position=position,
        held=_ids(request.POST.get("held", "")),
        dropped=_ids(request.POST.get("dropped", "")),
    )
    return _json({})


def _ids(text: str) -> list[uuid.UUID]:
    try:
        return [uuid.UUID(word) for word in text.split(",") if word]
    except ValueError:
        raise InvalidRequestError("ids of snapshots are UUIDs, separated by commas") from None


def _json(document: dict[str, object]) -> HttpResponse:
    connection.close()
    response = HttpResponse(json.dumps(document), content_type="application/json")
    response["Cache-Control"] = "no-store"
    return response
