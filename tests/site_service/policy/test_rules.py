"""The policy's verdicts and what a change of policy changes."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from datamodel.uris import Namespace
from site_service.policy.rules import Policy, Rule, Verdict, narrowed, widened


def policy(*rules: str) -> Policy:
    """`+cadc:A/` is wanted, `-cadc:A/` is not; `+5 cadc:A/` has priority 5."""
    parsed = []
    for rule in rules:
        head, _, name = rule.rpartition(" ")
        sign, name = (head[0], name) if head else (name[0], name[1:])
        parsed.append(Rule(Namespace.parse(name), sign == "+", int(head[1:] or 0)))
    return Policy(parsed)


VERDICTS = [
    ("nothing is wanted without a rule", (), "cadc:A/f", None),
    ("a scheme is wanted", ("+cadc:",), "cadc:A/f", "cadc:"),
    ("another scheme is not", ("+cadc:",), "gemini:A/f", None),
    ("a longer scheme is another one", ("+cadc:",), "cadcx:f", None),
    ("a longer name is another one", ("+cadc:A/",), "cadc:AB/f", None),
    ("the longest rule excludes", ("+cadc:", "-cadc:A/"), "cadc:A/f", "cadc:A/"),
    ("beside an exclude the shorter rule holds", ("+cadc:", "-cadc:A/"), "cadc:B/f", "cadc:"),
    ("an exclude has an exception", ("+cadc:", "-cadc:A/", "+cadc:A/B/"), "cadc:A/B/C/f", "cadc:A/B/"),
    ("empty components count", ("+cadc:", "-cadc:A//"), "cadc:A//f", "cadc:A//"),
    ("one empty component fewer is another name", ("+cadc:", "-cadc:A//"), "cadc:A/f", "cadc:"),
    ("a colon may end a namespace deeper", ("-cadc:", "+cadc:A:"), "cadc:A:f", "cadc:A:"),
]


@pytest.mark.parametrize(
    ("rules", "uri", "decider"), [case[1:] for case in VERDICTS], ids=[case[0] for case in VERDICTS]
)
def test_the_longest_namespace_decides(rules: tuple[str, ...], uri: str, decider: str | None) -> None:
    verdict = policy(*rules).verdict(uri)
    if decider is None:
        assert verdict == Verdict(wanted=False, priority=0, rule=None)
    else:
        assert verdict.rule is not None
        assert verdict.rule.namespace.value == decider
        assert verdict.wanted == (f"+{decider}" in rules)


def test_the_deciding_rule_gives_the_priority() -> None:
    assert policy("+1 cadc:", "+7 cadc:A/").verdict("cadc:A/f").priority == 7
    assert policy("+1 cadc:", "+7 cadc:A/").verdict("cadc:B").priority == 1


CHANGES = [
    ("a first rule widens", (), ("+cadc:",), ["cadc:"], []),
    ("a first exclude changes nothing", (), ("-cadc:",), [], []),
    ("removing the rule narrows", ("+cadc:",), (), [], ["cadc:"]),
    ("an exclude inside narrows there", ("+cadc:",), ("+cadc:", "-cadc:A/"), [], ["cadc:A/"]),
    ("a lifted exclude widens there", ("+cadc:", "-cadc:A/"), ("+cadc:",), ["cadc:A/"], []),
    ("more of the same changes nothing", ("+cadc:",), ("+cadc:", "+cadc:A/"), [], []),
    ("a broader rule widens around a wanted part", ("+cadc:A/",), ("+cadc:", "+cadc:A/"), ["cadc:"], []),
    ("a broader rule spares an exclude", ("-cadc:A/",), ("+cadc:", "-cadc:A/"), ["cadc:"], []),
    ("replacing one by another does both", ("+cadc:A/",), ("+cadc:B/",), ["cadc:B/"], ["cadc:A/"]),
    ("turning the outer rule spares the inner", ("+cadc:", "+cadc:A/"), ("-cadc:", "+cadc:A/"), [], ["cadc:"]),
    ("priority alone changes nothing", ("+1 cadc:",), ("+2 cadc:",), [], []),
]


@pytest.mark.parametrize(
    ("old", "new", "wider", "narrower"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES]
)
def test_a_change_names_the_namespaces_whose_verdict_turned(
    old: tuple[str, ...], new: tuple[str, ...], wider: list[str], narrower: list[str]
) -> None:
    assert [name.value for name in widened(policy(*old), policy(*new))] == wider
    assert [name.value for name in narrowed(policy(*old), policy(*new))] == narrower


_NAMES = ["a:", "b:", "a:A/", "a:A/A/", "a:A/B/", "a:B/", "a:B/A/", "a:A:", "a:A//", "a:AB/"]
_URIS = [name + end for name in [*_NAMES, "c:", "a:C/", "a:A/C/", "a:B/A/A/"] for end in ("A", "x")]
_RULES = st.builds(Rule, st.sampled_from(_NAMES).map(Namespace.parse), st.booleans(), st.integers(0, 3))
_POLICIES = st.lists(_RULES, max_size=6, unique_by=lambda rule: rule.namespace).map(Policy)


def by_brute_force(rules: list[Rule], uri: str) -> tuple[bool, int]:
    matching = [rule for rule in rules if uri.startswith(rule.namespace.value)]
    best = max(matching, key=lambda rule: len(rule.namespace.value), default=None)
    return (best.wanted, best.priority) if best else (False, 0)


@given(_POLICIES)
def test_every_verdict_is_that_of_looking_at_all_rules(some: Policy) -> None:
    for uri in _URIS:
        verdict = some.verdict(uri)
        assert (verdict.wanted, verdict.priority) == by_brute_force(some.rules, uri)
        assert not verdict.wanted or any(uri.startswith(name.value) for name in some.wanted_namespaces)


@given(_POLICIES, _POLICIES)
def test_exactly_the_turned_uris_lie_in_the_namespaces_of_a_change(old: Policy, new: Policy) -> None:
    wider, narrower = widened(old, new), narrowed(old, new)
    for uri in _URIS:
        turned = by_brute_force(new.rules, uri)[0] - by_brute_force(old.rules, uri)[0]
        assert turned != 1 or any(uri.startswith(name.value) for name in wider)
        assert turned != -1 or any(uri.startswith(name.value) for name in narrower)
    for name in wider:
        assert new.is_wanted(name.value)
        assert not old.is_wanted(name.value)


@given(_POLICIES)
def test_regions_cover_every_ruled_uri_once(some: Policy) -> None:
    for uri in _URIS:
        covering = [
            region.rule
            for region in some.regions()
            if uri.startswith(region.rule.namespace.value) and not any(uri.startswith(h.value) for h in region.holes)
        ]
        rule = some.verdict(uri).rule
        assert covering == ([rule] if rule else [])
