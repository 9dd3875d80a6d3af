"""The writes of reconcile: differences judged and repaired batch by batch, and the reports.

Each repair is one transaction under the lease of the remote, so that no harvest of it is between the look at our cursors and the
write; under the lock that batches of harvest take; and judged again from rows read there, under lock. The rows themselves
are written by the functions of harvest.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from datamodel import brake
from datamodel.alarms.models import Alarm
from datamodel.alarms.operations import clear_alarms, raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.audit.acting import Actor
from datamodel.audit.recording import record_removals
from datamodel.audit.rules import Action as Word
from datamodel.models import RemoteInventory
from datamodel.transactions import serialized
from harvest import apply_artifacts
from harvest.operations import _APPLY_LOCK, Lease, renew_lease
from harvest.pages import Page
from harvest.queries import load_selection
from harvest.reconcile import queries, wire
from harvest.reconcile.models import ReconcileDifference, ReconcileRun
from harvest.reconcile.queries import Cursors, HereRows, Memory, RemoteMemory
from harvest.reconcile.rules import (
    REMOVING,
    Action,
    Here,
    Label,
    Mode,
    There,
    Verdict,
    judge_at_global,
    judge_at_site,
    judge_excluded,
)
from harvest.reconcile.scope import Kind, Scope
from harvest.reconcile.wire import Told
from harvest.staging import stage
from harvest.streams import ARTIFACTS, DELETED_ARTIFACTS, DELETED_LOCATIONS, Stream

_LISTED_PER_RUN = 1000
_RUNS_KEPT = 50
DROPPED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference, judged, and whether it was repaired."""

    artifact_id: uuid.UUID
    uri: str | None
    verdict: Verdict
    is_applied: bool


def settle(
    *,
    remote: RemoteInventory,
    scope: Scope,
    ids: Sequence[uuid.UUID],
    pages: Sequence[Page],
    mode: Mode,
    lease: Lease | None,
    told: RemoteMemory,
) -> list[Finding]:
    """Judge these ids by what the remote said of them (`pages`, fetched under the lease) and repair what the mode allows.

    Without a lease nothing is written. Commits together: all repairs of the batch. Raises `RaceLostError` when the lease is
    lost, `RemoteProtocolError`, and `DeletionBrakeError` before the first row when it would remove too much. A repeat finds them settled.
    """
    if lease is None or mode is Mode.REPORT:
        return _judge_all(remote, scope, ids, pages, told, mode=Mode.REPORT)
    return serialized(lambda: _settle(remote, scope, ids, pages, told, mode, lease))


def settle_excluded(*, remote: RemoteInventory, scope: Scope, mode: Mode) -> list[Finding]:
    """Rows that the filter no longer takes, at most a thousand: dropped, without an event, if the mode allows.

    Raises `DeletionBrakeError`.
    """

    def drop() -> list[Finding]:
        verdict = judge_excluded(is_stored=False, is_repaired=False)
        is_applied = verdict.is_applied(mode)
        found = queries.excluded_rows(scope, limit=DROPPED_AT_ONCE, for_update=is_applied)
        if is_applied:
            brake.count_removals(source=brake_source(remote.name), uris=[uri for _, uri in found])
            ids = [artifact_id for artifact_id, _ in found]
            _execute("DELETE FROM site_location WHERE artifact_id = ANY(%s)", [ids])
            _execute("DELETE FROM artifact WHERE id = ANY(%s)", [ids])
            record_removals(Word.RECONCILE, f"{remote.name}, not wanted any more", [uri for _, uri in found])
        return [Finding(artifact_id, uri, verdict, is_applied) for artifact_id, uri in found]

    return serialized(drop)


def begin_run(*, remote: RemoteInventory, mode: Mode) -> ReconcileRun:
    """A report that says nothing yet."""
    return ReconcileRun.objects.create(remote=remote, mode=mode.value, started_at=Now())


def record_findings(*, run: ReconcileRun, findings: Iterable[Finding]) -> list[Finding]:
    """Count them, and list them while there is room; returns those listed. What was settled meanwhile is no finding."""
    found = [finding for finding in findings if finding.verdict.label is not Label.SETTLED]
    room = max(_LISTED_PER_RUN - sum(run.differences.values()), 0)
    run.differences = _added(run.differences, found)
    run.applied = _added(run.applied, [finding for finding in found if finding.is_applied])
    with transaction.atomic():
        run.save(update_fields=["differences", "applied"])
        ReconcileDifference.objects.bulk_create(
            ReconcileDifference(
                run=run,
                artifact_id=finding.artifact_id,
                uri=finding.uri,
                label=finding.verdict.label.value,
                action=finding.verdict.action.value,
                is_applied=finding.is_applied,
            )
            for finding in found[:room]
        )
    return found[:room]


def finish_run(*, run: ReconcileRun, error: str = "") -> None:
    """The report is whole, or says why not; the oldest reports of the remote go."""
    run.is_complete, run.error = not error, error[:2000]
    with transaction.atomic():
        run.save()
        ReconcileRun.objects.filter(id=run.id).update(finished_at=Now())
        kept = ReconcileRun.objects.filter(remote_id=run.remote_id).order_by("-started_at")[:_RUNS_KEPT]
        ReconcileRun.objects.filter(remote_id=run.remote_id).exclude(id__in=[each.id for each in kept]).delete()
        _ask_about(run)
    run.refresh_from_db()


def _ask_about(run: ReconcileRun) -> None:
    """What would have been removed, and was not, waits for an operator."""
    removing = {label.value for label in REMOVING}
    left = Counter(run.differences) - Counter(run.applied)
    waiting = sum(count for label, count in left.items() if label in removing)
    name = run.remote.name
    if run.is_complete and run.mode != Mode.REPORT.value:
        missed = Alarm.objects.filter(kind=AlarmKind.HISTORY_GONE.value, subject=name)
        clear_alarms(alarms=missed, by="reconcile")
    if forgotten := run.differences.get(Label.FORGOTTEN_HERE.value, 0):
        text = f"{name} has {forgotten} files that were known here and perhaps deleted, so long ago that this is forgotten."
        raise_alarm(kind=AlarmKind.FORGOTTEN_ARTIFACTS, subject=name, text=text)
    if waiting:
        text = f"{waiting} rows here should go by what {name} says; nothing was removed. If it is right: manage.py reconcile {name} --apply"
        raise_alarm(kind=AlarmKind.RECONCILE_REMOVALS, subject=name, text=text)


def _settle(
    remote: RemoteInventory,
    scope: Scope,
    ids: Sequence[uuid.UUID],
    pages: Sequence[Page],
    told: RemoteMemory,
    mode: Mode,
    lease: Lease,
) -> list[Finding]:
    _execute("SELECT pg_advisory_xact_lock(%s)", [_APPLY_LOCK])
    renew_lease(lease)
    findings = _judge_all(remote, scope, ids, pages, told, mode=mode)
    chosen = {
        action: [each.artifact_id for each in findings if each.is_applied and each.verdict.action is action]
        for action in Action
    }
    brake.count_removals(source=brake_source(remote.name), uris=_removed_uris(findings))
    by_stream = {page.stream: page for page in pages}
    # Absence before presence, as harvest does.
    if chosen[Action.REMOVE_COPY]:
        _execute(
            "DELETE FROM site_location WHERE site_id = %s AND artifact_id = ANY(%s)",
            [scope.site_id, chosen[Action.REMOVE_COPY]],
        )
    if chosen[Action.QUARANTINE]:
        _quarantine(remote, chosen[Action.QUARANTINE])
    # Of what is deleted everywhere, the tombstones tell.
    dropped = [each for each in findings if each.verdict.action is not Action.DELETE]
    record_removals(Word.RECONCILE, remote.name, _removed_uris(dropped), actor=Actor(remote.name, "peer"))
    if chosen[Action.DELETE] and _stage(by_stream[DELETED_ARTIFACTS], remote, chosen[Action.DELETE]):
        _apply_tombstones(remote)
    if chosen[Action.TAKE] and _stage(by_stream[ARTIFACTS], remote, chosen[Action.TAKE]):
        _apply_artifacts(remote, scope, mode)
    return findings


def brake_source(name: str) -> str:
    """By what name the brake knows the repairs with a remote."""
    return f"reconcile:{name}"


def _quarantine(remote: RemoteInventory, ids: Sequence[uuid.UUID]) -> None:
    keep_apart = import_string(settings.HARVEST_QUARANTINE)
    for artifact_id in ids:
        keep_apart(artifact_id=artifact_id, reason=f"{remote.name} knew it, and perhaps deleted it while we were away")


def _removed_uris(findings: Iterable[Finding]) -> list[str]:
    return [
        finding.uri or ""
        for finding in findings
        if finding.is_applied and (finding.verdict.removes or finding.verdict.action is Action.QUARANTINE)
    ]


def _apply_tombstones(remote: RemoteInventory) -> None:
    if settings.INVENTORY_ROLE == "global":
        apply_artifacts.apply_tombstones_at_global(remote_id=remote.pk)
    else:
        apply_artifacts.apply_tombstones_at_site(remote_id=remote.pk)


def _apply_artifacts(remote: RemoteInventory, scope: Scope, mode: Mode) -> None:
    if settings.INVENTORY_ROLE == "global":
        apply_artifacts.apply_artifacts_at_global(remote_id=remote.pk, site_id=scope.site_id)
    else:
        # What is staged was chosen; to regain is to take what the policy does not want.
        selection = load_selection()
        chosen = replace(selection, is_wanted=lambda uri: True) if mode is Mode.REGAIN else selection  # noqa: ARG005  # any uri
        apply_artifacts.apply_artifacts_at_site(remote_id=remote.pk, selection=chosen)


def _stage(page: Page, remote: RemoteInventory, chosen: Sequence[uuid.UUID]) -> bool:
    """Leaves the chosen rows in `harvested`; whether there are any."""
    _execute("DROP TABLE IF EXISTS pg_temp.harvested")
    stage(page, remote_id=remote.pk)
    _execute("DELETE FROM harvested WHERE NOT id = ANY(%s)", [list(chosen)])
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM harvested)")
        (is_any,) = cursor.fetchone()
    return bool(is_any)


def _judge_all(
    remote: RemoteInventory,
    scope: Scope,
    ids: Sequence[uuid.UUID],
    pages: Sequence[Page],
    told: RemoteMemory,
    *,
    mode: Mode,
) -> list[Finding]:
    said = {page.stream: _said(remote.name, page) for page in pages}
    epoch = pages[0].epoch
    cursors = queries.read_cursors(remote.pk)
    uris = [row.uri for row in said[ARTIFACTS].values() if row.uri is not None]
    here = queries.read_here(scope, ids, uris, for_update=mode is not Mode.REPORT)
    memory = queries.read_memory(ids, told)
    return [_judge(scope, identity, said, epoch, cursors, here, memory, mode) for identity in ids]


_Said = dict[Stream, dict[uuid.UUID, Told]]


def _said(name: str, page: Page) -> dict[uuid.UUID, Told]:
    page.rows.seek(0)
    read = wire.told_artifact if page.stream is ARTIFACTS else wire.told
    rows = [read(name, page.epoch, row) for row in wire.parse_rows(page.columns, page.rows.read())]
    return {row.artifact_id: row for row in rows}


def _judge(
    scope: Scope,
    identity: uuid.UUID,
    said: _Said,
    epoch: str,
    cursors: Cursors,
    here: HereRows,
    memory: Memory,
    mode: Mode,
) -> Finding:
    ours = here.by_id.get(identity)
    theirs = said[ARTIFACTS].get(identity)
    uri = ours.uri if ours is not None else theirs.uri if theirs is not None else None
    is_selected = uri is None or scope.takes(uri)
    there = _there(identity, said, epoch, cursors, is_selected=is_selected)
    same_uri = here.by_uri.get(there.artifact.uri) if there.artifact is not None else None
    is_stored = identity in here.stored
    known = Here(
        artifact=ours,
        same_uri=same_uri if same_uri is not None and same_uri.id != identity else None,
        is_deleted=identity in here.deleted,
        is_member=is_stored if scope.kind is Kind.STORED else ours is not None and (is_stored or is_selected),
        is_selected=is_selected,
        may_be_forgotten=memory.may_lack(identity, ours if ours is not None else there.artifact),
    )
    judge = judge_at_global if scope.kind is Kind.STORED else judge_at_site
    verdict = judge(there, known)
    return Finding(identity, uri, verdict, verdict.is_applied(mode))


def _there(identity: uuid.UUID, said: _Said, epoch: str, cursors: Cursors, *, is_selected: bool) -> There:
    """What they say of an id; presence says more than absence, and a deletion more than the loss of a copy."""
    rows = [
        (stream, said.get(stream, {}).get(identity)) for stream in (ARTIFACTS, DELETED_ARTIFACTS, DELETED_LOCATIONS)
    ]
    found = {stream: row for stream, row in rows if row is not None}
    passed = [cursors.have_passed(stream, row.place, row.uri, is_selected=is_selected) for stream, row in found.items()]
    artifact = found[ARTIFACTS].artifact if ARTIFACTS in found else None
    return There(
        artifact=artifact,
        is_deleted=DELETED_ARTIFACTS in found,
        is_copy_dropped=DELETED_LOCATIONS in found,
        is_passed=passed[0] if passed else cursors.are_of(epoch),
    )


def _added(counts: dict[str, int], findings: Sequence[Finding]) -> dict[str, int]:
    return dict(Counter(counts) + Counter(finding.verdict.label.value for finding in findings))


def _execute(statement: str, parameters: Sequence[Any] = ()) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)
