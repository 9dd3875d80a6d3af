"""What the doors do after a wider policy: have the globals harvested now rather than at the next tick, which would do it too."""

from __future__ import annotations

from harvest.queries import harvested_remotes
from harvest.tasks import request_harvest
from site_service.policy.operations import PolicyChange


def fetch_the_past(change: PolicyChange) -> None:
    """Ask for a harvest of every global if the change widened anything; a broker that is away costs only time."""
    if change.widened:
        for remote in harvested_remotes():
            if not request_harvest(remote.name):
                return
