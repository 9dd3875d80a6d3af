"""Doors for operators: how file sync stands, all that is known of one uri, and "try now"."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe

from datamodel.auth import caller_of
from datamodel.doors import decides, filtered
from datamodel.models import DeletedArtifactEvent, HarvestConflict, HarvestState, RetiredArtifact
from datamodel.permissions import Grant, require
from datamodel.uris import ArtifactUri
from datamodel.wire import artifact_item, time_text
from site_service.file_sync import actors, attempts, queries, rules
from site_service.file_sync.models import SyncAttempt
from site_service.file_sync.queries import Explanation
from site_service.policy.rules import Verdict
from site_service.storage.registry import get_store


@require_safe
@filtered(Grant.READ)
def explain(request: HttpRequest) -> HttpResponse:
    """Policy, copy, attempts and news of one uri in one answer; also for a uri that is not known here."""
    uri = ArtifactUri.parse(request.GET.get("uri", ""))
    require(caller_of(request), Grant.READ, uri)
    return _json(_explained(uri.value, queries.explanation(uri.value)))


@csrf_exempt
@require_http_methods(["HEAD", "GET", "POST"])
@decides(Grant.READ, Grant.OPERATE)
def sync(request: HttpRequest) -> HttpResponse:
    """GET: the queue in numbers. POST: whatever waits for its next try is due now."""
    if request.method == "POST":
        require(caller_of(request), Grant.OPERATE)
        hastened = attempts.try_now()
        actors.ring(batches=settings.INVENTORY_SYNC_THREADS, store=get_store())
        return _json({"hastened": hastened})
    require(caller_of(request), Grant.READ)
    numbers = {_camel(name): value for name, value in asdict(queries.summary()).items()}
    done = {reason: {"files": files, "bytes": size} for reason, (files, size) in queries.outcomes().items()}
    store = get_store()
    free = store.free_space().free
    return _json({**numbers, "outcomes": done, "freeBytes": free, "isPaused": queries.is_paused(store)})


def _explained(uri: str, found: Explanation) -> dict[str, object]:
    location = found.known.location if found.known is not None else None
    return {
        "uri": uri,
        "standing": found.standing.value,
        "policy": _verdict(found.verdict),
        "artifact": artifact_item(found.known.artifact) if found.known is not None else None,
        "location": asdict(location) if location is not None else None,
        "attempt": _attempt(found.attempt, found.now) if found.attempt is not None else None,
        "tombstones": [_tombstone(event) for event in found.tombstones],
        "retired": [_retired(row) for row in found.retired],
        "conflicts": [_conflict(row) for row in found.conflicts],
        "globals": [_cursor(state) for state in found.globals],
    }


def _verdict(verdict: Verdict) -> dict[str, object]:
    namespace = verdict.rule.namespace.value if verdict.rule is not None else None
    return {"wanted": verdict.wanted, "priority": verdict.priority, "namespace": namespace}


def _attempt(row: SyncAttempt, now: datetime) -> dict[str, object]:
    is_running = rules.is_leased(row.lease_until, now)
    return {
        "attempts": row.attempts,
        "isRepair": row.is_repair,
        "queuedAt": row.created_at,
        "lastTriedAt": row.last_tried_at,
        "lastReason": row.last_reason or None,
        "lastError": row.last_error or None,
        "nextTryAt": None if is_running else row.next_try_at,
        "leaseUntil": row.lease_until if is_running else None,
    }


def _tombstone(event: DeletedArtifactEvent) -> dict[str, object]:
    return {"id": event.id, "deletedAt": event.deleted_at, "learnedAt": event.last_modified}


def _retired(row: RetiredArtifact) -> dict[str, object]:
    return {
        "id": row.id,
        "contentChecksum": row.content_checksum,
        "contentLength": row.content_length,
        "bornAt": row.born_at,
        "diedAt": row.died_at,
        "state": row.state,
        "stateAt": row.state_at,
    }


def _conflict(row: HarvestConflict) -> dict[str, object]:
    return {
        "winnerId": row.winner_id,
        "loserId": row.loser_id,
        "loserChecksum": row.loser_checksum,
        "sameContent": row.same_content,
        "decidedAt": row.decided_at,
    }


def _cursor(state: HarvestState) -> dict[str, object]:
    return {
        "name": state.remote.name,
        "stream": state.name,
        "selector": state.selector or None,
        "covers": state.covers,
        "epoch": state.epoch or None,
        "txid": state.cur_txid,
        "rows": state.rows,
        "isComplete": state.is_complete,
        "updatedAt": state.updated_at,
        "lastContactAt": state.remote.last_contact_at,
        "lastError": state.remote.last_error or None,
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _json(document: dict[str, object]) -> HttpResponse:
    text = json.dumps(document, default=lambda value: time_text(value) if isinstance(value, datetime) else str(value))
    connection.close()
    response = HttpResponse(text, content_type="application/json")
    response["Cache-Control"] = "private, no-store"
    return response
