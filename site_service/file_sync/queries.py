"""Reads for operators: how file sync stands, and everything this site knows about one uri."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection

from datamodel.models import DeletedArtifactEvent, HarvestConflict, HarvestState, RemoteInventory, RetiredArtifact
from datamodel.queries import KnownArtifact, artifact_by_uri
from datamodel.rows import database_now
from site_service.file_sync import rules, scan
from site_service.file_sync.models import SyncAttempt, SyncOutcome
from site_service.file_sync.rules import Standing
from site_service.policy.queries import current_policy
from site_service.policy.rules import Verdict
from site_service.storage.contract import ArtifactStore

_ROWS = 20
_SUMMARY_SQL = """
    SELECT count(*), coalesce(sum(content_length), 0), coalesce(sum(CASE WHEN is_repair THEN 1 ELSE 0 END), 0),
        count(*) FILTER (WHERE lease_until > t.now),
        count(*) FILTER (WHERE lease_until <= t.now),
        count(*) FILTER (WHERE next_try_at <= t.now AND (lease_until IS NULL OR lease_until <= t.now)),
        extract(epoch FROM max(t.now - created_at))
    FROM sync_attempt, (SELECT inventory_now() AS now) t
"""
_FAILING_SQL = """
    SELECT last_reason, count(*) FROM sync_attempt WHERE last_reason <> '' GROUP BY last_reason ORDER BY last_reason
"""


@dataclass(frozen=True, slots=True)
class Summary:
    """The queue in numbers. `unseen` are wanted and missing, but not in the queue yet; `failing` counts rows by last reason."""

    missing: int
    missing_bytes: int
    repairs: int
    in_flight: int
    expired: int
    due: int
    unseen: int
    oldest_seconds: float
    failing: dict[str, int]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known here about one uri; `standing` sums it up."""

    standing: Standing
    verdict: Verdict
    known: KnownArtifact | None
    tombstones: list[DeletedArtifactEvent]
    retired: list[RetiredArtifact]
    conflicts: list[HarvestConflict]
    attempt: SyncAttempt | None
    globals: list[HarvestState]
    now: datetime


def summary() -> Summary:
    """Counts of the whole queue; its size, not the inventory's, is the cost."""
    with connection.cursor() as cursor:
        cursor.execute(_SUMMARY_SQL)
        missing, size, repairs, in_flight, expired, due, oldest = cursor.fetchone()
        cursor.execute(_FAILING_SQL)
        failing = dict(cursor.fetchall())
    unseen = scan.count_unseen()
    return Summary(
        missing=missing + unseen,
        missing_bytes=int(size),
        repairs=int(repairs),
        in_flight=in_flight,
        expired=expired,
        due=due,
        unseen=unseen,
        oldest_seconds=float(oldest or 0),
        failing=failing,
    )


def outcomes() -> dict[str, tuple[int, int]]:
    """Files and bytes by reason, since the beginning."""
    return {row.reason: (row.files, row.bytes) for row in SyncOutcome.objects.order_by("reason")}


def is_paused(store: ArtifactStore) -> bool:
    """Whether the store has less free space than file sync needs to go on."""
    return not rules.has_room(store.free_space().free, mark=settings.INVENTORY_SYNC_FREE_BYTES)


def explanation(uri: str) -> Explanation:
    """Everything about one canonical uri; a handful of indexed look-ups."""
    verdict, known, now = current_policy().verdict(uri), artifact_by_uri(uri), database_now()
    attempt = SyncAttempt.objects.filter(artifact_id=known.artifact.id).first() if known is not None else None
    tombstones = list(DeletedArtifactEvent.objects.filter(uri=uri).order_by("-deleted_at")[:_ROWS])
    ids: list[Any] = [event.id for event in tombstones] + ([known.artifact.id] if known is not None else [])
    return Explanation(
        standing=rules.standing(
            is_known=known is not None,
            is_stored=known is not None and known.location is not None,
            is_wanted=verdict.wanted,
            queued=None
            if attempt is None
            else rules.Queued(attempt.is_repair, attempt.next_try_at, attempt.lease_until),
            now=now,
        ),
        verdict=verdict,
        known=known,
        tombstones=tombstones,
        retired=list(RetiredArtifact.objects.filter(uri=uri).order_by("-died_at")[:_ROWS]),
        conflicts=list(
            HarvestConflict.objects.filter(loser_id__in=ids) | HarvestConflict.objects.filter(winner_id__in=ids)
        ),
        attempt=attempt,
        globals=list(
            HarvestState.objects.filter(remote__role=RemoteInventory.Role.GLOBAL)
            .select_related("remote")
            .order_by("remote__name", "name", "selector")
        ),
        now=now,
    )
