"""What a probe means, and what keeps a site from being offered. No Django, no clock, no I/O."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum

# Weight of the newest measurement in the moving average of a site's latency.
LATENCY_WEIGHT = 0.3

_READABLE_STATES = frozenset({"ReadWrite", "ReadOnly"})


class Direction(StrEnum):
    """Which way the bytes go, as the caller sees it."""

    GET = "get"
    PUT = "put"


class RuleKind(StrEnum):
    """What an operator's rule says of a site."""

    PREFER = "prefer"
    AVOID = "avoid"


@dataclass(frozen=True, slots=True)
class SiteState:
    """All that is known of a site when it is ranked: its own word, the operator's switches, the last probe."""

    site_id: uuid.UUID
    name: str
    url: str
    allow_read: bool = True
    allow_write: bool = True
    is_read_only: bool = False
    is_offline: bool = False
    was_probed: bool = False
    read_ok: bool = False
    write_ok: bool = False
    latency_ms: float | None = None
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class NamespaceRule:
    """Prefer or avoid one site for the URIs that start with `namespace`."""

    namespace: str
    site_id: uuid.UUID
    direction: Direction
    kind: RuleKind


@dataclass(frozen=True, slots=True)
class Probed:
    """The outcome of one probe; `error` is empty when the site can be read."""

    read_ok: bool
    write_ok: bool
    latency_ms: float | None
    error: str = ""


def judge_probe(status: int, state: str | None, latency_ms: float) -> Probed:
    """What an answer of `/availability?detail=min` means; a site that names no state takes writes when it answers 200."""
    if status != 200:
        return Probed(read_ok=False, write_ok=False, latency_ms=None, error=f"it answered {status}")
    named = state or "ReadWrite"
    if named not in _READABLE_STATES:
        return Probed(read_ok=False, write_ok=False, latency_ms=latency_ms, error=f"it says it is {named}")
    return Probed(read_ok=True, write_ok=named == "ReadWrite", latency_ms=latency_ms)


def obstacle(site: SiteState, direction: Direction) -> str | None:
    """Why a site is not offered in this direction; None if it is. A site never probed counts as reachable."""
    if site.is_offline:
        return "switched offline by an operator"
    if site.was_probed and not site.read_ok:
        return f"unreachable: {site.last_error}"
    if direction is Direction.GET:
        return None if site.allow_read else "the site allows no reads"
    if not site.allow_write:
        return "the site allows no writes"
    if site.is_read_only:
        return "switched read-only by an operator"
    if site.was_probed and not site.write_ok:
        return "the site is read-only now"
    return None
