"""In which order sites are offered, and why. No Django, no clock, no I/O; chance comes in as a function."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from global_inventory.sites.rules import Direction, NamespaceRule, RuleKind, SiteState, obstacle

# Sites whose latencies differ by less than this (or by less than half) are equally good and share the load by chance.
_EQUAL_MS = 5.0
_EQUAL_RATIO = 1.5


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
