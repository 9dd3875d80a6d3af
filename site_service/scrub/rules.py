"""When a copy is read again and how fast, what one run takes on, what measured bytes mean. No Django, no clock, no I/O."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from datamodel.rules import MILLISECOND, truncate_to_millis

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOURS = re.compile(r"([01]?[0-9]|2[0-4])-([01]?[0-9]|2[0-4])\Z")
# Opening a file costs about as much as reading so many bytes: a directory of tiny ones must not escape the budget.
FILE_COST = 128 * 1024
# A run takes no more than this, so that its message stays small and others come to their turn.
RUN_FILES = 500


class Finding(StrEnum):
    """What is wrong with a copy."""

    MISSING = "missing"
    LENGTH = "length"
    DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class Hours:
    """From one full hour of the day (UTC) until another, over midnight if need be; equal hours are the whole day."""

    start: int = 0
    end: int = 0

    @classmethod
    def parse(cls, text: str) -> Hours:
        """`22-6`, or empty for the whole day. Raises `ValueError`."""
        if not text.strip():
            return cls()
        match = _HOURS.match(text.strip())
        if match is None:
            raise ValueError(f"hours are written like 22-6 (UTC), not {text!r}")
        return cls(int(match[1]) % 24, int(match[2]) % 24)

    def hold(self, now: datetime) -> bool:
        """Whether `now` lies in them."""
        hour = now.astimezone(UTC).hour
        if self.start == self.end:
            return True
        if self.start < self.end:
            return self.start <= hour < self.end
        return hour >= self.start or hour < self.end


@dataclass(frozen=True, slots=True)
class Rule:
    """How the copies under a namespace ("" for all others) are read: once per period (0: never), so fast, in these hours."""

    namespace: str
    period_seconds: int
    bytes_per_second: int
    hours: Hours = Hours()


class Schedule:
    """An immutable set of rules, at most one per namespace, and a default: the longest namespace of a uri decides."""

    def __init__(self, default: Rule, rules: Iterable[Rule] = ()) -> None:
        self._default = default
        self._rules = {rule.namespace: rule for rule in rules}

    def rule_for(self, uri: str) -> Rule:
        """One look-up per path component."""
        end = len(uri)
        while end > 0:
            if found := self._rules.get(uri[:end]):
                return found
            end = max(uri.rfind("/", 0, end - 1), uri.rfind(":", 0, end - 1)) + 1
        return self._default

    def rule_of(self, namespace: str) -> Rule | None:
        """The rule of exactly this namespace."""
        return self._default if namespace == self._default.namespace else self._rules.get(namespace)

    @property
    def rules(self) -> list[Rule]:
        """All, the default first."""
        return [self._default, *(self._rules[name] for name in sorted(self._rules))]

    def open_rules(self, now: datetime) -> list[Rule]:
        """Those that read anything, and may do so now."""
        return [rule for rule in self.rules if rule.period_seconds and rule.hours.hold(now)]

    @property
    def digest(self) -> str:
        """Names which rule decides what and how often: when it changes, the times of all copies must be made anew."""
        text = "\n".join(f"{rule.namespace} {rule.period_seconds}" for rule in self.rules)
        return hashlib.sha256(text.encode()).hexdigest()


def next_reading(artifact_id: uuid.UUID, *, verified_at: datetime, period_seconds: int) -> datetime | None:
    """When bytes that were good at `verified_at` are read again: later, and at most one period later; None: never.

    Each artifact has its own moment in the period, by its id, and keeps it. So readings are spread evenly whatever came in one
    burst, what was read late comes back into step, and no state is needed to share out the work.
    """
    if not period_seconds:
        return None
    chance = int.from_bytes(hashlib.sha256(artifact_id.bytes).digest()[:6], "big") / 2**48
    moment = chance * period_seconds
    since = (verified_at - _EPOCH).total_seconds()
    turns = (since - moment) // period_seconds + 1
    due = truncate_to_millis(_EPOCH + timedelta(seconds=moment + turns * period_seconds))
    return max(due, verified_at + MILLISECOND)


@dataclass(frozen=True, slots=True)
class Due:
    """A copy whose time has come."""

    artifact_id: uuid.UUID
    content_length: int


def budget(rule: Rule, *, seconds: float) -> int | None:
    """Bytes that a run of so many seconds may read under this rule; None: no limit."""
    return int(rule.bytes_per_second * seconds) if rule.bytes_per_second else None


def plan_run(due: Sequence[Due], *, limit: int | None) -> list[Due]:
    """The head of what is due, as far as the budget goes: at least one copy, however large, at most `RUN_FILES`."""
    return list(_within(due[:RUN_FILES], limit))


def _within(due: Iterable[Due], limit: int | None) -> Iterator[Due]:
    spent = 0
    for row in due:
        if limit is not None and spent and spent + row.content_length + FILE_COST > limit:
            return
        spent += row.content_length + FILE_COST
        yield row


def differing(declared: Mapping[str, str], measured: Mapping[str, str]) -> list[str]:
    """The algorithms whose digests are not what they should be, by name."""
    return sorted(name for name, digits in declared.items() if measured[name] != digits)


# What may be mended by waiting says nothing about whether a good copy exists.
_PASSING = frozenset(
    {
        "remote_unavailable",
        "storage_unavailable",
        "storage_full",
        "no_free_space",
        "race_lost",
        "unexpected",
        "short_body",
        "database_unavailable",
    }
)


def tells_no_copy(reason: str) -> bool:
    """Whether a failed repair means that no good copy is to be had: nobody offers one, or what was offered is not it."""
    return reason not in _PASSING
