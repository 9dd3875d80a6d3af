"""The brake's rule: how much may be removed in a day before somebody is asked. No Django, no clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """A day's removals by one source (a peer, a run): so many, or such a share of what there is, whichever is more.

    The number keeps small inventories working, the share large ones.
    """

    count: int
    share: float

    def allowance(self, total: int) -> int:
        """How many removals a day are taken without asking, of `total` artifacts."""
        return max(self.count, int(total * self.share))

    def exceeded(self, *, removed: int, more: int, total: int) -> bool:
        """Whether `more` removals on top of today's `removed` ask for an operator."""
        return removed + more > self.allowance(total)

    def total_that_allows(self, removals: int) -> int:
        """Of how many artifacts so many removals are no more than the share: beyond that nobody needs to count."""
        return math.ceil((removals + 1) / self.share) if self.share else 0


def governing(uri: str, namespaces: Iterable[str]) -> str:
    """The longest of these namespaces that the uri is in; "" for none: then the settings decide."""
    return max((namespace for namespace in namespaces if uri.startswith(namespace)), key=len, default="")
