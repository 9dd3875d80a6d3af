"""How far a right reaches: a set of URIs made of prefixes, as disjoint ranges in C order. No Django, no clock, no I/O.

URIs are ASCII, so the order of Python's texts is the order of the database's C collation: one form decides here and filters there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from datamodel.uris import prefix_upper_bound

# Above every URI.
END = "\x7f"

Range = tuple[str, str]
"""From a text up to, but not including, another."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Sorted ranges that neither overlap nor touch; make it with the functions below."""

    ranges: tuple[Range, ...] = ()

    @classmethod
    def of_prefixes(cls, prefixes: Iterable[str]) -> Self:
        """Everything that starts with one of these; the empty one is everything."""
        return cls(_merged(sorted(range_of(prefix) for prefix in prefixes)))

    @classmethod
    def of_ranges(cls, ranges: Iterable[Range]) -> Self:
        """Ranges in any order."""
        return cls(_merged(sorted(found for found in ranges if found[0] < found[1])))

    @property
    def is_everything(self) -> bool:
        return self.ranges == (("", END),)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __contains__(self, uri: str) -> bool:
        found = bisect_right(self.ranges, uri, key=_start) - 1
        return found >= 0 and uri < self.ranges[found][1]

    def covers(self, prefix: str) -> bool:
        """Whether everything that starts with a prefix is reached."""
        low, high = range_of(prefix)
        found = bisect_right(self.ranges, low, key=_start) - 1
        return found >= 0 and high <= self.ranges[found][1]

    def __and__(self, other: Reach) -> Reach:
        if self.is_everything:
            return other
        if other.is_everything:
            return self
        return Reach(
            tuple(
                (max(low, start), min(high, end))
                for low, high in self.ranges
                for start, end in other.within(low, high)
                if max(low, start) < min(high, end)
            )
        )

    def __or__(self, other: Reach) -> Reach:
        return Reach(_merged(sorted([*self.ranges, *other.ranges])))

    def after(self, prefix: str, uri: str) -> list[Range]:
        """What is reached below a prefix and above a text: what is left of a listing."""
        low, high = range_of(prefix)
        # The least text above another that a URI may be.
        return self.within(max(low, f"{uri}\x01") if uri else low, high)

    def within(self, low: str, high: str) -> list[Range]:
        """The part of it from one text up to another, as ranges."""
        if low >= high:
            return []
        first = max(bisect_right(self.ranges, low, key=_start) - 1, 0)
        found = []
        for start, end in self.ranges[first:]:
            if start >= high:
                break
            if end > low:
                found.append((max(start, low), min(end, high)))
        return found


EVERYWHERE = Reach((("", END),))
NOWHERE = Reach()


def range_of(prefix: str) -> Range:
    """All URIs that start with a prefix."""
    return (prefix, prefix_upper_bound(prefix)) if prefix else ("", END)


def _start(found: Range) -> str:
    return found[0]


def _merged(ranges: list[Range]) -> tuple[Range, ...]:
    merged: list[Range] = []
    for low, high in ranges:
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)
