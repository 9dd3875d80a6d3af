"""Rights, and the pure rules of who has which: grants of namespaces, roles, limits. No Django, no clock, no I/O.

A caller is known by *principals*: `user:alice`, `group:astro`, `token:pipeline`, `issuer:iam`, `dn:CN=…`,
`inventory:alpha` (a paired one, by its name here). Rights come from three
sources that add up: what the credential itself carries (an API token's grants), the roles of its principals, and the grants of
namespaces. Limits of the credential (prefixes of a token, scopes of a JWT) then cut off what is left over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from datamodel.reach import END, EVERYWHERE, NOWHERE, Reach, range_of

ANYBODY_KNOWN = "*"
"""As a principal of a grant: whoever has shown any valid credential."""
_PRINCIPAL = re.compile(
    r"(\*|(user|group|token|issuer|inventory):[^\s,]([^,\n]{0,253}[^\s,])?|dn:[^\s]([^\n]{0,250}[^\s])?)\Z"
)
_CUTS = re.compile(r"[:/]")


class Grant(StrEnum):
    """The rights that a token may hold."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    HARVEST = "harvest"
    OPERATE = "operate"
    AUDIT = "audit"


ALL_GRANTS = frozenset(Grant)
# What a paired inventory may do at the other: harvest, ask what releases and file sync need, verify copies.
PEER_GRANTS = frozenset({Grant.HARVEST, Grant.READ})
# What can be granted for a namespace; the others are about the inventory as a whole.
NAMESPACE_GRANTS = (Grant.READ, Grant.WRITE, Grant.DELETE, Grant.HARVEST)


class Role(StrEnum):
    """What an operator is for."""

    ARCHIVE_OPERATOR = "archive-operator"
    FILE_SYNC_OPERATOR = "file-sync-operator"
    SITE_OPERATOR = "site-operator"
    AUDITOR = "auditor"


ROLE_GRANTS: Mapping[Role, frozenset[Grant]] = {
    Role.ARCHIVE_OPERATOR: ALL_GRANTS,
    Role.FILE_SYNC_OPERATOR: frozenset({Grant.READ}),
    Role.SITE_OPERATOR: frozenset({Grant.READ, Grant.OPERATE}),
    Role.AUDITOR: frozenset({Grant.READ, Grant.AUDIT}),
}


def is_principal(text: str) -> bool:
    """Whether a text names a principal: `user:…`, `group:…`, `token:…`, `issuer:…`, `dn:…`, `inventory:…`, or `*` for anybody known."""
    return _PRINCIPAL.match(text) is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """The grants of one prefix. With `replaces` those of shorter prefixes say nothing below it."""

    prefix: str
    anonymous_read: bool = False
    allowed: Mapping[Grant, frozenset[str]] = field(default_factory=dict)
    replaces: bool = False

    def gives(self, grant: Grant, principals: frozenset[str]) -> str | None:
        """To whom of these it gives the right; None: to none of them. Whoever may write may read."""
        if grant is Grant.READ and self.anonymous_read:
            return "anyone"
        names = self.allowed.get(grant, frozenset())
        if grant is Grant.READ:
            names |= self.allowed.get(Grant.WRITE, frozenset())
        return min(names & principals, default=None)


@dataclass(frozen=True, slots=True)
class Limits:
    """How far each right of a credential may reach at most; a right that is not listed does not reach anywhere."""

    reaches: tuple[tuple[Grant, Reach], ...]
    # Where the credential may create, but not replace.
    creates: Reach = NOWHERE

    @classmethod
    def within(cls, prefixes: Iterable[str]) -> Limits:
        """Every right, but only below these prefixes."""
        reach = Reach.of_prefixes(prefixes)
        return cls(tuple((grant, reach) for grant in Grant))

    def of(self, grant: Grant) -> Reach:
        return next((reach for name, reach in self.reaches if name is grant), NOWHERE)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a decision needs to know of a caller; without principals it is nobody known."""

    principals: frozenset[str] = frozenset()
    grants: frozenset[Grant] = frozenset()
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class AccessTable:
    """All rules by prefix, and all roles by principal, as of one moment."""

    rules: Mapping[str, Rule] = field(default_factory=dict)
    roles: Mapping[str, frozenset[Role]] = field(default_factory=dict)

    def reach(self, identity: Identity, grant: Grant) -> Reach:
        """How far a right of this caller reaches."""
        held = (
            EVERYWHERE if grant in identity.grants or self.role_for(identity, grant) else self._granted(identity, grant)
        )
        return held if identity.limits is None else held & identity.limits.of(grant)

    def role_for(self, identity: Identity, grant: Grant) -> Role | None:
        """A role of the caller that has the right."""
        held = {role for name in identity.principals for role in self.roles.get(name, frozenset())}
        return min((role for role in held if grant in ROLE_GRANTS[role]), default=None)

    def rules_for(self, uri: str) -> list[Rule]:
        """The rules whose prefix the uri has, the longest first: those that count."""
        found = []
        for prefix in prefixes_of(uri):
            rule = self.rules.get(prefix)
            if rule is not None:
                found.append(rule)
                if rule.replaces:
                    break
        return found

    def explain(self, identity: Identity, grant: Grant, uri: str) -> list[str]:
        """Why the right holds for a uri or does not: one sentence for each thing that was looked at, in that order."""
        steps = [
            "the credential itself has the right"
            if grant in identity.grants
            else "the credential itself has not the right"
        ]
        role = self.role_for(identity, grant)
        steps.append(f"the role {role} has the right" if role is not None else "no role of the caller has the right")
        rules = self.rules_for(uri) if grant in NAMESPACE_GRANTS else []
        for rule in rules:
            given = rule.gives(grant, identity.principals)
            end = "; it replaces those of shorter prefixes" if rule.replaces else ""
            steps.append(f"the grant of {rule.prefix or 'everything'} gives it to {given or 'none of the caller'}{end}")
        if not rules:
            steps.append("no grant of a namespace speaks of it")
        if identity.limits is not None:
            within = "reach this far" if uri in identity.limits.of(grant) else "do not reach this far"
            steps.append(f"the limits of the credential {within}")
        return steps

    def _granted(self, identity: Identity, grant: Grant) -> Reach:
        """Between two neighbouring ends of prefixes nothing changes, so each such range is decided at its beginning."""
        if grant not in NAMESPACE_GRANTS or not self.rules:
            return NOWHERE
        ends = sorted({END, *(end for prefix in self.rules for end in range_of(prefix))})
        return Reach.of_ranges(
            (low, high)
            for low, high in pairwise(ends)
            if any(rule.gives(grant, identity.principals) for rule in self.rules_for(low))
        )


def prefixes_of(uri: str) -> Iterator[str]:
    """Every prefix of a uri at which a namespace may end, the longest first; at last the empty one."""
    for end in sorted((match.end() for match in _CUTS.finditer(uri)), reverse=True):
        yield uri[:end]
    yield ""
