"""Steps of restoring a site: what only the store knows comes back; then inventory and store are compared.

They come after all peers were asked: what a peer knows to be deleted must be known here before the store is believed.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

from datamodel import restoration
from datamodel.adoption import record_absence
from datamodel.errors import RaceLostError, StateConflictError
from datamodel.restoration import StepOptions
from datamodel.rows import database_now
from site_service.file_validate import queries, runs
from site_service.file_validate.operations import apply_finding
from site_service.file_validate.rules import TAKES_AWAY, Action, Policy
from site_service.file_validate.surveyors import surveyor_of
from site_service.retention import retire
from site_service.storage.registry import get_store

_MOST_PASSES = 5
_AT_A_TIME = 30.0
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.2
# The last step mends what is a fact; objects without a row stay findings for an operator.
_FACTS = {Action.CLEAR_LOCATION, Action.ATTACH_LOCATION, Action.MOVE_LOCATION, Action.FOLLOW_FACTS}


def recover(options: StepOptions) -> dict[str, Any]:
    """RecoverFromStorage until nothing is left to apply. Raises `StorageError`. A repeat goes on where the run stands.

    Runs of retire end: what globals have let go since the backup was made, or taken back, is not in it.
    """
    done = Counter({"runs of retire ended": retire.end_all()})
    policy = Policy.RECOVER_FROM_STORAGE
    for _ in range(_MOST_PASSES):
        _survey(policy, options)
        applied = _apply(policy, set(Action) - {Action.NONE}, options)
        done.update(applied)
        if not applied:
            break
    return dict(sorted((+done).items()))


def validate(options: StepOptions) -> dict[str, Any]:
    """Compare both sides; copies without bytes leave service, bytes of known artifacts come in. The rest is for an operator.

    Raises `StateConflictError` when more copies than `at_most` would leave service: then nothing was applied.
    """
    policy = Policy.INVENTORY_IS_ALWAYS_RIGHT
    counts = _survey(policy, options)
    lost = queries.findings(policy=policy.value).filter(action__in=[one.value for one in TAKES_AWAY & _FACTS]).count()
    if lost > options.at_most:
        raise StateConflictError(
            f"the store does not have the bytes of {lost} copies that the inventory promises, more than --at-most "
            f"{options.at_most}: is it the right store, and whole? If it is, --at-most {lost} takes them out of service, and file "
            "sync pulls them again"
        )
    done = _apply(policy, _FACTS, options)
    done["copies given up"] = _give_up()
    left = queries.findings(policy=policy.value).exclude(action=Action.NONE.value).count()
    return {"valid": counts.get("valid", 0), **dict(sorted(done.items())), "left for an operator": left}


def _give_up() -> int:
    """Artifacts known only because a peer believes them to be stored here, which they are not: it shall know, and file sync repairs them."""
    is_wanted = queries.is_wanted_here()
    given_up, after = 0, uuid.UUID(int=0)
    while page := queries.unstored_without_event(after):
        for artifact_id, uri in page:
            given_up += not is_wanted(uri) and record_absence(artifact_id=artifact_id)
        after = page[-1][0]
    return given_up


def _survey(policy: Policy, options: StepOptions) -> dict[str, int]:
    """A whole run of its own, or what is left of it; what a backup or a dead process says of a running one is not believed."""
    found = restoration.current()
    runs.take_over(policy=policy, since=found.step_at if found is not None else database_now())
    run = runs.open_run(policy=policy, started_by=f"restore: {options.by}")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        progress = runs.advance(run_id=run.id, surveyor=surveyor_of(get_store()), seconds=_AT_A_TIME)
        if progress is not None and progress.is_complete:
            return dict(progress.run.counts)
        if progress is not None:
            deadline = time.monotonic() + _PATIENCE_SECONDS
        time.sleep(_PAUSE_SECONDS)
    raise RaceLostError("another process is at this comparison; try again")


def _apply(policy: Policy, actions: set[Action], options: StepOptions) -> Counter[str]:
    applied: Counter[str] = Counter()
    after = 0
    chosen = queries.findings(policy=policy.value).filter(action__in=[one.value for one in actions])
    while batch := list(chosen.filter(id__gt=after).only("id", "action")[: queries.PAGE]):
        for finding in batch:
            result = apply_finding(
                store=get_store(), finding_id=finding.pk, decided_by=f"restore: {options.by}", while_restoring=True
            )
            applied[finding.action] += result.is_done
        after = batch[-1].pk
    return +applied
