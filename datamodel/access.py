"""Grants and roles as tables: changed here, and remembered by each process so that a decision costs no query.

A change is heard at once by every process (`notify.py`); without its listener what is remembered lives five seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction

from datamodel.distinguished_names import canonical_dn
from datamodel.errors import InvalidRequestError
from datamodel.grants import NAMESPACE_GRANTS, AccessTable, Grant, Identity, Role, Rule, is_principal
from datamodel.models import NamespaceGrant, RoleAssignment
from datamodel.notify import Freshness
from datamodel.reach import Reach
from datamodel.rows import database_now
from datamodel.uris import Namespace

# Decisions are remembered per caller; this many callers, then anew.
_REMEMBERED = 4096
_COLUMNS = {
    Grant.READ: "readers",
    Grant.WRITE: "writers",
    Grant.DELETE: "deleters",
    Grant.HARVEST: "harvesters",
}


def save_grant(
    *,
    prefix: str,
    anonymous_read: bool = False,
    allowed: Mapping[Grant, Iterable[str]] | None = None,
    replaces: bool = False,
    note: str = "",
) -> NamespaceGrant:
    """Set what a namespace (or "", everything) is open to; a repeat changes nothing.

    Raises `InvalidUriError`, `InvalidRequestError` for what is no principal.
    """
    given = allowed or {}
    values = {_COLUMNS[grant]: principals(given.get(grant, ())) for grant in NAMESPACE_GRANTS}
    row, _ = NamespaceGrant.objects.update_or_create(
        prefix=canonical_prefix(prefix),
        defaults={
            **values,
            "anonymous_read": anonymous_read,
            "replaces": replaces,
            "note": note,
            "changed_at": database_now(),
        },
    )
    transaction.on_commit(forget)
    return row


def remove_grant(*, prefix: str) -> bool:
    """Whether there was one."""
    count, _ = NamespaceGrant.objects.filter(prefix=canonical_prefix(prefix)).delete()
    transaction.on_commit(forget)
    return count > 0


def assign_role(*, principal: str, role: Role, note: str = "") -> RoleAssignment:
    """Make a principal an operator; a repeat changes the note only. Raises `InvalidRequestError`."""
    name = principals([principal])[0]
    row, _ = RoleAssignment.objects.update_or_create(
        principal=name, role=role.value, defaults={"note": note, "changed_at": database_now()}
    )
    transaction.on_commit(forget)
    return row


def withdraw_role(*, principal: str, role: Role) -> bool:
    """Whether it was assigned."""
    name = canonical_principal(principal)
    count, _ = RoleAssignment.objects.filter(principal=name, role=role.value).delete()
    transaction.on_commit(forget)
    return count > 0


def canonical_prefix(text: str) -> str:
    """A namespace in canonical form, or "" for everything. Raises `InvalidUriError`."""
    return Namespace.parse(text.strip()).value if text.strip() else ""


def principals(names: Iterable[str]) -> list[str]:
    """Each once, in order, certificates' names in one form. Raises `InvalidRequestError` for what names nobody."""
    found = sorted({canonical_principal(name.strip()) for name in names} - {""})
    wrong = [name for name in found if not is_principal(name)]
    if wrong:
        raise InvalidRequestError(
            f"{wrong[0]!r} names nobody: write user:NAME, group:NAME, token:NAME, issuer:NAME, dn:DN, inventory:NAME, or * for anybody known"
        )
    return found


def canonical_principal(name: str) -> str:
    """Raises `InvalidRequestError` for a `dn:` without a distinguished name."""
    return f"dn:{canonical_dn(name.removeprefix('dn:'))}" if name.startswith("dn:") else name


def load_table() -> AccessTable:
    """All grants and roles as they are now; the setting for anonymous callers is a grant of everything."""
    rules = {row.prefix: _rule(row) for row in NamespaceGrant.objects.all()}
    if settings.INVENTORY_ANONYMOUS_READ:
        whole = rules.get("", Rule(""))
        rules[""] = Rule("", anonymous_read=True, allowed=whole.allowed, replaces=whole.replaces)
    roles: dict[str, frozenset[Role]] = {}
    for principal, role in RoleAssignment.objects.values_list("principal", "role"):
        roles[principal] = roles.get(principal, frozenset()) | {Role(role)}
    return AccessTable(rules, roles)


def _rule(row: NamespaceGrant) -> Rule:
    allowed = {grant: frozenset(getattr(row, column)) for grant, column in _COLUMNS.items()}
    return Rule(row.prefix, row.anonymous_read, allowed, row.replaces)


@dataclass(frozen=True, slots=True)
class _Remembered:
    table: AccessTable
    freshness: Freshness
    anonymous_read: bool
    reaches: dict[tuple[Identity, Grant], Reach] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        return self.anonymous_read == settings.INVENTORY_ANONYMOUS_READ and self.freshness.is_good


class _Memory:
    """What this process knows of grants and roles, and the decisions made of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._remembered: _Remembered | None = None

    def get(self) -> _Remembered:
        found = self._remembered
        if found is not None and found.is_good:
            return found
        with self._lock:
            found = self._remembered
            if found is None or not found.is_good:
                freshness = Freshness.now()
                found = _Remembered(load_table(), freshness, settings.INVENTORY_ANONYMOUS_READ)
                self._remembered = found
            return found

    def clear(self) -> None:
        self._remembered = None


_memory = _Memory()


def current_table() -> AccessTable:
    """Grants and roles, from memory if that may be believed."""
    return _memory.get().table


def reach_of(identity: Identity, grant: Grant) -> Reach:
    """How far a right of this caller reaches now."""
    remembered = _memory.get()
    reach = remembered.reaches.get((identity, grant))
    if reach is None:
        reach = remembered.table.reach(identity, grant)
        if len(remembered.reaches) >= _REMEMBERED:
            remembered.reaches.clear()
        remembered.reaches[identity, grant] = reach
    return reach


def forget() -> None:
    """Ask the tables next time."""
    _memory.clear()
