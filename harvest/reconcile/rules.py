"""What a difference means and what is done about it, for both roles: pure decisions (reference 5.4). No Django, no clock.

`here` is the inventory that is repaired, `there` the one that is only read. Nothing is ever done about a difference that
harvest will still bring: what was said there must lie before our cursor.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from datamodel.rules import ArtifactRow, is_newer_metadata, is_winner
from harvest.rules import contradicts


class Label(Enum):
    """What is different; the letter and number are those of the reference where it has the case."""

    EXCLUDED = "A0-filter-excludes"
    DELETED_THERE = "A1-deleted-there"
    COPY_DROPPED = "A2-copy-dropped-there"
    COPY_UNRECORDED = "A3-copy-not-recorded-there"
    ONLY_HERE = "A4-only-here"
    COPY_UNKNOWN = "A5-copy-unknown-there"
    MISSING = "B0-missing-here"
    DELETED_HERE = "B1-deleted-here"
    COPY_MISSING = "B5-copy-missing-here"
    UNWANTED = "B8-not-wanted-here"
    CONTRADICTION = "C0-contradiction"
    THEIRS_WINS = "C1-theirs-wins"
    OURS_WINS = "C2-ours-wins"
    NEWER_THERE = "C3-newer-there"
    NEWER_HERE = "C4-newer-here"
    NOT_HARVESTED = "D0-not-harvested-yet"
    SETTLED = "E0-settled-meanwhile"


class Action(Enum):
    """What is done here."""

    NONE = "nothing"
    TAKE = "take their row as harvest does"
    DELETE = "record the deletion, retire the artifact"
    REMOVE_COPY = "remove the site location; the artifact stays"
    DROP_ROW = "drop the row, without an event"


class Mode(Enum):
    """How far a run goes: REPORT changes nothing, ADD nothing that removes, ALL everything."""

    REPORT = "report"
    ADD = "add"
    ALL = "all"


# Taking their row removes when it decides a collision: one of the two artifacts is then recorded as deleted.
REMOVING = {Label.EXCLUDED, Label.DELETED_THERE, Label.COPY_DROPPED, Label.COPY_UNKNOWN}
REMOVING |= {Label.THEIRS_WINS, Label.OURS_WINS}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One difference, judged."""

    label: Label
    action: Action = Action.NONE

    @property
    def removes(self) -> bool:
        return self.label in REMOVING and self.action is not Action.NONE

    def is_applied(self, mode: Mode) -> bool:
        if self.action is Action.NONE or mode is Mode.REPORT:
            return False
        return mode is Mode.ALL or not self.removes


@dataclass(frozen=True, slots=True)
class There:
    """What the other inventory said of one id, all at one moment. At a site, `artifact` only if it is stored there.

    `is_passed`: our cursors have passed all of it; of an id without a trace there, that they are of its present epoch.
    """

    artifact: ArtifactRow | None = None
    is_deleted: bool = False
    is_copy_dropped: bool = False
    is_passed: bool = True


@dataclass(frozen=True, slots=True)
class Here:
    """What we know of the same id, read later, under lock: another artifact with its uri; whether our set has it;
    whether the filter takes its uri.
    """

    artifact: ArtifactRow | None = None
    same_uri: ArtifactRow | None = None
    is_deleted: bool = False
    is_member: bool = False
    is_selected: bool = True


def judge_at_global(there: There, here: Here) -> Verdict:
    """A global compares what it knows of one site's copies with what that site stores."""
    if there.artifact is not None:
        return _judge_stored(there, there.artifact, here)
    if not here.is_member:
        return Verdict(Label.SETTLED)
    if not there.is_passed:
        return Verdict(Label.NOT_HARVESTED)
    if there.is_deleted:
        return Verdict(Label.DELETED_THERE, Action.DELETE)
    return Verdict(Label.COPY_DROPPED if there.is_copy_dropped else Label.COPY_UNKNOWN, Action.REMOVE_COPY)


def judge_at_site(there: There, here: Here) -> Verdict:
    """A site compares what its policy wants and what it stores with what a global knows of that.

    It never drops a stored artifact but for a deletion, which is the owner's will. What only it has, the global will harvest.
    """
    if there.is_deleted and there.artifact is None:
        if here.artifact is None:
            return Verdict(Label.SETTLED)
        return Verdict(Label.DELETED_THERE, Action.DELETE) if there.is_passed else Verdict(Label.NOT_HARVESTED)
    if there.artifact is None:
        return Verdict(Label.SETTLED if here.artifact is None else Label.ONLY_HERE)
    if here.artifact is None and here.same_uri is None and not here.is_deleted and not here.is_selected:
        return Verdict(Label.UNWANTED)
    common = _judge_row(there, there.artifact, here)
    if common is not None:
        return common
    if here.is_member and not here.is_selected:
        return Verdict(Label.COPY_UNRECORDED)
    return Verdict(Label.SETTLED if here.is_member else Label.UNWANTED)


def judge_excluded(*, is_stored: bool, is_repaired: bool) -> Verdict:
    """A row that the filter no longer takes: a site drops it only if nothing of it is or was stored here."""
    return Verdict(Label.EXCLUDED, Action.NONE if is_stored or is_repaired else Action.DROP_ROW)


def _judge_stored(there: There, artifact: ArtifactRow, here: Here) -> Verdict:
    common = _judge_row(there, artifact, here)
    if here.artifact is not None and not here.is_member and (common is None or common.label is Label.NEWER_HERE):
        return Verdict(Label.COPY_MISSING, Action.TAKE) if there.is_passed else Verdict(Label.NOT_HARVESTED)
    return common or Verdict(Label.SETTLED)


def _judge_row(there: There, artifact: ArtifactRow, here: Here) -> Verdict | None:
    """Their row beside ours; None when they are equal."""
    if here.is_deleted:
        return Verdict(Label.DELETED_HERE)
    ours = here.artifact
    if ours is not None and contradicts(artifact, ours):
        return Verdict(Label.CONTRADICTION)
    if ours is not None and artifact.meta_checksum == ours.meta_checksum:
        return None
    if ours is not None and not is_newer_metadata(artifact, ours):
        return Verdict(Label.NEWER_HERE)
    if not there.is_passed:
        return Verdict(Label.NOT_HARVESTED)
    if ours is not None:
        return Verdict(Label.NEWER_THERE, Action.TAKE)
    if here.same_uri is None:
        return Verdict(Label.MISSING, Action.TAKE)
    wins = is_winner(artifact, here.same_uri)
    return Verdict(Label.THEIRS_WINS if wins else Label.OURS_WINS, Action.TAKE)
