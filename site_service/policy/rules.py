"""What a policy says of a uri, and for which namespaces a change of policy changes that. No Django, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from datamodel.uris import Namespace, namespace_filter


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the policy. A higher priority is pulled earlier."""

    namespace: Namespace
    wanted: bool = True
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policy says of one uri, and by which rule; without a rule nothing is wanted."""

    wanted: bool
    priority: int
    rule: Rule | None


@dataclass(frozen=True, slots=True)
class Region:
    """The URIs that one rule decides: those under its namespace and under none of the `holes`, which other rules decide."""

    rule: Rule
    holes: tuple[Namespace, ...]


_UNRULED = Verdict(wanted=False, priority=0, rule=None)


class Policy:
    """An immutable set of rules, at most one per namespace: the longest namespace that a uri lies under decides."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._rules = {rule.namespace.value: rule for rule in rules}
        self._verdicts = {name: Verdict(rule.wanted, rule.priority, rule) for name, rule in self._rules.items()}

    @property
    def rules(self) -> list[Rule]:
        """Sorted by namespace."""
        return [self._rules[name] for name in sorted(self._rules)]

    @property
    def wanted_namespaces(self) -> list[Namespace]:
        """The shortest list of namespaces that holds everything wanted (it may hold excluded parts too)."""
        return namespace_filter([rule.namespace for rule in self._rules.values() if rule.wanted])

    def verdict(self, uri: str) -> Verdict:
        """Of an artifact uri, or of a namespace as far as no deeper rule decides. Costs one look-up per path component."""
        end = len(uri)
        while end > 0:
            if found := self._verdicts.get(uri[:end]):
                return found
            end = max(uri.rfind("/", 0, end - 1), uri.rfind(":", 0, end - 1)) + 1
        return _UNRULED

    def is_wanted(self, uri: str) -> bool:
        return self.verdict(uri).wanted

    def regions(self) -> list[Region]:
        """The rules with what deeper rules take out of them; together they cover every ruled uri exactly once."""
        return [Region(rule, self._holes(rule.namespace)) for rule in self.rules]

    def changed(self, rule: Rule) -> Policy:
        """The policy with `rule` in place of the one of its namespace, if any."""
        return Policy({**self._rules, rule.namespace.value: rule}.values())

    def without(self, namespace: Namespace) -> Policy:
        """The policy without the rule of that namespace."""
        return Policy(rule for rule in self._rules.values() if rule.namespace != namespace)

    def nodes(self) -> set[Namespace]:
        return {rule.namespace for rule in self._rules.values()}

    def _holes(self, outer: Namespace) -> tuple[Namespace, ...]:
        inner = [name for name in self.nodes() if name in outer and name != outer]
        return tuple(namespace_filter(inner))


def widened(old: Policy, new: Policy) -> list[Namespace]:
    """The fewest namespaces that hold every uri whose verdict turns to wanted; they may hold others too.

    Between the namespaces of both policies no verdict can change, so looking at each of them is looking at every uri.
    """
    return _turned(old, new)


def narrowed(old: Policy, new: Policy) -> list[Namespace]:
    """The fewest namespaces that hold every uri whose verdict turns from wanted; they may hold others too."""
    return _turned(new, old)


def _turned(unwanting: Policy, wanting: Policy) -> list[Namespace]:
    nodes = unwanting.nodes() | wanting.nodes()
    return namespace_filter(
        [node for node in nodes if wanting.is_wanted(node.value) and not unwanting.is_wanted(node.value)]
    )
