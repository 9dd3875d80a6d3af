"""Whose bytes are due for removal, whose facts may lag behind their row, and how runs of retire stand."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Count, Exists, OuterRef, Subquery

from datamodel.models import DeletionBrake, HarvestConflict, ObsoleteStorageLocation, RetiredArtifact, StorageLocation
from datamodel.queries import RETIRED_COLUMNS, RetiredRow, retired_from
from datamodel.rows import database_now
from datamodel.snapshots.queries import FREE_SQL
from datamodel.uris import ArtifactUri, Namespace, prefix_upper_bound
from site_service.retention.models import CopyRelease, CopyReleaseOutcome, RetentionRule, RetireRun
from site_service.retention.rules import OPEN_RELEASES, SOURCE, ReleaseState, Retention

BATCH = 1000
# A removal that was begun and not finished for so long has lost its worker.
STUCK = timedelta(minutes=10)
_LATELY = timedelta(days=1)


# Snapshots may hold back any number of dead for years: a tick looks at no more than this, and the next one goes on from there.
LOOKED_AT = 20_000
_DUE_SQL = """
    SELECT r.id, r.died_at, r.died_at < inventory_now() - make_interval(secs => {kept}) AND {free} FROM (
        SELECT * FROM retired_artifact
        WHERE state = 'retained' AND died_at < inventory_now() - make_interval(secs => %(shortest)s)
            AND (died_at, id) > (%(died_at)s::timestamptz, %(id)s::uuid)
        ORDER BY died_at, id LIMIT %(looked_at)s
    ) r ORDER BY r.died_at, r.id
"""
# What ended last by the clock that all inventories share: this one may have heard of several ends at once.
_ENDED_LAST = "coalesce(r.ended_at, r.died_at) DESC, r.born_at DESC, r.id"
_UNDELETABLE_SQL = f"""
    SELECT DISTINCT ON (r.uri) {RETIRED_COLUMNS} FROM retired_artifact r
    WHERE r.uri >= %(start)s AND r.uri < %(end)s AND r.uri > %(after)s AND r.state = 'retained'
    ORDER BY r.uri, {_ENDED_LAST} LIMIT %(limit)s
"""
_LATEST_SQL = f"""
    SELECT {RETIRED_COLUMNS} FROM retired_artifact r WHERE r.uri = %(uri)s AND r.state = 'retained'
        AND (%(checksum)s::text IS NULL OR (r.content_checksum, r.content_length) = (%(checksum)s, %(length)s))
    ORDER BY {_ENDED_LAST} LIMIT 1
"""


def retention() -> Retention:
    """All rules; one small query."""
    rules = RetentionRule.objects.values_list("namespace", "seconds")
    return Retention(
        by_namespace={Namespace(namespace): timedelta(seconds=seconds) for namespace, seconds in rules},
        default=timedelta(seconds=settings.INVENTORY_RETENTION_SECONDS),
        # Not before the longest GET is over that may still be reading it.
        least=timedelta(seconds=settings.INVENTORY_TRANSFER_SECONDS),
    )


def obsolete_before() -> datetime:
    """Bytes that became obsolete before then may go: the longest GET is over that may still be reading them."""
    return database_now() - timedelta(seconds=settings.INVENTORY_TRANSFER_SECONDS)


class _Round:
    """How far this process has looked through the dead, the longest dead first; at the end it starts anew.

    Forgetting it costs a look, nothing else.
    """

    _START = ("-infinity", uuid.UUID(int=0))

    def __init__(self) -> None:
        self._place: tuple[str | datetime, uuid.UUID] = self._START

    def next_due(self) -> list[uuid.UUID]:
        """What is due and free among the next ones. While a batch is full, its place is not left: what is sent may be lost."""
        kept = retention()
        expression, parameters = kept.sql("r.uri")
        values = {"shortest": kept.shortest.total_seconds(), "looked_at": LOOKED_AT}
        place = {"died_at": self._place[0], "id": self._place[1]}
        with connection.cursor() as cursor:
            cursor.execute(_DUE_SQL.format(kept=expression, free=FREE_SQL), {**parameters, **values, **place})
            rows = cursor.fetchall()
        due = [identity for identity, _, is_due in rows if is_due]
        if len(due) < BATCH:
            self._place = (rows[-1][1], rows[-1][0]) if len(rows) == LOOKED_AT else self._START
        return due[:BATCH]


_round = _Round()


def due_retired() -> list[uuid.UUID]:
    """Retired artifacts whose bytes are due, the longest dead first; then those whose removal was begun and got stuck."""
    due = _round.next_due()
    stuck = RetiredArtifact.objects.filter(
        state=RetiredArtifact.State.REMOVING, state_at__lt=database_now() - STUCK
    ).order_by("state_at")
    return (due + list(stuck.values_list("id", flat=True)[:BATCH]))[:BATCH]


def undeletable(namespace: Namespace, *, after: str, limit: int) -> list[RetiredRow]:
    """What can live again under a namespace, by uri: of each uri what ended last."""
    prefix = namespace.value
    with connection.cursor() as cursor:
        cursor.execute(
            _UNDELETABLE_SQL, {"start": prefix, "end": prefix_upper_bound(prefix), "after": after, "limit": limit}
        )
        return [retired_from(row) for row in cursor.fetchall()]


def latest_retained(uri: ArtifactUri, *, content: tuple[str, int] | None = None) -> RetiredRow | None:
    """What can live again of one uri: what ended last, of this content (its checksum and length) if one is named."""
    checksum, length = content or (None, None)
    with connection.cursor() as cursor:
        cursor.execute(_LATEST_SQL, {"uri": uri.value, "checksum": checksum, "length": length})
        row = cursor.fetchone()
    return retired_from(row) if row is not None else None


def due_obsolete() -> list[uuid.UUID]:
    """Obsolete storage locations that are due, the oldest first."""
    rows = ObsoleteStorageLocation.objects.filter(last_modified__lt=obsolete_before()).order_by("last_modified")
    return list(rows.values_list("id", flat=True)[:BATCH])


def reattached() -> list[uuid.UUID]:
    """Stored artifacts whose bytes may still say another id: they lately won a collision of equal content, or live again."""
    lately = database_now() - _LATELY
    winners = HarvestConflict.objects.filter(
        Exists(StorageLocation.objects.filter(artifact_id=OuterRef("winner_id"))),
        same_content=True,
        decided_at__gt=lately,
    )
    restored = RetiredArtifact.objects.filter(state=RetiredArtifact.State.RESTORED, state_at__gt=lately)
    location = StorageLocation.objects.filter(
        storage_bucket=OuterRef("storage_bucket"), storage_id=OuterRef("storage_id")
    )
    living = restored.annotate(living=Subquery(location.values("artifact_id"))).filter(living__isnull=False)
    found = {*winners.values_list("winner_id", flat=True)[:BATCH], *living.values_list("living", flat=True)[:BATCH]}
    return sorted(found)[:BATCH]


def has_open_runs() -> bool:
    """Whether a run of retire is not over, or a copy of a cancelled one must still be given back."""
    is_running = RetireRun.objects.filter(state=RetireRun.State.RUNNING).exists()
    return is_running or CopyRelease.objects.filter(state__in=[ReleaseState.ASKED, ReleaseState.RETURNING]).exists()


def newest_runs(limit: int) -> list[RetireRun]:
    """Runs of retire, the newest first."""
    return list(RetireRun.objects.order_by("-started_at")[:limit])


def run_by_id(run_id: uuid.UUID) -> RetireRun | None:
    """A run of retire."""
    return RetireRun.objects.filter(id=run_id).first()


def releases_of(run_id: uuid.UUID, *, state: ReleaseState, after: str, limit: int) -> list[CopyRelease]:
    """Copies of a run in a state, by uri, after a uri."""
    rows = CopyRelease.objects.filter(run_id=run_id, state=state, uri__gt=after).order_by("uri")
    return list(rows[:limit])


def waiting_reasons(run_id: uuid.UUID) -> list[tuple[str, str, int]]:
    """Why copies of a run still wait: (state, detail of the last try, how many); few rows, a run has a slice open at most."""
    rows = CopyRelease.objects.filter(run_id=run_id, state__in=OPEN_RELEASES).order_by("state", "detail")
    return list(rows.values_list("state", "detail").annotate(Count("id")))


def stopped_by_brake() -> list[str]:
    """Why runs wait for an operator."""
    stopped = DeletionBrake.objects.filter(source=SOURCE, engaged_at__isnull=False).order_by("namespace")
    return list(stopped.values_list("reason", flat=True))


def open_releases() -> dict[str, int]:
    """Copies on their way out, by state."""
    rows = CopyRelease.objects.filter(state__in=OPEN_RELEASES).order_by("state").values_list("state")
    return dict(rows.annotate(Count("id")))


def release_outcomes() -> dict[str, tuple[int, int]]:
    """Files and bytes by outcome, since the beginning."""
    rows = CopyReleaseOutcome.objects.order_by("outcome").values_list("outcome", "files", "bytes")
    return {outcome: (files, size) for outcome, files, size in rows}
