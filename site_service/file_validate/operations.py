"""The second step: carrying out a finding, after looking again at everything that it says.

The store is asked before the transaction (none that writes waits for a disk), the rows under the lock of the storage id. That
order is sound: storage ids are never used again, so what is missing stays missing; and whoever removes an object has
said so in a row before, which is read under the lock.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.models import QuerySet

from datamodel import brake, operations as model
from datamodel.adoption import adopt_content, move_location, retire_content
from datamodel.audit.recording import record
from datamodel.audit.rules import Action as AuditAction
from datamodel.errors import ArtifactNotFoundError, StateConflictError, StorageError
from datamodel.operations import Preconditions
from datamodel.queries import artifact_by_id
from datamodel.restoration import refuse_while_restoring
from datamodel.rows import database_now
from datamodel.rules import ArtifactRow, Located
from datamodel.transactions import serialized
from datamodel.uris import ArtifactUri
from site_service.file_validate import queries
from site_service.file_validate.content import content_of
from site_service.file_validate.locks import lock_storage_id
from site_service.file_validate.merge import Found
from site_service.file_validate.models import ValidationFinding
from site_service.file_validate.quarantine import quarantine
from site_service.file_validate.rules import REMOVES_ROWS, VALID, Action, Case, Label, Policy, Verdict, facts_of, judge
from site_service.file_validate.survey import case_of, grace_configured, look, names_of
from site_service.scrub.scan import remember
from site_service.storage.contract import ArtifactStore, StoredObject

logger = logging.getLogger("inventory.validate")

_OPEN = ValidationFinding.State.OPEN


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a finding: `is_done`, or why nothing was done. `follow` is the artifact that the bytes belong to now."""

    is_done: bool
    reason: str
    follow: ArtifactRow | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    """What an action works on."""

    case: Case
    located: Located
    label: Label
    detail: str
    decided_by: str


def apply_finding(
    *,
    store: ArtifactStore,
    finding_id: int,
    decided_by: str,
    grace: timedelta | None = None,
    while_restoring: bool = False,
) -> Applied:
    """Carry out an open finding if it is still exactly so.

    Commits together: what its action writes, and its new state (`applied`, or `changed` when a second look says something else).
    The facts kept with the bytes follow after the commit; if that fails, the next run finds them stale. A repeat does nothing.
    Raises `StorageError`, `RaceLostError`, `DeletionBrakeError` when it would take away too much in a day, and `RestoringError`
    while the inventory is restored, unless that is what asks.
    """
    if not while_restoring:
        refuse_while_restoring()
    finding = ValidationFinding.objects.filter(id=finding_id, state=_OPEN).first()
    if finding is None:
        return Applied(is_done=False, reason="not open")
    if Action(finding.action) is Action.NONE:
        return Applied(is_done=False, reason="nothing to apply")
    connection.close()
    found = look(store, finding.storage_id)
    waited = grace if grace is not None else grace_configured()
    with brake.engaging():
        applied = serialized(lambda: _apply(finding_id, found, waited, decided_by))
    connection.close()
    if applied.follow is not None:
        _follow(store, finding.storage_id, applied.follow)
    _log(finding, applied, decided_by)
    return applied


def foresee(*, findings: QuerySet[ValidationFinding]) -> None:
    """Raises `DeletionBrakeError`, having engaged the brake, if applying all these would take away too much in a day."""
    removing = findings.filter(action__in=[action.value for action in REMOVES_ROWS]).order_by()
    for policy in removing.values_list("policy", flat=True).distinct():
        uris = [uri or "" for uri in removing.filter(policy=policy).values_list("uri", flat=True)]
        with brake.engaging():
            brake.foresee_removals(source=brake_source(Policy(policy)), uris=uris)


def brake_source(policy: Policy) -> str:
    """By what name the brake knows the findings of a policy."""
    return f"validate:{policy.value}"


def delete_lost(*, artifact_id: uuid.UUID, decided_by: str, reason: str) -> int:
    """An operator's word that an artifact whose bytes were lost here shall be deleted everywhere; the transaction's id.

    Raises `StateConflictError` while it is stored here, `ArtifactNotFoundError`, `PreconditionFailedError` if it was replaced.
    """
    known = artifact_by_id(artifact_id)
    if known is None:
        raise ArtifactNotFoundError(f"no artifact with the id {artifact_id} here")
    if known.location is not None:
        raise StateConflictError(
            f"{known.artifact.uri} is stored here: apply its finding first, or delete it like any file"
        )
    facts = {"uri": known.artifact.uri, "id": artifact_id, "by": decided_by, "why": reason, "result": "ok"}
    txid = model.delete_artifact(
        uri=ArtifactUri(known.artifact.uri), preconditions=Preconditions(if_match=(known.artifact.etag,))
    )
    logger.warning("END event=delete_lost", extra={"facts": facts})
    return txid


def _apply(finding_id: int, found: Found | None, grace: timedelta, decided_by: str) -> Applied:
    place = ValidationFinding.objects.values_list("storage_bucket", "storage_id").get(id=finding_id)
    lock_storage_id(place[1])
    finding = ValidationFinding.objects.select_for_update().filter(id=finding_id, state=_OPEN).first()
    if finding is None:
        return Applied(is_done=False, reason="not open")
    policy, verdict = Policy(finding.policy), Verdict(Label(finding.label), Action(finding.action))
    standing = queries.standings(policy, [place])[place]
    case = case_of(found, standing, names_of([found]), older_than=database_now() - grace)
    now = judge(policy, case) if case is not None else VALID
    if case is None or now != verdict:
        return _close(finding, decided_by, Applied(is_done=False, reason=f"it is {now.label} by now"))
    order = _Order(case, Located(place[1], place[0]), verdict.label, finding.detail, decided_by)
    if isinstance(found, StoredObject) and verdict.action in _TAKING_IN:
        remember(located=order.located, content_length=found.length, verified_at=found.written_at)
    losing = case.here or (case.named.artifact if case.named is not None else None)
    if verdict.action in REMOVES_ROWS and losing is not None:
        brake.count_removals(source=brake_source(policy), uris=[losing.uri])
    applied = _ACTIONS[verdict.action](order)
    return _close(finding, decided_by, applied)


def _close(finding: ValidationFinding, decided_by: str, applied: Applied) -> Applied:
    states = ValidationFinding.State
    finding.state = states.APPLIED if applied.is_done else states.CHANGED
    finding.state_at, finding.decided_by = database_now(), decided_by
    finding.save(update_fields=["state", "state_at", "decided_by"])
    if applied.is_done:
        facts = {"action": finding.action, "label": finding.label, "policy": finding.policy, "by": decided_by}
        record(AuditAction.FINDING_APPLIED, finding.uri or finding.storage_id, details=facts, reason=applied.reason)
    return applied


def _clear(order: _Order) -> Applied:
    is_cleared = order.case.here is not None and model.clear_location(
        artifact_id=order.case.here.id, expected=order.located
    )
    return Applied(is_cleared, "location cleared" if is_cleared else "it is stored elsewhere by now")


def _quarantine(order: _Order) -> Applied:
    quarantine(
        located=order.located,
        found=order.case.found,
        owner=order.case.here,
        label=order.label,
        detail=order.detail,
        decided_by=order.decided_by,
    )
    return Applied(is_done=True, reason="quarantined")


def _clear_and_quarantine(order: _Order) -> Applied:
    cleared = _clear(order)
    return _quarantine(order) if cleared.is_done else cleared


def _attach(order: _Order) -> Applied:
    """The artifact is locked first, and read after that: to attach to a stored one would make the bytes obsolete."""
    named = order.case.named
    is_locked = named is not None and artifact_by_id(named.artifact.id, for_update=True) is not None
    known = artifact_by_id(named.artifact.id) if named is not None and is_locked else None
    if known is None or known.location is not None:
        return Applied(is_done=False, reason="the artifact is stored or gone by now")
    model.attach_location(artifact_id=known.artifact.id, located=order.located)
    return Applied(is_done=True, reason="attached", follow=known.artifact)


def _move(order: _Order) -> Applied:
    named = order.case.named
    if named is None or named.location is None:
        return Applied(is_done=False, reason="the artifact is not stored")
    is_moved = move_location(artifact_id=named.artifact.id, expected=named.location, to=order.located)
    return Applied(
        is_moved, "moved" if is_moved else "it is stored elsewhere by now", named.artifact if is_moved else None
    )


def _create(order: _Order) -> Applied:
    """A new artifact, or one in place of the artifact whose content differs."""
    found, named = order.case.found, order.case.named
    if not isinstance(found, StoredObject):
        return Applied(is_done=False, reason="the object cannot be read")
    replaced = order.case.here or (named.artifact if named is not None else None)
    row = adopt_content(
        uri=ArtifactUri.parse(found.facts.uri if replaced is None else replaced.uri),
        content=content_of(found),
        written_at=found.written_at,
        replaces=replaced.id if replaced is not None else None,
    )
    if row is None:
        return Applied(is_done=False, reason="the uri was taken meanwhile")
    return Applied(is_done=True, reason="replaced" if replaced is not None else "created", follow=row)


def _retire(order: _Order) -> Applied:
    found = order.case.found
    if not isinstance(found, StoredObject):
        return Applied(is_done=False, reason="the object cannot be read")
    is_done = retire_content(uri=found.facts.uri[:512], content=content_of(found), written_at=found.written_at)
    return Applied(is_done, "retired" if is_done else "its id is retired with other bytes, or is not deleted")


def _follow_facts(order: _Order) -> Applied:
    return Applied(is_done=True, reason="facts follow", follow=order.case.here)


# Bytes that come into service unread: they were verified when they were written.
_TAKING_IN = {Action.ATTACH_LOCATION, Action.MOVE_LOCATION, Action.CREATE_ARTIFACT, Action.REPLACE_ARTIFACT}
_ACTIONS: Mapping[Action, Callable[[_Order], Applied]] = {
    Action.CLEAR_LOCATION: _clear,
    Action.QUARANTINE: _quarantine,
    Action.CLEAR_AND_QUARANTINE: _clear_and_quarantine,
    Action.ATTACH_LOCATION: _attach,
    Action.MOVE_LOCATION: _move,
    Action.CREATE_ARTIFACT: _create,
    Action.REPLACE_ARTIFACT: _create,
    Action.FOLLOW_FACTS: _follow_facts,
    Action.RETIRE: _retire,
}


def _follow(store: ArtifactStore, storage_id: str, row: ArtifactRow) -> None:
    """The facts kept with the bytes say what the row says; a failure is found by the next run."""
    try:
        found = store.stat(storage_id)
        if isinstance(found, StoredObject) and found.facts != facts_of(row):
            store.set_facts(storage_id, facts_of(row))
    except StorageError as error:
        facts = {"uri": row.uri, "result": "failed", "reason": error.code}
        logger.warning("END event=set_facts", extra={"facts": facts})


def _log(finding: ValidationFinding, applied: Applied, decided_by: str) -> None:
    facts = {
        "finding": finding.id,
        "label": finding.label,
        "action": finding.action,
        "uri": finding.uri,
        "storage_id": finding.storage_id,
        "by": decided_by,
        "result": "ok" if applied.is_done else "skipped",
        "reason": applied.reason,
    }
    logger.info("END event=apply_finding", extra={"facts": facts})
