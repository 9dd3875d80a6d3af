"""The door of `manage.py provision`: the first policy of a new site comes from its environment."""

from __future__ import annotations

import json

from django.conf import settings

from datamodel.errors import InvalidUriError, NotConfiguredError
from datamodel.uris import Namespace
from site_service.policy.operations import apply_first_policy
from site_service.policy.rules import Rule


def apply_configured_policy() -> None:
    """INVENTORY_SYNC_POLICY becomes the policy if there is none. Raises `NotConfiguredError` when it makes no sense."""
    apply_first_policy(rules=configured_rules(settings.INVENTORY_SYNC_POLICY))


def configured_rules(text: str) -> list[Rule]:
    """From a JSON list of {namespace, wanted (default true), priority (default 0)}. Raises `NotConfiguredError`."""
    try:
        entries = json.loads(text)
        rules = [_rule(**entry) for entry in entries]
    except (ValueError, TypeError, InvalidUriError) as error:
        raise NotConfiguredError(
            f'INVENTORY_SYNC_POLICY must be a JSON list like [{{"namespace": "cadc:", "wanted": true}}]: {error}'
        ) from error
    if len({rule.namespace for rule in rules}) < len(rules):
        raise NotConfiguredError("INVENTORY_SYNC_POLICY names a namespace twice")
    return rules


def _rule(*, namespace: str, wanted: bool = True, priority: int = 0) -> Rule:
    if not isinstance(wanted, bool) or not isinstance(priority, int):
        raise TypeError(f"wanted is true or false and priority a whole number in the rule of {namespace}")
    return Rule(Namespace.parse(namespace), wanted, priority)
