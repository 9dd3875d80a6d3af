"""Reads of the policy, what it selects of the artifacts known here, and what a change of it would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from datamodel.uris import Namespace, prefix_upper_bound
from harvest.rules import Selection
from site_service.policy.models import SyncPolicy
from site_service.policy.rules import Policy, Region, Rule, narrowed, widened

Condition = tuple[str, list[str]]
"""A boolean SQL expression over `a.uri` and its parameters."""


@dataclass(frozen=True, slots=True)
class PolicyPreview:
    """What a change of policy would do here.

    `dropped` are unstored rows that nobody here would want any more; `kept` are stored artifacts that would no longer be
    wanted (their bytes stay); `gained` are artifacts known here, not stored, that would be pulled. What is not known here
    is harvested afterwards and cannot be counted before.
    """

    widened: list[Namespace]
    narrowed: list[Namespace]
    dropped: int
    kept: int
    kept_bytes: int
    gained: int
    gained_bytes: int


def current_policy() -> Policy:
    """All rules; one small query."""
    rows = SyncPolicy.objects.values_list("namespace", "wanted", "priority")
    return Policy(Rule(Namespace(namespace), wanted, priority) for namespace, wanted, priority in rows)


def harvest_selection() -> Selection:
    """What the harvest of a global must bring here (setting HARVEST_SELECTION names this function)."""
    policy = current_policy()
    rules = tuple((rule.namespace, rule.wanted) for rule in policy.rules)
    return Selection(tuple(policy.wanted_namespaces), policy.is_wanted, rules)


def within(namespaces: Sequence[Namespace]) -> Condition:
    """Whether `a.uri` lies under one of the namespaces: ranges that the index on uri serves."""
    ranges = " OR ".join("(a.uri >= %s AND a.uri < %s)" for _ in namespaces)
    return f"({ranges or 'FALSE'})", [bound for name in namespaces for bound in _bounds(name)]


def wanted_under(policy: Policy) -> Condition:
    """Whether the policy wants `a.uri`: `Policy.is_wanted` as SQL."""
    parts = [_inside(region) for region in policy.regions() if region.rule.wanted]
    return f"({' OR '.join(sql for sql, _ in parts) or 'FALSE'})", [value for _, values in parts for value in values]


def droppable(policy: Policy, namespaces: Sequence[Namespace]) -> Condition:
    """Whether artifact `a` is of the namespaces and nothing here needs its row: not wanted, not stored.

    A copy that was lost here (not dropped on purpose) is repaired whatever the policy says, so its row stays.
    """
    (inside, inside_values), (wanted, wanted_values) = within(namespaces), wanted_under(policy)
    sql = (
        f"{inside} AND NOT {wanted} AND NOT EXISTS (SELECT 1 FROM storage_location l WHERE l.artifact_id = a.id) "
        "AND NOT EXISTS (SELECT 1 FROM deleted_storage_location_event e WHERE e.id = a.id AND NOT e.is_dropped)"
    )
    return sql, [*inside_values, *wanted_values]


def preview(old: Policy, new: Policy) -> PolicyPreview:
    """What changing from `old` to `new` would do to what is known here."""
    wider, narrower = widened(old, new), narrowed(old, new)
    (drop, drop_values), (under, under_values) = droppable(new, narrower), within(narrower)
    (wanted, wanted_values), (gain, gain_values) = wanted_under(new), within(wider)
    dropped, _ = _count(drop, drop_values)
    kept, kept_bytes = _count(f"{under} AND NOT {wanted} AND {_STORED}", [*under_values, *wanted_values])
    gained, gained_bytes = _count(f"{gain} AND {wanted} AND NOT {_STORED}", [*gain_values, *wanted_values])
    return PolicyPreview(wider, narrower, dropped, kept, kept_bytes, gained, gained_bytes)


_STORED = "EXISTS (SELECT 1 FROM storage_location l WHERE l.artifact_id = a.id)"


def _count(condition: str, values: Sequence[str]) -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*), coalesce(sum(a.content_length), 0) FROM artifact a WHERE {condition}", values)
        count, size = cursor.fetchone()
    return int(count), int(size)


def _bounds(namespace: Namespace) -> tuple[str, str]:
    return namespace.value, prefix_upper_bound(namespace.value)


def _inside(region: Region) -> Condition:
    inner, inner_values = within([region.rule.namespace])
    if not region.holes:
        return inner, inner_values
    holes, hole_values = within(region.holes)
    return f"({inner} AND NOT {holes})", [*inner_values, *hole_values]
