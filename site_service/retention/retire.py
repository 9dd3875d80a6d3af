"""Retire: drop the local copies under a namespace, as far as the globals allow. Previewed, in slices, resumable, cancellable."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet

from datamodel import brake
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.errors import DeletionBrakeError, StateConflictError
from datamodel.logs import unit_of_work
from datamodel.rows import database_now
from datamodel.transactions import serialized
from datamodel.uris import Namespace, longest_namespace_sql, prefix_upper_bound
from harvest.queries import load_selection
from harvest.rules import Selection
from site_service.retention import dropping
from site_service.retention.models import RetireRun
from site_service.retention.rules import SOURCE

logger = logging.getLogger(__name__)

_SLICE = 1000
_RUNS_KEPT = 50
_TIDIED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class RetirePreview:
    """What is stored here under a namespace, and how much of it this site's own policy wants: that stays.

    How many of the others the globals would refuse is known only when they are asked. `brake`: what stops them from going, if anything.
    """

    files: int
    bytes: int
    wanted_files: int
    wanted_bytes: int
    brake: str


def preview(namespace: Namespace) -> RetirePreview:
    """Counted in one statement over the index on uri; changes nothing."""
    rows = _counted(namespace)
    files, size, wanted_files, wanted_size = (
        int(sum(column)) for column in list(zip(*rows, strict=True))[1:] or [()] * 4
    )
    stopped = ""
    try:
        _foresee(rows)
    except DeletionBrakeError as error:
        stopped = error.detail
    return RetirePreview(files, size, wanted_files, wanted_size, stopped)


def refuse_braked(namespace: Namespace) -> None:
    """Raises `DeletionBrakeError`, having engaged the brake, if more would go than passes unasked in a day."""
    with brake.engaging():
        _foresee(_counted(namespace))


def begin_run(*, namespace: Namespace, reason: str, started_by: str) -> RetireRun:
    """A run over a namespace; whoever advances runs does the rest. A namespace whose run is not over has one already: that is returned.

    Raises `DeletionBrakeError` as `refuse_braked` does.
    """
    if (running := _running(namespace).first()) is not None:
        return running
    refuse_braked(namespace)
    with transaction.atomic():
        run, is_new = RetireRun.objects.get_or_create(
            namespace=namespace.value,
            state=RetireRun.State.RUNNING,
            defaults={"reason": reason, "started_by": started_by, "after": "", "started_at": database_now()},
        )
        if is_new:
            facts = {"run": str(run.id), "by": started_by}
            record(Action.RETIRE, namespace.value, details=facts, reason=reason)
    return run


def cancel_run(*, run_id: uuid.UUID) -> RetireRun:
    """Nothing more goes; what was allowed and has not gone is given back. A repeat changes nothing.

    Raises `StateConflictError` when the run is over.
    """
    with transaction.atomic():
        run = RetireRun.objects.select_for_update().get(id=run_id)
        if run.state == RetireRun.State.FINISHED:
            raise StateConflictError(f"the run over {run.namespace} has finished")
        if run.state == RetireRun.State.RUNNING:
            run.state, run.finished_at = RetireRun.State.CANCELLED, database_now()
            run.save(update_fields=["state", "finished_at"])
            dropping.withdraw(run_id=run.id)
            record(Action.RETIRE, run.namespace, details={"run": str(run.id), "cancelled": True})
    run.refresh_from_db()
    return run


def end_all() -> int:
    """Cancel every run that is not over; returns how many. A repeat finds those that are left.

    For a restored database: what it says to be granted may have been given back since, so that others dropped theirs.
    """
    running = RetireRun.objects.filter(state=RetireRun.State.RUNNING).order_by("started_at")
    return len([cancel_run(run_id=run_id) for run_id in list(running.values_list("id", flat=True))])


def advance(*, seconds: float) -> bool:
    """Go on with all runs for about so long; whether anything is left that can be done now. Repeatable at any time.

    What was allowed goes first, then what stays is told, then the next copies are asked for. What the brake stops waits for an
    operator, who is told by an alarm.
    """
    deadline = time.monotonic() + seconds
    with unit_of_work(logger, "retire") as work:
        counts = {"dropped": 0, "returned": 0, "asked": 0, "listed": 0}
        while True:
            done = {
                "dropped": _within_brake(dropping.drop_granted),
                "returned": dropping.give_back_due(),
                "asked": dropping.ask_due(),
                "listed": _within_brake(_list_next),
            }
            counts = {name: counts[name] + count for name, count in done.items()}
            is_left = any(done.values())
            if not is_left or time.monotonic() > deadline:
                break
        work.note(**counts, finished=_finish_runs())
        return is_left


def prune() -> int:
    """Forget the oldest runs with what they dropped, a slice at a time; returns how many rows went."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FORGET_RELEASES_SQL, {"kept": _RUNS_KEPT, "limit": _TIDIED_AT_ONCE})
        count = int(cursor.rowcount)
        cursor.execute(_FORGET_RUNS_SQL, {"kept": _RUNS_KEPT})
        return count + int(cursor.rowcount)


_COUNTED_SQL = """
    SELECT {governing}, count(*), coalesce(sum(a.content_length), 0), count(*) FILTER (WHERE {wanted}),
        coalesce(sum(a.content_length) FILTER (WHERE {wanted}), 0)
    FROM artifact a JOIN storage_location l ON l.artifact_id = a.id WHERE a.uri >= %(start)s AND a.uri < %(end)s GROUP BY 1
"""
_ON_THEIR_WAY_SQL = """
    SELECT uri FROM copy_release WHERE state IN ('asked', 'granted')
"""
_LISTING_SQL = """
    SELECT r.id, r.namespace, r.after FROM retire_run r
    WHERE r.state = 'running' AND NOT r.is_listed AND (
        SELECT count(*) FROM copy_release c WHERE c.run_id = r.id AND c.state IN ('asked', 'granted', 'returning')
    ) < %(limit)s
    ORDER BY r.started_at FOR UPDATE OF r SKIP LOCKED LIMIT 1
"""
_LIST_SQL = """
    WITH slice AS (
        SELECT a.id, a.uri, a.content_checksum, a.content_length FROM artifact a JOIN storage_location l ON l.artifact_id = a.id
        WHERE a.uri > %(after)s AND a.uri < %(end)s ORDER BY a.uri LIMIT %(limit)s
    ), listed AS (
        INSERT INTO copy_release (id, run_id, artifact_id, uri, content_checksum, content_length, location_id, state, reason,
            detail, tries, next_try_at, state_at)
        SELECT gen_random_uuid(), %(run)s, id, uri, content_checksum, content_length, id, 'asked', '', '', 0,
            inventory_now(), inventory_now()
        FROM slice ON CONFLICT DO NOTHING RETURNING content_length
    )
    SELECT (SELECT count(*) FROM slice), (SELECT max(uri) FROM slice), count(*), coalesce(sum(content_length), 0) FROM listed
"""
_LISTED_SQL = """
    UPDATE retire_run SET files = files + %(files)s, bytes = bytes + %(bytes)s, after = %(after)s, is_listed = %(is_listed)s
    WHERE id = %(run)s
"""
_FINISH_SQL = """
    UPDATE retire_run r SET state = 'finished', finished_at = inventory_now()
    WHERE r.state = 'running' AND r.is_listed AND NOT EXISTS (
        SELECT FROM copy_release c WHERE c.run_id = r.id AND c.state IN ('asked', 'granted', 'returning'))
"""
_OLD_RUNS = """
    SELECT o.id FROM retire_run o WHERE o.state <> 'running' AND NOT EXISTS (
        SELECT FROM copy_release c WHERE c.run_id = o.id AND c.state IN ('asked', 'granted', 'returning'))
    ORDER BY o.started_at DESC OFFSET %(kept)s
"""
_FORGET_RELEASES_SQL = f"""
    DELETE FROM copy_release WHERE id IN (SELECT c.id FROM copy_release c WHERE c.run_id IN ({_OLD_RUNS}) LIMIT %(limit)s)
"""
_FORGET_RUNS_SQL = f"""
    DELETE FROM retire_run r WHERE r.id IN ({_OLD_RUNS}) AND NOT EXISTS (SELECT FROM copy_release c WHERE c.run_id = r.id)
"""


def _list_next() -> int:
    """The next slice of a run that has room for it: its copies will be asked for. Commits them with the place in the namespace.

    Raises `DeletionBrakeError` when they are too many for a day.
    """
    return serialized(_list_slice)


def _within_brake(act: Callable[[], int]) -> int:
    try:
        return act()
    except DeletionBrakeError as stopped:
        brake.engage(stopped)
        return 0


def _running(namespace: Namespace) -> QuerySet[RetireRun]:
    return RetireRun.objects.filter(namespace=namespace.value, state=RetireRun.State.RUNNING)


def _counted(namespace: Namespace) -> list[tuple[Any, ...]]:
    """By namespace of the brake's rules: files, bytes, and of both what stays because it is wanted."""
    wanted, values = _wanted_sql(load_selection())
    governing, more = brake.governing_sql("a.uri")
    bounds: dict[str, str | float] = {"start": namespace.value, "end": prefix_upper_bound(namespace.value)}
    with connection.cursor() as cursor:
        cursor.execute(_COUNTED_SQL.format(wanted=wanted, governing=governing), values | more | bounds)
        return list(cursor.fetchall())


def _foresee(rows: Sequence[Sequence[Any]]) -> None:
    going = {governing: files - wanted_files for governing, files, _, wanted_files, _ in rows if files > wanted_files}
    brake.foresee_counts(source=SOURCE, counts=going)


def _foresee_open() -> None:
    """Who is not allowed to drop a copy need not ask for it: all that are on their way, with those just listed."""
    is_wanted = load_selection().is_wanted
    with connection.cursor() as cursor:
        cursor.execute(_ON_THEIR_WAY_SQL)
        uris = [uri for (uri,) in cursor.fetchall() if not is_wanted(uri)]
    brake.foresee_removals(source=SOURCE, uris=uris)


def _list_slice() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_LISTING_SQL, {"limit": _SLICE})
        row = cursor.fetchone()
        if row is None:
            return 0
        run_id, namespace, after = row
        values = {"run": run_id, "after": max(after, namespace), "end": prefix_upper_bound(namespace), "limit": _SLICE}
        cursor.execute(_LIST_SQL, values)
        seen, last, files, size = cursor.fetchone()
        cursor.execute(
            _LISTED_SQL,
            {"run": run_id, "files": files, "bytes": size, "after": last or after, "is_listed": seen < _SLICE},
        )
    _foresee_open()
    return int(seen)


def _finish_runs() -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FINISH_SQL)
        return int(cursor.rowcount)


def _wanted_sql(selection: Selection) -> tuple[str, dict[str, str | float]]:
    """`selection.is_wanted(a.uri)` as SQL with its named parameters: the longest namespace decides."""
    rules = selection.rules or tuple((namespace, True) for namespace in selection.wanted)
    by_namespace = [(namespace.value, is_wanted) for namespace, is_wanted in rules]
    return longest_namespace_sql("a.uri", by_namespace, otherwise="FALSE", name="wanted")
