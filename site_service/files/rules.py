"""Pure decisions about one request: which bytes, whether they changed, which digests to name (RFC 9110, RFC 9530)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from urllib.parse import quote

MAX_PARTS = 16

_BLANKS = re.compile(r"[ \t]+")
_UNIT = re.compile(r"bytes=", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]{1,40})-([0-9]{0,40})\Z|-([0-9]{1,40})\Z")
_WANTED = re.compile(r"([a-z0-9*._-]+)=(10|[0-9])\Z")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to but without `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Unsatisfiable(Enum):
    """Not one of the asked ranges lies within the content."""

    RANGE = "unsatisfiable"


def choose_spans(header: str, length: int) -> Sequence[Span] | Unsatisfiable | None:
    """What a Range header asks of content of this length; None means: as if it were not there (RFC 9110, 14.2).

    Blanks count nothing. Ignored: other units, bad grammar, an end before its start, more than 16 parts. Parts that overlap or
    touch become one, in the order in which they were first named.
    """
    compact = _BLANKS.sub("", header)
    unit = _UNIT.match(compact)
    if unit is None:
        return None
    asked = [_parse_range(part, length) for part in compact[unit.end() :].split(",") if part]
    if not asked or None in asked:
        return None
    spans = _coalesce([span for span in asked if span is not None and span.length > 0])
    if not spans:
        return Unsatisfiable.RANGE if length or not compact[unit.end() :].startswith("-") else None
    return spans if len(spans) <= MAX_PARTS else None


def _parse_range(text: str, length: int) -> Span | None:
    """None for bad grammar; an empty span for a range that lies outside."""
    match = _RANGE.match(text)
    if match is None:
        return None
    if match[3] is not None:
        return Span(max(0, length - int(match[3])), length)
    start = int(match[1])
    if not match[2]:
        return Span(min(start, length), length)
    end = int(match[2])
    if end < start:
        return None
    return Span(min(start, length), min(end + 1, length))


def _coalesce(spans: list[Span]) -> list[Span]:
    """Joins what overlaps or touches; linearithmic, whatever a hostile header asks."""
    joined: list[tuple[int, Span]] = []
    for order, span in sorted(enumerate(spans), key=lambda item: (item[1].start, item[1].stop)):
        if joined and span.start <= joined[-1][1].stop:
            first, last = joined[-1]
            joined[-1] = (min(first, order), Span(last.start, max(last.stop, span.stop)))
        else:
            joined.append((order, span))
    return [span for _, span in sorted(joined, key=lambda item: item[0])]


@dataclass(frozen=True, slots=True)
class ReadConditions:
    """The conditional headers of a GET or HEAD; an empty tuple or None means the header was absent or unreadable."""

    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()
    if_modified_since: datetime | None = None
    if_unmodified_since: datetime | None = None


class ReadVerdict(Enum):
    """How to answer a conditional read."""

    SEND = "send"
    NOT_MODIFIED = "not modified"
    FAILED = "precondition failed"


def judge_read(conditions: ReadConditions, *, etag: str, last_modified: datetime) -> ReadVerdict:
    """In the order of RFC 9110, 13.2.2; times are compared by the second, as HTTP dates carry no more."""
    modified = last_modified.replace(microsecond=0)
    if conditions.if_match:
        if "*" not in conditions.if_match and etag not in conditions.if_match:
            return ReadVerdict.FAILED
    elif conditions.if_unmodified_since is not None and modified > conditions.if_unmodified_since:
        return ReadVerdict.FAILED
    if conditions.if_none_match:
        known = {tag.removeprefix("W/") for tag in conditions.if_none_match}
        return ReadVerdict.NOT_MODIFIED if known & {"*", etag} else ReadVerdict.SEND
    if conditions.if_modified_since is not None and modified <= conditions.if_modified_since:
        return ReadVerdict.NOT_MODIFIED
    return ReadVerdict.SEND


def wanted_algorithms(header: str, available: Sequence[str]) -> list[str]:
    """Of the available digests (best first) those to answer a Want-Repr-Digest with; unreadable members do not count.

    A wish for nothing that is known gets the best one: it costs nothing.
    """
    wishes = [match for member in header.split(",") if (match := _WANTED.match(_BLANKS.sub("", member).lower()))]
    names = {"sha": "sha-1"}
    weights = {names.get(match[1], match[1]): int(match[2]) for match in wishes}
    chosen = [name for name in available if weights.get(name, 0) > 0]
    refused = {name for name, weight in weights.items() if weight == 0}
    return sorted(chosen, key=lambda name: -weights[name]) or [n for n in available if n not in refused][:1]


# What a browser would run or render with rights of its own: offered for saving, never shown in our origin.
_PASSIVE_TYPES = frozenset(
    {"text/plain", "text/csv", "text/tab-separated-values", "application/json", "application/fits"}
)
_PASSIVE_FAMILIES = ("image/", "audio/", "video/")


def is_active(content_type: str | None) -> bool:
    """Whether content of this type could act in a browser: everything that is not known to be passive."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind in _PASSIVE_TYPES:
        return False
    return not kind.startswith(_PASSIVE_FAMILIES) or kind.endswith("+xml")


def quote_name(name: str) -> str:
    """A relative link to a name: everything but unreserved characters is escaped, `:` too, which would look like a scheme."""
    return quote(name, safe="/")
