"""How long what is deleted stays here, and when a copy may go. No Django, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from datamodel.uris import Namespace, longest_namespace_sql


@dataclass(frozen=True, slots=True)
class Retention:
    """The longest namespace that a uri lies under decides, else `default`; never less than `least`, the longest GET."""

    by_namespace: Mapping[Namespace, timedelta]
    default: timedelta
    least: timedelta

    def of(self, uri: str) -> timedelta:
        """How long this content is kept after its end."""
        matching = [name for name in self.by_namespace if uri.startswith(name.value)]
        longest = max(matching, key=lambda name: len(name.value), default=None)
        return max(self.least, self.by_namespace[longest] if longest is not None else self.default)

    def keeps_until(self, uri: str, died_at: datetime) -> datetime:
        """From then on its bytes may be removed."""
        return died_at + self.of(uri)

    @property
    def shortest(self) -> timedelta:
        """Nothing that died more lately is due."""
        return max(self.least, min([self.default, *self.by_namespace.values()]))

    def sql(self, column: str) -> tuple[str, dict[str, str | float]]:
        """`of(column)` as an SQL expression of seconds with its named parameters."""
        parameters: dict[str, str | float] = {
            "default_kept": self.default.total_seconds(),
            "least_kept": self.least.total_seconds(),
        }
        by_namespace = [(name.value, kept.total_seconds()) for name, kept in self.by_namespace.items()]
        decided, more = longest_namespace_sql(column, by_namespace, otherwise="%(default_kept)s", name="kept")
        return f"greatest(%(least_kept)s::double precision, ({decided})::double precision)", parameters | more


class ReleaseState(StrEnum):
    """Of one copy that shall go.

    `asked`: the globals are, or will be, asked. `granted`: all of them allow it, it will be dropped. `returning`: it stays, and those that
    may have allowed it are told. `dropped`, `refused`, `gone` (it went by itself: deleted, replaced, or found bad) are ends.
    """

    ASKED = "asked"
    GRANTED = "granted"
    RETURNING = "returning"
    DROPPED = "dropped"
    REFUSED = "refused"
    GONE = "gone"


RELEASE_MOVES: Mapping[ReleaseState, frozenset[ReleaseState]] = {
    ReleaseState.ASKED: frozenset(
        {ReleaseState.GRANTED, ReleaseState.RETURNING, ReleaseState.REFUSED, ReleaseState.GONE}
    ),
    ReleaseState.GRANTED: frozenset({ReleaseState.DROPPED, ReleaseState.RETURNING, ReleaseState.GONE}),
    ReleaseState.RETURNING: frozenset({ReleaseState.REFUSED, ReleaseState.GONE}),
}
OPEN_RELEASES = tuple(RELEASE_MOVES)
# By what name the brake knows copies that go.
SOURCE = "retire"
_FIRST_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_SECONDS = 3600.0


def sources_of(state: ReleaseState) -> list[ReleaseState]:
    """From where a release may come into this state."""
    return [source for source, targets in RELEASE_MOVES.items() if state in targets]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one global said of a release; `is_granted` is None when it said nothing."""

    is_granted: bool | None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a release that was asked for."""

    state: ReleaseState
    reason: str = ""
    detail: str = ""


def decide_release(answers: Sequence[Answer], *, is_first_try: bool) -> Decision:
    """A copy may go when every global allows it. Silence is no answer: it is asked again.

    After a refusal whoever else was asked, or was asked before and not heard, may think that the copy goes, and must be told.
    """
    if not answers:
        return Decision(ReleaseState.REFUSED, "no_global", "no global is configured that could allow it")
    refusal = next((answer for answer in answers if answer.is_granted is False), None)
    if refusal is not None:
        is_alone = is_first_try and len(answers) == 1
        state = ReleaseState.REFUSED if is_alone else ReleaseState.RETURNING
        return Decision(state, refusal.reason, refusal.detail)
    silence = next((answer for answer in answers if answer.is_granted is None), None)
    if silence is not None:
        return Decision(ReleaseState.ASKED, "unanswered", silence.detail)
    return Decision(ReleaseState.GRANTED)


def decide_unasked(reason: str, detail: str, *, is_first_try: bool) -> Decision:
    """It stays whatever the globals would say; those that were asked before may think otherwise."""
    return Decision(ReleaseState.REFUSED if is_first_try else ReleaseState.RETURNING, reason, detail)


def release_pause(tries: int) -> float:
    """Seconds until the next try after so many without an answer."""
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 20), _LONGEST_PAUSE_SECONDS)
