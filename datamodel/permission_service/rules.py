"""The answer of a permission service as a rule like any other. No Django, no clock, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from datamodel.grants import Grant, Identity, Rule


class Operation(StrEnum):
    """What a permission service can be asked about."""

    READ = "read"
    WRITE = "write"


# Who may write there may delete: the services that are asked know no third operation.
OPERATIONS: Mapping[Grant, Operation] = {
    Grant.READ: Operation.READ,
    Grant.WRITE: Operation.WRITE,
    Grant.DELETE: Operation.WRITE,
}
_KINDS = {Operation.READ: "ReadGrant", Operation.WRITE: "WriteGrant"}


@dataclass(frozen=True, slots=True)
class Permission:
    """What a service says of one uri and operation; without anybody: nobody may."""

    anyone: bool = False
    groups: frozenset[str] = frozenset()
    expires_at: datetime | None = None

    @property
    def is_for_nobody(self) -> bool:
        return not (self.anyone or self.groups)


def parse_permission(body: bytes, operation: Operation, uri: str) -> Permission:
    """The document `grant`. Raises `ValueError` for what does not answer the question."""
    try:
        root = ElementTree.fromstring(body)
    except (ParseError, DefusedXmlException, LookupError) as error:
        raise ValueError(f"no XML: {error}") from error
    if _name(root) != "grant" or root.get("type") != _KINDS[operation]:
        raise ValueError(f"no {_KINDS[operation]}")
    texts: dict[str, list[str]] = {}
    for element in root.iter():
        texts.setdefault(_name(element), []).append((element.text or "").strip())
    if texts.get("assetID") != [uri]:
        raise ValueError("about something else (assetID)")
    expires = texts.get("expiryDate", [""])[0]
    return Permission(
        anyone=operation is Operation.READ and "anonymousRead" in texts,
        groups=frozenset(texts.get("groupURI", [])) - {""},
        expires_at=_moment(expires) if expires else None,
    )


def parse_group_names(text: str) -> dict[str, str]:
    """`INVENTORY_PERMISSION_GROUPS`: how a group's uri begins → how its name here begins. Raises `ValueError`."""
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise ValueError("it must be a JSON object of texts")
    return found


def rule_of(permission: Permission, operation: Operation, uri: str, names: Mapping[str, str]) -> Rule:
    """The same as a grant of this uri alone."""
    groups = frozenset(f"group:{_group(group, names)}" for group in permission.groups)
    grants = [grant for grant, asked in OPERATIONS.items() if asked is operation]
    return Rule(uri, anonymous_read=permission.anyone, allowed=dict.fromkeys(grants, groups))


def may_matter(identity: Identity, grant: Grant, uri: str) -> bool:
    """Whether any answer could permit it: only known callers write, and limits of a credential stay."""
    if grant not in OPERATIONS or (grant is not Grant.READ and not identity.principals):
        return False
    return identity.limits is None or uri in identity.limits.of(grant)


def _group(uri: str, names: Mapping[str, str]) -> str:
    """By the longest beginning that is named; without one the uri is the name."""
    begins = [begin for begin in names if uri.startswith(begin)]
    if not begins:
        return uri
    longest = max(begins, key=len)
    return f"{names[longest]}{uri.removeprefix(longest)}"


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _moment(text: str) -> datetime:
    """IVOA's form has no zone: UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
