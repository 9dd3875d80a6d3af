"""Reads of the exchange: who is due, how far we are."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.utils.module_loading import import_string

from datamodel.models import HarvestState, RemoteInventory
from datamodel.positions import Cursor, cached_identity
from datamodel.uris import Namespace
from harvest.rules import Selection
from harvest.streams import ARTIFACTS, DELETED_ARTIFACTS, STREAMS, Stream

# The floor's patience with a remote that fails: it grows with the time since it last answered. The listener, which waits
# for each remote in a thread of its own, notices a recovery sooner.
_LONGEST_DELAY = timedelta(minutes=5)
_DELAY_SHARE = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """Which rows of a remote are news to us: those at or after transaction `after` of `epoch`.

    `is_complete` is false while a stream or backfill has not reached an end. `cursors` differ whenever anything has moved;
    `states` are the rows that all this was read from, by name and selector.
    """

    epoch: str
    after: int
    is_complete: bool
    cursors: tuple[tuple[str, str, str, int, str], ...]
    states: Mapping[tuple[str, str], HarvestState] = field(repr=False, compare=False)


def harvested_role() -> str:
    """A global harvests sites, a site harvests globals."""
    return RemoteInventory.Role.SITE if settings.INVENTORY_ROLE == "global" else RemoteInventory.Role.GLOBAL


def harvested_streams() -> tuple[Stream, ...]:
    """In the order of application."""
    if settings.INVENTORY_ROLE == "global":
        return tuple(STREAMS.values())
    return DELETED_ARTIFACTS, ARTIFACTS


def harvested_remotes() -> list[RemoteInventory]:
    """The enabled remotes of the role that we harvest."""
    return list(RemoteInventory.objects.filter(enabled=True, role=harvested_role()).order_by("name"))


def own_site_id() -> uuid.UUID | None:
    """As which site this inventory asks a global: its id is that of its inventory. None at a global."""
    return None if settings.INVENTORY_ROLE == "global" else cached_identity.get().inventory_id


def is_due(remote: RemoteInventory, now: datetime) -> bool:
    """Whether beat shall try a remote now: at once, unless it has been failing for long."""
    if remote.last_error_at is None or not remote.last_error:
        return True
    failing_since = remote.last_contact_at or remote.last_error_at
    delay = min((remote.last_error_at - failing_since) / _DELAY_SHARE, _LONGEST_DELAY)
    return now >= remote.last_error_at + delay


def progress(remote_id: int) -> Progress:
    """From the cursors: the least advanced one counts."""
    states = list(HarvestState.objects.filter(remote_id=remote_id).order_by("name", "selector"))
    cursors = tuple((s.name, s.selector, s.epoch, s.cur_txid, str(s.cur_id)) for s in states)
    by_name = {(state.name, state.selector): state for state in states}
    needed = [by_name.get((stream.name, "")) for stream in harvested_streams()]
    begun = [state for state in needed if state is not None and state.epoch]
    epochs = {state.epoch for state in begun}
    if len(begun) < len(needed) or len(epochs) != 1:
        return Progress("", 0, is_complete=False, cursors=cursors, states=by_name)
    is_complete = all(state.is_complete for state in states) and not any(state.selector for state in states)
    return Progress(epochs.pop(), min(state.cur_txid for state in begun) + 1, is_complete, cursors, by_name)


def is_past(remote_id: int, before: Progress) -> bool:
    """Whether a harvest has left that position behind and is over."""
    now = progress(remote_id)
    if (now.epoch, now.after) == (before.epoch, before.after):
        return False
    return RemoteInventory.objects.filter(id=remote_id, lease_holder__isnull=True).exists()


def backfills(remote_id: int) -> list[HarvestState]:
    """The namespaces whose past is still being read."""
    states = HarvestState.objects.filter(remote_id=remote_id, name=ARTIFACTS.name).exclude(selector="")
    return list(states.order_by("selector"))


def cursor_of(state: HarvestState) -> Cursor | None:
    """Where a stream goes on; None from the start."""
    return Cursor(state.epoch, state.cur_txid, state.cur_id) if state.epoch else None


def load_selection() -> Selection:
    """What this site wants now; HARVEST_SELECTION names who says so, and it must not answer from a cache."""
    selection = import_string(settings.HARVEST_SELECTION)()
    if not isinstance(selection, Selection):
        raise TypeError(f"{settings.HARVEST_SELECTION} must return a harvest.rules.Selection")
    return selection


def namespaces_of(texts: Sequence[str]) -> tuple[Namespace, ...]:
    """From their stored form."""
    return tuple(Namespace.parse(text) for text in texts)
