"""The writes of snapshots. Each operation is one transaction; a moment is fixed under a lock that removals of bytes share.

A removal that comes before a snapshot takes what ended before its moment; one that comes after sees the snapshot.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, connection, transaction

from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.errors import InvalidRequestError, StateConflictError
from datamodel.logs import unit_of_work
from datamodel.models import RemoteInventory
from datamodel.rows import database_now
from datamodel.snapshots import queries, rules
from datamodel.snapshots.models import Snapshot, SnapshotMark, SnapshotSchedule
from datamodel.snapshots.queries import FREE_SQL, Verification
from datamodel.snapshots.rules import MOVES, Digest, Keep, State
from datamodel.uris import Namespace

logger = logging.getLogger(__name__)

# One lock for the moments of snapshots: exclusive for whoever fixes one or promises that there are no others, shared by removals.
_MOMENT_LOCK = 7_308_001
# Two processes do not measure one snapshot at a time.
_MEASURE_LOCK = 7_308_002
_PRUNED_AT_ONCE = 10_000
_LOOK_AGAIN_SECONDS = 0.005
_PRUNE_SQL = f"""
    DELETE FROM retired_artifact WHERE id IN (
        SELECT r.id FROM retired_artifact r
        WHERE r.state IN ('purged', 'restored') AND r.died_at < %(begins_at)s AND greatest(r.died_at, r.ended_at) < %(begins_at)s
            AND {FREE_SQL}
        ORDER BY r.died_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
"""


def lock_moments(*, shared: bool) -> None:
    """Inside a transaction, as a statement before the one that looks: until its end no moment is fixed (`shared`) elsewhere."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}(%s)", [_MOMENT_LOCK])


def create_snapshot(
    *, name: str, namespace: Namespace, created_by: str, schedule: SnapshotSchedule | None = None
) -> Snapshot:
    """Fix this moment of a namespace: from the commit on no byte that lived then is removed here. State `pinning`.

    Raises `InvalidRequestError` for a bad name and `StateConflictError` when there is one of this name.
    """
    if not rules.is_name(name):
        raise InvalidRequestError(
            f"invalid name {name!r}: use at most 100 letters, digits, dots, hyphens and underscores"
        )
    try:
        with unit_of_work(logger, "create_snapshot", name=name, namespace=namespace.value), transaction.atomic():
            lock_moments(shared=False)
            now = _after_what_was_told(database_now())
            record(Action.SNAPSHOT_CREATED, name, details={"namespace": namespace.value, "by": created_by})
            return Snapshot.objects.create(
                name=name,
                namespace=namespace.value,
                moment=now,
                state=State.PINNING,
                schedule=schedule,
                created_at=now,
                created_by=created_by,
            )
    except IntegrityError as error:
        raise StateConflictError(f"there is a snapshot {name} already") from error


def settle_snapshot(*, snapshot: Snapshot) -> bool:
    """Make a snapshot `kept` once all that happened before its moment is known here: its digest is final then.

    Returns False while something is awaited, or another process is at it. Repeatable.
    """
    if snapshot.state != State.PINNING or snapshot.source:
        return snapshot.state == State.KEPT
    if queries.awaited(snapshot) or not queries.is_past(snapshot.moment):
        return False
    # Reads only: the scan may be long, and must not hold back the feed.
    with transaction.atomic():
        if not _is_ours_to_measure(snapshot):
            return False
        tree = queries.tree(snapshot.namespace, snapshot.moment)
    with unit_of_work(logger, "settle_snapshot", name=snapshot.name, namespace=snapshot.namespace) as work:
        whole = rules.total_of(tree)
        work.note(artifacts=whole.count, bytes=whole.size, digest=whole.text)
        measured = {"digest": whole.text, "artifacts": whole.count, "size": whole.size}
        advance(
            snapshot=snapshot,
            to=State.KEPT,
            facts={**measured, "tree": rules.stored_tree(tree), "kept_at": database_now()},
        )
    snapshot.refresh_from_db()
    return snapshot.state == State.KEPT


def settle_soon(*, snapshot: Snapshot, seconds: float) -> bool:
    """Settle at once if nobody else has to speak; wait for transactions that are under way, at most so long."""
    deadline = time.monotonic() + seconds
    while not settle_snapshot(snapshot=snapshot):
        if time.monotonic() > deadline or queries.awaited(snapshot):
            return False
        time.sleep(_LOOK_AGAIN_SECONDS)
    return True


def release_snapshot(*, snapshot: Snapshot) -> None:
    """Delete a snapshot: what only it kept may go. At a global it is `released` until every site has dropped it.

    Raises `StateConflictError` for a snapshot of a global that is known there: it is deleted there.
    """
    with unit_of_work(logger, "release_snapshot", name=str(snapshot), namespace=snapshot.namespace):
        if snapshot.source and not _is_abandoned(snapshot):
            raise StateConflictError(f"{snapshot} belongs to {snapshot.source}: delete it there")
        with transaction.atomic():
            if settings.INVENTORY_ROLE == "global":
                is_released = advance(snapshot=snapshot, to=State.RELEASED, facts={})
            else:
                is_released = Snapshot.objects.filter(id=snapshot.id).delete()[0] > 0
            if is_released:
                record(Action.SNAPSHOT_RELEASED, snapshot.name, details={"namespace": snapshot.namespace})


def advance(*, snapshot: Snapshot, to: State, facts: dict[str, object]) -> bool:
    """Move a snapshot on, with facts, in one conditional update; whether this process won."""
    before = [state for state, following in MOVES.items() if to in following]
    return Snapshot.objects.filter(id=snapshot.id, state__in=before).update(state=to, **facts) == 1


def verify_snapshot(*, snapshot: Snapshot) -> Verification:
    """Compute the digest anew. Raises `StateConflictError` while the snapshot is `pinning`."""
    if not snapshot.digest:
        raise StateConflictError(f"{snapshot} is {snapshot.state}: it has no digest yet")
    with unit_of_work(logger, "verify_snapshot", name=str(snapshot)) as work:
        promised = Digest(snapshot.artifacts, snapshot.size, int(snapshot.digest, 16))
        found = rules.total_of(queries.tree(snapshot.namespace, snapshot.moment))
        work.note(holds=promised == found)
        return Verification(promised, found)


def take_due_snapshots() -> list[Snapshot]:
    """One snapshot of each schedule in each of its shortest periods; two at once take one."""
    now = database_now()
    schedules = SnapshotSchedule.objects.filter(enabled=True)
    return [taken for schedule in schedules if (taken := _take(schedule, keep_of(schedule).period_of(now))) is not None]


def thin_snapshots() -> int:
    """Release what the schedules do not keep; how many. A repeat, and a second one at the same time, release nothing more."""
    released = 0
    for schedule in SnapshotSchedule.objects.filter(enabled=True):
        taken = list(schedule.snapshots.exclude(state=State.RELEASED).defer("tree"))
        kept = rules.kept_moments([snapshot.moment for snapshot in taken], keep_of(schedule))
        for snapshot in taken:
            if snapshot.moment not in kept:
                release_snapshot(snapshot=snapshot)
                released += 1
    return released


def prune_history() -> int:
    """Forget ends older than INVENTORY_HISTORY_SECONDS that no snapshot needs, some at a time; how many.

    The mark of where history begins commits with the first row that goes, or before it.
    """
    with transaction.atomic():
        lock_moments(shared=True)
        begins_at = database_now() - timedelta(seconds=settings.INVENTORY_HISTORY_SECONDS)
        with connection.cursor() as cursor:
            cursor.execute(_PRUNE_SQL, {"begins_at": begins_at, "limit": _PRUNED_AT_ONCE})
            pruned = int(cursor.rowcount)
        if pruned:
            known = queries.history_begins_at()
            SnapshotMark.objects.update_or_create(
                id=1, defaults={"history_begins_at": max(begins_at, known) if known else begins_at}
            )
        return pruned


def count_held() -> tuple[int, int]:
    """Count anew how many retired artifacts and bytes snapshots hold back here, for the metrics."""
    artifacts, size = queries.held_size()
    SnapshotMark.objects.update_or_create(id=1, defaults={"held_artifacts": artifacts, "held_size": size})
    return artifacts, size


def tell_until_now() -> datetime:
    """Inside a transaction, before the snapshots are listed for a site: no later snapshot is of an earlier moment than this."""
    lock_moments(shared=False)
    now = _after_what_was_told(database_now())
    SnapshotMark.objects.update_or_create(id=1, defaults={"told_until": now})
    return now


def keep_of(schedule: SnapshotSchedule) -> Keep:
    """As the rules take it."""
    return Keep(schedule.hourly, schedule.daily, schedule.monthly, schedule.yearly)


def _is_ours_to_measure(snapshot: Snapshot) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, hashtext(%s))", [_MEASURE_LOCK, str(snapshot.id)])
        (is_ours,) = cursor.fetchone()
    return bool(is_ours)


def _take(schedule: SnapshotSchedule, period: str) -> Snapshot | None:
    try:
        with transaction.atomic():
            due = SnapshotSchedule.objects.filter(id=schedule.id, enabled=True).exclude(last_period=period)
            if not due.update(last_period=period):
                return None
            return create_snapshot(
                name=f"{schedule.name}-{period.replace(':', '')}",
                namespace=Namespace(schedule.namespace),
                created_by="schedule",
                schedule=schedule,
            )
    except StateConflictError as error:
        logger.warning("END event=take_snapshot", extra={"facts": {"schedule": schedule.name, "reason": error.detail}})
        return None


def _is_abandoned(snapshot: Snapshot) -> bool:
    """Whether its global does not know it any more, or is no longer one of ours."""
    return snapshot.is_orphan or not RemoteInventory.objects.filter(name=snapshot.source, enabled=True).exists()


def _after_what_was_told(now: datetime) -> datetime:
    """A clock that was set back must not make a snapshot earlier than what sites were told of."""
    told = SnapshotMark.objects.values_list("told_until", flat=True).filter(id=1).first()
    return max(now, told) if told is not None else now
