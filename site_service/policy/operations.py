"""Changes of the policy. Each commits together: the rules, the rows that nobody wants any more, and what to harvest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import connection

from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.restoration import refuse_while_restoring
from datamodel.transactions import serialized
from datamodel.uris import Namespace
from harvest.operations import forget_namespaces, request_backfill
from site_service.policy import queries
from site_service.policy.models import SyncPolicy
from site_service.policy.rules import Policy, Rule, narrowed, widened


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What a change did: `dropped` counts unstored artifact rows that went without an event."""

    is_changed: bool
    widened: list[Namespace]
    narrowed: list[Namespace]
    dropped: int


def set_policy(*, namespace: Namespace, wanted: bool, priority: int = 0, note: str | None = None) -> PolicyChange:
    """Make or change the rule of one namespace; `note` None leaves the note as it is.

    Widening asks harvest for the past of the namespaces that turned wanted; narrowing drops the unstored rows that turned
    unwanted, without an event. A repeat changes nothing. Raises `RestoringError`.
    """
    rule = Rule(namespace, wanted, priority)

    def write() -> PolicyChange:
        refuse_while_restoring()
        old = _locked_policy()
        values: dict[str, object] = {"wanted": wanted, "priority": priority}
        if note is not None:
            values["note"] = note
        SyncPolicy.objects.update_or_create(namespace=namespace.value, defaults=values)
        change = _follow(old, old.changed(rule), is_changed=rule not in old.rules)
        if change.is_changed:
            facts = {"wanted": wanted, "priority": priority, "note": note, "dropped": change.dropped}
            record(Action.POLICY_CHANGED, namespace.value, details=facts)
        return change

    return serialized(write)


def remove_policy(*, namespace: Namespace) -> PolicyChange:
    """Remove the rule of one namespace: a shorter one decides then, or nothing is wanted there.

    A repeat changes nothing. Raises `RestoringError`.
    """

    def write() -> PolicyChange:
        refuse_while_restoring()
        old = _locked_policy()
        removed, _ = SyncPolicy.objects.filter(namespace=namespace.value).delete()
        change = _follow(old, old.without(namespace), is_changed=removed > 0)
        if change.is_changed:
            record(Action.POLICY_REMOVED, namespace.value, details={"dropped": change.dropped})
        return change

    return serialized(write)


def apply_first_policy(*, rules: Sequence[Rule]) -> bool:
    """Make these the policy if there is none yet; returns whether they were applied. What an operator set is never touched."""

    def write() -> bool:
        if _locked_policy().rules or not rules:
            return False
        SyncPolicy.objects.bulk_create(
            SyncPolicy(namespace=rule.namespace.value, wanted=rule.wanted, priority=rule.priority) for rule in rules
        )
        _follow(Policy(), Policy(rules), is_changed=True)
        record(Action.POLICY_CHANGED, "the first policy", details={"namespaces": [r.namespace.value for r in rules]})
        return True

    return serialized(write)


def _locked_policy() -> Policy:
    """The policy, with other changes of it waiting until this transaction ends; readers go on."""
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE sync_policy IN SHARE ROW EXCLUSIVE MODE")
    return queries.current_policy()


def _follow(old: Policy, new: Policy, *, is_changed: bool) -> PolicyChange:
    wider, narrower = widened(old, new), narrowed(old, new)
    dropped = _drop_unwanted(new, narrower) if narrower else 0
    _tell_harvest(forget_namespaces, narrower)
    _tell_harvest(request_backfill, wider)
    return PolicyChange(is_changed, wider, narrower, dropped)


def _tell_harvest(operation: Callable[[list[Namespace]], object], namespaces: list[Namespace]) -> None:
    if namespaces:
        operation(namespaces)


def _drop_unwanted(policy: Policy, namespaces: Sequence[Namespace]) -> int:
    condition, values = queries.droppable(policy, namespaces)
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM artifact a WHERE {condition}", values)
        return int(cursor.rowcount)
