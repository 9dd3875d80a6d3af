"""Copies on their way out: the globals are asked, what all of them allow is dropped, what stays is told. Each step may be repeated.

No transaction is open while a global is asked. Whoever takes releases up moves their next try into the future first, so that nobody
else asks meanwhile; if the process dies, that time passes and the next one takes them up.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from datamodel import brake
from datamodel.attachment import drop_locations
from datamodel.audit.recording import record_refusals, record_removals
from datamodel.audit.rules import Action
from datamodel.errors import RemoteError, RemoteRefusedError
from datamodel.logs import unit_of_work
from datamodel.models import InventoryIdentity
from datamodel.restoration import is_restoring
from datamodel.transactions import serialized
from harvest.client import Remote
from harvest.queries import load_selection
from site_service.retention import releases
from site_service.retention.releases import Wanted
from site_service.retention.rules import (
    OPEN_RELEASES,
    SOURCE,
    Answer,
    Decision,
    ReleaseState,
    decide_release,
    decide_unasked,
    release_pause,
    sources_of,
)

logger = logging.getLogger(__name__)

_DROPPED_AT_ONCE = 500
_KEPT = frozenset({ReleaseState.REFUSED, ReleaseState.RETURNING})
_WANTED = "this site's policy wants it: file sync would bring it back; narrow the policy first"


@dataclass(frozen=True, slots=True)
class Taken:
    """A release that this process has taken up; `stored_at` is None when the copy has gone by itself."""

    release_id: uuid.UUID
    artifact_id: uuid.UUID
    uri: str
    content_checksum: str
    tries: int
    namespace: str
    stored_at: datetime | None


def ask_due() -> int:
    """Ask every global about the copies that are due, at most a thousand; returns how many were taken up.

    What this site's own policy wants is not asked for. Commits what becomes of each.
    """
    taken = _take_up(ReleaseState.ASKED)
    if not taken:
        return 0
    is_wanted = load_selection().is_wanted
    decisions: dict[uuid.UUID, Decision] = {}
    asking: list[Taken] = []
    for one in taken:
        if one.stored_at is None:
            decisions[one.release_id] = Decision(ReleaseState.GONE)
        elif is_wanted(one.uri):
            decisions[one.release_id] = decide_unasked("wanted", _WANTED, is_first_try=one.tries == 1)
        else:
            asking.append(one)
    answers = _answers(asking)
    for one in asking:
        decisions[one.release_id] = decide_release(answers[one.release_id], is_first_try=one.tries == 1)
    _settle(taken, decisions)
    return len(taken)


def give_back_due() -> int:
    """Tell every global which copies stay after all, at most a thousand; returns how many were taken up.

    A release ends when all of them have heard it.
    """
    taken = _take_up(ReleaseState.RETURNING)
    if not taken:
        return 0
    site_id = _own_id()
    pairs = [(one.artifact_id, one.release_id) for one in taken]
    unheard = ""
    for remote in _globals():
        try:
            releases.return_releases(remote, site_id=site_id, returned=pairs)
        except RemoteError as error:
            unheard = error.detail
    if unheard:
        _put_off(taken, detail=unheard)
    else:
        move([one.release_id for one in taken], ReleaseState.REFUSED)
    return len(taken)


def drop_granted() -> int:
    """Drop copies that all globals have allowed to go; returns how many of at most five hundred were looked at.

    Commits together, under the locks of the artifacts: the end of the location with its DeletedStorageLocationEvent, the bytes as
    obsolete (they go after the longest GET), the release as dropped. A copy that was stored anew since is another one: it stays.
    None while the inventory is restored. Raises `DeletionBrakeError` when it would be too many for a day.
    """
    return 0 if is_restoring() else serialized(_drop_granted)


def give_back_unknown() -> int:
    """Every global keeps a mark on what it has allowed to go: those that no release here is behind are given back; returns how many.

    Left over when a question came through after its release had ended, or when this site's database was restored. What cannot be
    asked now is asked the next time.
    """
    site_id, returned = _own_id(), 0
    with unit_of_work(logger, "give_back_unknown") as work:
        for remote in _globals():
            try:
                for page in releases.marked_copies(remote, site_id=site_id):
                    if unknown := _unknown(page):
                        releases.return_releases(remote, site_id=site_id, returned=unknown)
                        returned += len(unknown)
            except RemoteError as error:
                work.reason = error.code
                work.note(detail=error.detail)
        work.note(returned=returned)
    return returned


def withdraw(*, run_id: uuid.UUID) -> None:
    """No copy of this run shall go any more; those whose question may be out are given back when it must have ended."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_UNASKED_SQL, [run_id])
        move([row[0] for row in cursor.fetchall()], ReleaseState.REFUSED, reason="cancelled")
        cursor.execute(_WITHDRAW_SQL, [run_id])


def move(
    release_ids: Sequence[uuid.UUID], state: ReleaseState, *, reason: str | None = None, detail: str | None = None
) -> int:
    """Bring releases into a state, those that may come there from where they are; returns how many did.

    Commits together: the releases, the counts of their runs, the counts of outcomes.
    """
    values = {
        "ids": list(release_ids),
        "state": state.value,
        "sources": [source.value for source in sources_of(state)],
        "reason": reason,
        "detail": detail[:300] if detail is not None else None,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_MOVE_SQL, values)
        moved = cursor.fetchall()
        if state not in OPEN_RELEASES:
            _count_ends(state, moved)
    return len(moved)


_UNASKED_SQL = """
    SELECT id FROM copy_release WHERE run_id = %s AND state = 'asked' AND tries = 0 ORDER BY id FOR UPDATE
"""
# The next try stays where it is: until then somebody may be asking.
_WITHDRAW_SQL = """
    UPDATE copy_release SET state = 'returning', state_at = inventory_now(), reason = 'cancelled', detail = '', tries = 0
    WHERE run_id = %s AND state IN ('asked', 'granted')
"""
_KNOWN_SQL = """
    SELECT id FROM copy_release WHERE id = ANY(%s) AND state IN ('asked', 'granted', 'returning', 'dropped')
"""
_TAKE_UP_SQL = """
    UPDATE copy_release r SET tries = r.tries + 1, next_try_at = inventory_now() + make_interval(secs => %(seconds)s)
    WHERE r.id IN (
        SELECT d.id FROM copy_release d WHERE d.state = %(state)s AND d.next_try_at <= inventory_now()
        ORDER BY d.next_try_at, d.id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    RETURNING r.id, r.artifact_id, r.uri, r.content_checksum, r.tries, (
        SELECT n.namespace FROM retire_run n WHERE n.id = r.run_id), (
        SELECT greatest(l.stored_at, e.last_modified) FROM storage_location l
            LEFT JOIN storage_location_event e ON e.id = l.artifact_id
        WHERE l.artifact_id = r.location_id)
"""
_PUT_OFF_SQL = """
    UPDATE copy_release r SET next_try_at = inventory_now() + make_interval(secs => n.seconds), detail = %(detail)s,
        reason = CASE WHEN r.state = 'asked' THEN %(reason)s ELSE r.reason END
    FROM unnest(%(ids)s::uuid[], %(seconds)s::float8[]) AS n(id, seconds)
    WHERE r.id = n.id AND r.state IN ('asked', 'returning')
"""
_MOVE_SQL = """
    UPDATE copy_release SET state = %(state)s, state_at = inventory_now(), next_try_at = inventory_now(),
        reason = coalesce(%(reason)s, reason), detail = coalesce(%(detail)s, detail),
        tries = CASE WHEN %(state)s = 'returning' THEN 0 ELSE tries END
    WHERE id = ANY(%(ids)s) AND state = ANY(%(sources)s) RETURNING run_id, reason, content_length
"""
_RUN_COUNTS = {
    ReleaseState.DROPPED: "dropped_files = dropped_files + %(files)s, dropped_bytes = dropped_bytes + %(bytes)s",
    ReleaseState.REFUSED: "refused_files = refused_files + %(files)s",
    ReleaseState.GONE: "gone_files = gone_files + %(files)s",
}
_OUTCOME_SQL = """
    INSERT INTO copy_release_outcome AS o (outcome, files, bytes) VALUES (%s, %s, %s)
    ON CONFLICT (outcome) DO UPDATE SET files = o.files + excluded.files, bytes = o.bytes + excluded.bytes
"""
_GRANTED_SQL = "SELECT id, artifact_id FROM copy_release WHERE state = 'granted' ORDER BY artifact_id LIMIT %s"
_LOCK_SQL = "SELECT 1 FROM artifact WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
_DROPPABLE_SQL = """
    SELECT id, artifact_id, uri, location_id IS NOT NULL FROM copy_release
    WHERE id = ANY(%s) AND state = 'granted' ORDER BY id FOR UPDATE
"""


def _take_up(state: ReleaseState) -> list[Taken]:
    # Longer than all globals may take to answer, one after the other.
    seconds = releases.answer_seconds() * (1 + len(_globals())) + 30
    values = {"state": state.value, "limit": releases.MAX_FILES, "seconds": seconds}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_TAKE_UP_SQL, values)
        return [Taken(*row) for row in cursor.fetchall()]


def _unknown(page: Sequence[tuple[uuid.UUID, uuid.UUID]]) -> list[tuple[uuid.UUID, uuid.UUID]]:
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN_SQL, [[release_id for _, release_id in page]])
        known = {row[0] for row in cursor.fetchall()}
    connection.close()
    return [pair for pair in page if pair[1] not in known]


def _answers(asking: Sequence[Taken]) -> Mapping[uuid.UUID, Sequence[Answer]]:
    """By release: what each global said of it."""
    found: dict[uuid.UUID, list[Answer]] = {one.release_id: [] for one in asking}
    if not asking:
        return found
    site_id = _own_id()
    wanted = [
        Wanted(one.release_id, one.artifact_id, one.uri, one.content_checksum, one.stored_at)
        for one in asking
        if one.stored_at is not None
    ]
    globals_ = _globals()
    connection.close()
    for remote in globals_:
        for release_id, answer in _ask(remote, site_id, wanted).items():
            found[release_id].append(answer)
    return found


def _ask(remote: Remote, site_id: uuid.UUID, wanted: Sequence[Wanted]) -> Mapping[uuid.UUID, Answer]:
    try:
        return releases.ask_release(remote, site_id=site_id, wanted=wanted)
    except RemoteRefusedError as error:
        answer = Answer(False, "not_permitted", error.detail)
    except RemoteError as error:
        answer = Answer(None, "", error.detail)
    return dict.fromkeys((one.release_id for one in wanted), answer)


def _settle(taken: Sequence[Taken], decisions: Mapping[uuid.UUID, Decision]) -> None:
    groups: dict[Decision, list[Taken]] = {}
    for one in taken:
        groups.setdefault(decisions[one.release_id], []).append(one)
    for decision, members in groups.items():
        if decision.state is ReleaseState.ASKED:
            _put_off(members, reason=decision.reason, detail=decision.detail)
        else:
            _end(members, decision)
    facts = {decision.reason or decision.state.value: len(members) for decision, members in groups.items()}
    logger.info("END event=ask_releases", extra={"facts": {"files": len(taken), **facts, "result": "ok"}})


def _end(taken: Sequence[Taken], decision: Decision) -> None:
    """What becomes of these; for the audit, which of a run may not go, and why."""
    with transaction.atomic():
        ids = [one.release_id for one in taken]
        move(ids, decision.state, reason=decision.reason, detail=decision.detail)
        if decision.state in _KEPT:
            reason = f"{decision.reason}: {decision.detail}" if decision.detail else decision.reason
            for namespace in sorted({one.namespace for one in taken}):
                uris = [one.uri for one in taken if one.namespace == namespace]
                record_refusals(Action.RETIRE, namespace, uris, reason=reason)


def _put_off(taken: Iterable[Taken], *, detail: str, reason: str = "") -> None:
    pauses = {one.release_id: release_pause(one.tries) for one in taken}
    values: dict[str, Any] = {
        "ids": list(pauses),
        "seconds": list(pauses.values()),
        "detail": detail[:300],
        "reason": reason,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_PUT_OFF_SQL, values)


def _drop_granted() -> int:
    with connection.cursor() as cursor:
        cursor.execute(_GRANTED_SQL, [_DROPPED_AT_ONCE])
        found = cursor.fetchall()
        if not found:
            return 0
        cursor.execute(_LOCK_SQL, [[artifact_id for _, artifact_id in found]])
        # A statement of its own: it sees what was committed while the locks were waited for.
        cursor.execute(_DROPPABLE_SQL, [[release_id for release_id, _ in found]])
        granted = cursor.fetchall()
    brake.count_removals(source=SOURCE, uris=[uri for _, _, uri, is_here in granted if is_here])
    dropped = set(drop_locations([artifact_id for _, artifact_id, _, is_here in granted if is_here]))
    uris = sorted(uri for _, artifact_id, uri, _ in granted if artifact_id in dropped)
    record_removals(Action.RETIRE, "copies that all globals let go", uris)
    move([release_id for release_id, _, _, is_here in granted if is_here], ReleaseState.DROPPED)
    move([release_id for release_id, _, _, is_here in granted if not is_here], ReleaseState.GONE)
    return len(found)


def _count_ends(state: ReleaseState, moved: Sequence[tuple[uuid.UUID, str, int]]) -> None:
    """Of the runs and of all outcomes; rows that everybody writes come last, in order."""
    runs: dict[uuid.UUID, list[int]] = {}
    outcomes: dict[str, list[int]] = {}
    for run_id, reason, size in moved:
        runs.setdefault(run_id, []).append(size)
        outcomes.setdefault(reason if state is ReleaseState.REFUSED else state.value, []).append(size)
    with connection.cursor() as cursor:
        for run_id, sizes in sorted(runs.items()):
            values: dict[str, Any] = {"files": len(sizes), "bytes": sum(sizes), "run": run_id}
            cursor.execute(f"UPDATE retire_run SET {_RUN_COUNTS[state]} WHERE id = %(run)s", values)
        for outcome, sizes in sorted(outcomes.items()):
            cursor.execute(_OUTCOME_SQL, [outcome, len(sizes), sum(sizes)])


def _globals() -> list[Remote]:
    return releases.configured_globals()


def _own_id() -> uuid.UUID:
    """A site's inventory and the site itself have one id."""
    return InventoryIdentity.objects.get().inventory_id
