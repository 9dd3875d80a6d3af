"""Whether a permission service permits what no local grant does, and why."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from datamodel.grants import Grant, Identity
from datamodel.permission_service.memory import Answer, PermissionService, services
from datamodel.permission_service.rules import OPERATIONS, Operation, may_matter, parse_group_names, rule_of


@dataclass(frozen=True, slots=True)
class Said:
    """What the services say together; `unknown`: why one that might permit it is not known to."""

    permitted: bool = False
    unknown: str = ""


_NOTHING = Said()


def ask_services(identity: Identity, grant: Grant, uri: str) -> Said:
    """Asked only for what could be permitted; the first that permits ends it."""
    asked = services()
    if not asked or not may_matter(identity, grant, uri):
        return _NOTHING
    operation, unknown = OPERATIONS[grant], ""
    for service in asked:
        answer = service.look(operation, uri)
        if answer.permission is None:
            unknown = unknown or answer.reason
        elif _given(answer, operation, identity, grant, uri) is not None:
            return Said(permitted=True)
    return Said(unknown=unknown)


def explain_services(identity: Identity, grant: Grant, uri: str) -> tuple[bool, list[str]]:
    """The same, with a sentence for each service."""
    if grant not in OPERATIONS or not services():
        return False, []
    if not may_matter(identity, grant, uri):
        return False, ["no permission service was asked: none of its answers could permit this"]
    found = [_told(service, identity, grant, uri) for service in services()]
    return any(permits for permits, _ in found), [sentence for _, sentence in found]


def _told(service: PermissionService, identity: Identity, grant: Grant, uri: str) -> tuple[bool, str]:
    operation = OPERATIONS[grant]
    answer = service.look(operation, uri)
    who = f"the permission service {service.url}"
    if answer.permission is None:
        return False, f"{who} cannot be asked ({answer.reason}) and nothing that it said is good any more: closed"
    given = _given(answer, operation, identity, grant, uri)
    age = {"asked": "asked now", "fresh": f"cached {answer.age:.0f} seconds ago"}.get(
        answer.outcome, f"cached {answer.age:.0f} seconds ago, stale: {answer.reason}"
    )
    return given is not None, f"{who} gives it to {given or 'none of the caller'} ({age})"


def _given(answer: Answer, operation: Operation, identity: Identity, grant: Grant, uri: str) -> str | None:
    if answer.permission is None:
        return None
    names = parse_group_names(settings.INVENTORY_PERMISSION_GROUPS)
    return rule_of(answer.permission, operation, uri, names).gives(grant, identity.principals)
