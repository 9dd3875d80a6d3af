"""The order in which sites are offered, as a table."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from global_inventory.sites.rules import (
    Direction,
    NamespaceRule,
    RuleKind,
    SiteState,
    judge_probe,
    obstacle,
    rank_sites,
)

GET, PUT = Direction.GET, Direction.PUT
PREFER, AVOID = RuleKind.PREFER, RuleKind.AVOID
URI = "cadc:CFHT/raw/x.fits"


def site(
    name: str, latency: float | None = 10.0, *, up: bool = True, writable: bool = True, **changes: object
) -> SiteState:
    state = SiteState(
        uuid.uuid5(uuid.NAMESPACE_URL, name),
        name,
        f"http://{name}.test",
        was_probed=latency is not None or not up,
        read_ok=up,
        write_ok=up and writable,
        latency_ms=latency,
    )
    return replace(state, **changes)  # type: ignore[arg-type]  # the caller names real fields


def rule(kind: RuleKind, name: str, namespace: str, direction: Direction = GET) -> NamespaceRule:
    return NamespaceRule(namespace, site(name).site_id, direction, kind)


A, B, C = site("a", 10), site("b", 100), site("c", 1000)
ORDERS = [
    ("by latency", [C, A, B], GET, [], "abc"),
    ("unmeasured last", [site("n", None), C], GET, [], "cn"),
    ("preferred before faster", [A, B, C], GET, [rule(PREFER, "c", "cadc:")], "cab"),
    ("longest namespace first", [A, B, C], GET, [rule(PREFER, "b", "cadc:"), rule(PREFER, "c", "cadc:CFHT/")], "cba"),
    ("avoided left out", [A, B, C], GET, [rule(AVOID, "a", "cadc:")], "bc"),
    ("all avoided: all offered", [A, B], GET, [rule(AVOID, "a", "cadc:"), rule(AVOID, "b", "cadc:CFHT/")], "ab"),
    ("avoided, and the other is down", [A, site("b", up=False)], GET, [rule(AVOID, "a", "cadc:")], "a"),
    ("longer prefer beats avoid", [A, B], GET, [rule(AVOID, "b", "cadc:"), rule(PREFER, "b", "cadc:CFHT/")], "ba"),
    ("longer avoid beats prefer", [A, B], GET, [rule(PREFER, "b", "cadc:"), rule(AVOID, "b", "cadc:CFHT/raw/")], "a"),
    ("another namespace", [A, B], GET, [rule(PREFER, "b", "cadc:JCMT/")], "ab"),
    ("another direction", [A, B], GET, [rule(PREFER, "b", "cadc:", PUT)], "ab"),
    ("offline", [A, replace(B, is_offline=True)], GET, [], "a"),
    ("unreachable", [A, site("b", up=False)], PUT, [], "a"),
    ("read-only by probe still reads", [A, site("b", 100, writable=False)], GET, [], "ab"),
    ("read-only by probe takes no put", [A, site("b", 100, writable=False)], PUT, [], "a"),
    ("read-only by switch still reads", [A, replace(B, is_read_only=True)], GET, [], "ab"),
    ("read-only by switch takes no put", [A, replace(B, is_read_only=True)], PUT, [], "a"),
    ("no reads", [A, replace(B, allow_read=False)], GET, [], "a"),
    ("no writes", [A, replace(B, allow_write=False)], PUT, [], "a"),
    ("write only takes a put", [replace(B, allow_read=False)], PUT, [], "b"),
    ("never probed counts as reachable", [site("n", None)], PUT, [], "n"),
    ("nobody", [], GET, [], ""),
]


@pytest.mark.parametrize(
    ("name", "candidates", "direction", "rules", "expected"), ORDERS, ids=[case[0] for case in ORDERS]
)
def test_order(
    name: str, candidates: list[SiteState], direction: Direction, rules: list[NamespaceRule], expected: str
) -> None:
    ranked = rank_sites(candidates, URI, direction, chance=Random(1).random, rules=rules)
    assert "".join(place.site.name for place in ranked) == expected, name
    assert all(place.reason for place in ranked)


def test_a_put_offers_holders_first_even_before_preferred_sites() -> None:
    rules = [rule(PREFER, "a", "cadc:", PUT)]
    ranked = rank_sites([A, B, C], URI, PUT, chance=Random(1).random, rules=rules, holders=frozenset({C.site_id}))
    assert [(place.site.name, place.reason) for place in ranked] == [
        ("c", "holds the artifact, latency 1000.0 ms"),
        ("a", "preferred for cadc:, latency 10.0 ms"),
        ("b", "latency 100.0 ms"),
    ]


def test_an_avoided_holder_is_left_out_of_a_put_while_others_remain() -> None:
    rules = [rule(AVOID, "c", "cadc:", PUT)]
    ranked = rank_sites([A, C], URI, PUT, chance=Random(1).random, rules=rules, holders=frozenset({C.site_id}))
    assert [place.site.name for place in ranked] == ["a"]


def test_what_is_only_left_says_that_it_is_avoided() -> None:
    ranked = rank_sites([A], URI, GET, chance=Random(1).random, rules=[rule(AVOID, "a", "cadc:")])
    assert ranked[0].reason == "avoided for cadc:, but nothing else is left, latency 10.0 ms"


def test_near_equal_sites_share_the_load_and_slower_ones_get_none_of_it() -> None:
    chance = Random(7).random
    candidates = [site("a", 10), site("b", 14), site("c", 100), site("d", 149), site("e", 200)]
    orders = Counter(
        "".join(place.site.name for place in rank_sites(candidates, URI, GET, chance=chance)) for _ in range(400)
    )
    assert set(orders) == {"abcde", "bacde", "abdce", "badce"}
    assert min(orders.values()) > 50


PROBES = [
    (200, "ReadWrite", True, True),
    (200, "ReadOnly", True, False),
    (200, "Offline", False, False),
    (200, None, True, True),
    (200, "Sideways", False, False),
    (503, "Offline", False, False),
    (503, "ReadWrite", False, False),
    (404, None, False, False),
]


@pytest.mark.parametrize(("status", "state", "reads", "writes"), PROBES)
def test_what_a_probe_means(status: int, state: str | None, reads: bool, writes: bool) -> None:
    probed = judge_probe(status, state, 12.5)
    assert (probed.read_ok, probed.write_ok) == (reads, writes)
    assert bool(probed.error) is not reads


def test_an_obstacle_names_the_last_error() -> None:
    down = site("a", up=False, last_error="no answer within 5 s")
    assert obstacle(down, GET) == "unreachable: no answer within 5 s"
