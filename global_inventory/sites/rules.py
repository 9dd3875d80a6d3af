"""What a probe means, what keeps a site from being offered, in which order sites are offered and why.

No Django, no clock, no I/O; chance comes in as a function.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

# Weight of the newest measurement in the moving average of a site's latency.
LATENCY_WEIGHT = 0.3
# Sites whose latencies differ by less than this (or by less than half) are equally good and share the load by chance.
_EQUAL_MS = 5.0
_EQUAL_RATIO = 1.5

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


@dataclass(frozen=True, slots=True)
class Ranked:
    """A site in its place, with the reason for it."""

    site: SiteState
    reason: str


Tier = tuple[Ranked, ...]
Chance = Callable[[], float]


def matching_rules(rules: Iterable[NamespaceRule], uri: str, direction: Direction) -> tuple[NamespaceRule, ...]:
    """For each site the rule with the longest namespace that holds the uri."""
    longest: dict[uuid.UUID, NamespaceRule] = {}
    for rule in rules:
        if rule.direction is direction and uri.startswith(rule.namespace):
            known = longest.get(rule.site_id)
            if known is None or len(rule.namespace) > len(known.namespace):
                longest[rule.site_id] = rule
    return tuple(longest.values())


def tiers_of(
    candidates: Iterable[SiteState],
    direction: Direction,
    *,
    matching: Sequence[NamespaceRule] = (),
    holders: frozenset[uuid.UUID] = frozenset(),
) -> tuple[Tier, ...]:
    """Groups of equally good sites, best first: those without obstacle, and avoided ones only when nothing else is left.

    For a put, holders of the artifact come first; then preferences, the longest namespace first; then latency.
    """
    verdicts = {rule.site_id: rule for rule in matching}
    offered = [site for site in candidates if obstacle(site, direction) is None]
    wanted = [site for site in offered if not _is_avoided(verdicts.get(site.site_id))]
    left = wanted or offered
    classes: dict[tuple[bool, int], list[SiteState]] = {}
    for site in left:
        is_holder = direction is Direction.PUT and site.site_id in holders
        rule = verdicts.get(site.site_id)
        preference = len(rule.namespace) if rule is not None and rule.kind is RuleKind.PREFER else 0
        classes.setdefault((not is_holder, -preference), []).append(site)
    tiers: list[Tier] = []
    for (is_stranger, _), sites in sorted(classes.items()):
        for equals in _by_latency(sites):
            words = [_words(site, verdicts.get(site.site_id), is_holder=not is_stranger) for site in equals]
            tiers.append(tuple(Ranked(site, reason) for site, reason in zip(equals, words, strict=True)))
    return tuple(tiers)


def order_of(tiers: Iterable[Tier], chance: Chance) -> list[Ranked]:
    """One order: the tiers as they are, chance inside each."""
    ranked: list[Ranked] = []
    for tier in tiers:
        ranked.extend(tier if len(tier) == 1 else sorted(tier, key=lambda _: chance()))
    return ranked


def rank_sites(
    candidates: Iterable[SiteState],
    uri: str,
    direction: Direction,
    *,
    chance: Chance,
    rules: Iterable[NamespaceRule] = (),
    holders: frozenset[uuid.UUID] = frozenset(),
) -> list[Ranked]:
    """The sites to offer for one uri, best first, each with its reason; empty when every one has an obstacle."""
    matching = matching_rules(rules, uri, direction)
    return order_of(tiers_of(candidates, direction, matching=matching, holders=holders), chance)


def _is_avoided(rule: NamespaceRule | None) -> bool:
    return rule is not None and rule.kind is RuleKind.AVOID


def _by_latency(sites: list[SiteState]) -> list[list[SiteState]]:
    """Groups of near-equal latency, measured against the fastest of each group; unmeasured sites come last."""
    groups: list[list[SiteState]] = []
    limit = float("-inf")
    for site in sorted(sites, key=_latency):
        latency = _latency(site)
        if not groups or latency > limit:
            groups.append([])
            limit = max(latency + _EQUAL_MS, latency * _EQUAL_RATIO)
        groups[-1].append(site)
    return groups


def _latency(site: SiteState) -> float:
    return float("inf") if site.latency_ms is None else site.latency_ms


def _words(site: SiteState, rule: NamespaceRule | None, *, is_holder: bool) -> str:
    words = ["holds the artifact"] if is_holder else []
    if rule is not None and rule.kind is RuleKind.PREFER:
        words.append(f"preferred for {rule.namespace}")
    if _is_avoided(rule) and rule is not None:
        words.append(f"avoided for {rule.namespace}, but nothing else is left")
    words.append("latency not measured yet" if site.latency_ms is None else f"latency {site.latency_ms:.1f} ms")
    return ", ".join(words)
