"""A step of restoring: everything that the peers know comes back, and what they know to be deleted goes, before anybody is served."""

from __future__ import annotations

from collections import Counter
from typing import Any

from datamodel.errors import DeletionBrakeError, InvalidRequestError, NotReadyError, RemoteError
from datamodel.models import RemoteInventory
from datamodel.restoration import StepOptions
from harvest import queries
from harvest.reconcile import compare
from harvest.reconcile.models import ReconcileRun
from harvest.reconcile.rules import Label, Mode

_MOST_ROUNDS = 10


def reconcile_with_peers(options: StepOptions) -> dict[str, Any]:
    """Harvest and compare with every enabled remote that we harvest, and settle what differs, deletions included (within the brake).

    A backup knows less than any peer: what they say stands, and what they believe to be stored here is known again, so that the store
    can be asked for it. Raises `NotReadyError` for a peer that does not answer, `DeletionBrakeError`,
    `InvalidRequestError` for a skipped peer that is none. A repeat goes on where the cursors are.
    """
    remotes = queries.harvested_remotes()
    if unknown := options.skipped - {remote.name for remote in remotes}:
        raise InvalidRequestError(f"no enabled peer is called {', '.join(sorted(unknown))}")
    report: dict[str, Any] = {}
    for remote in remotes:
        report[remote.name] = "skipped" if remote.name in options.skipped else _settle(remote)
    return report


def _settle(remote: RemoteInventory) -> str:
    applied: Counter[str] = Counter()
    for _ in range(_MOST_ROUNDS):
        run = _compare(remote)
        applied.update(run.applied)
        # What harvest had not brought, and what these repairs have uncovered, is in the next round.
        if not run.applied and Label.NOT_HARVESTED.value not in run.differences:
            done = f"{sum(applied.values())} differences settled"
            left = ", ".join(f"{count} {label}" for label, count in sorted(run.differences.items()))
            return f"{done}; left: {left}" if left else done
    raise NotReadyError(f"{remote.name}: its news do not come to an end; try again")


def _compare(remote: RemoteInventory) -> ReconcileRun:
    try:
        return compare.reconcile(remote.name, mode=Mode.REGAIN)
    except DeletionBrakeError:
        # Says itself what to do.
        raise
    except RemoteError as error:
        raise NotReadyError(
            f"{remote.name}: {error.detail}. Wait until it answers; if it never will, --skip {remote.name} does without "
            "what only it knows"
        ) from error
