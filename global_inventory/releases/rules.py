"""When a site may drop its copy. No Django, no clock, no I/O."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The answer for one file: granted (again), or why not; and what is counted when a site gives one back."""

    GRANTED = "granted"
    REPEATED = "repeated"
    RETURNED = "returned"
    UNKNOWN = "unknown"
    OTHER_CONTENT = "other_content"
    OTHER_ALGORITHM = "other_algorithm"
    COPY_UNKNOWN = "copy_unknown"
    TOO_FEW_COPIES = "too_few_copies"
    NOT_CONFIRMED = "not_confirmed"


_GRANTS = frozenset({Outcome.GRANTED, Outcome.REPEATED})


@dataclass(frozen=True, slots=True)
class Holder:
    """A site that said it holds the artifact; `release_id` if it may drop that copy; `is_usable`: not revoked, offline or unreadable."""

    site_id: uuid.UUID
    release_id: uuid.UUID | None
    is_usable: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer, and the verified copies that remain elsewhere beside those that must."""

    outcome: Outcome
    copies: int = 0
    demanded: int = 0

    @property
    def is_granted(self) -> bool:
        return self.outcome in _GRANTS


def judge(
    *,
    site_id: uuid.UUID,
    release_id: uuid.UUID,
    holders: Sequence[Holder],
    confirmed: frozenset[uuid.UUID],
    demanded: int,
) -> Verdict:
    """Whether the site may drop its copy.

    Counted are copies at other usable sites that may not be dropped themselves and that their site has confirmed just now. What was
    granted stays granted. A copy that we do not know of could not be marked as going, so it may not go.
    """
    own = next((holder for holder in holders if holder.site_id == site_id), None)
    others = [h for h in holders if h.site_id != site_id and h.release_id is None and h.is_usable]
    copies = sum(holder.site_id in confirmed for holder in others)
    if own is None:
        return Verdict(Outcome.COPY_UNKNOWN, copies, demanded)
    if own.release_id == release_id:
        return Verdict(Outcome.REPEATED, copies, demanded)
    if copies >= demanded:
        return Verdict(Outcome.GRANTED, copies, demanded)
    return Verdict(Outcome.NOT_CONFIRMED if len(others) >= demanded else Outcome.TOO_FEW_COPIES, copies, demanded)


def demanded_copies(uri: str, by_namespace: Mapping[str, int], default: int) -> int:
    """How many copies must remain: the longest namespace that the uri lies under decides."""
    matching = [namespace for namespace in by_namespace if uri.startswith(namespace)]
    return by_namespace[max(matching, key=len)] if matching else default
