"""Why somebody may, or may not, do something: for those who answer such questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypedDict

from django.contrib.auth import get_user_model

from datamodel import access, auth, keys, service_tokens, tokens
from datamodel.errors import InvalidRequestError
from datamodel.grants import NAMESPACE_GRANTS, AccessTable, Grant, Identity, is_principal
from datamodel.models import ApiToken
from datamodel.permission_service.decisions import explain_services
from datamodel.permissions import ANONYMOUS, known
from datamodel.reach import Reach
from datamodel.uris import ArtifactUri

# Who may ask.
ASKED_BY = (Grant.AUDIT, Grant.OPERATE)
# So much of a reach is told.
_TOLD = 50


class Explained(TypedDict):
    """A verdict with its reasons."""

    caller: list[str]
    operation: str
    uri: str
    permitted: bool
    because: list[str]


def explain(*, names: Sequence[str], grant: Grant, uri: ArtifactUri) -> Explained:
    """The verdict and what led to it, from the tables as they are now. `names`: principals of one caller, or `anonymous`.

    Permission services are asked where they would be. A token brings its own rights and limits, a user of the admin its groups. Raises `InvalidRequestError`.
    """
    table, identity = access.load_table(), _identity(names)
    because = table.explain(identity, grant, uri.value)
    permitted = uri.value in table.reach(identity, grant)
    if not permitted:
        permitted, told = explain_services(identity, grant, uri.value)
        because += told
    return {
        "caller": sorted(identity.principals) or [ANONYMOUS],
        "operation": grant.value,
        "uri": uri.value,
        "permitted": permitted,
        "because": because,
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one right of somebody reaches, and from where it is."""

    grant: Grant
    reaches: list[str]
    sources: list[str]


def standings_of(token: ApiToken, *, now: datetime) -> list[Standing]:
    """What a token may do at all, right by right; one that is revoked or has expired may nothing."""
    if tokens.why_over(token, now=now):
        return []
    table, identity = access.load_table(), tokens.caller_of(token).caller.identity
    prefixes = {*table.rules, *token.prefixes}
    return [
        Standing(grant, _places(table.reach(identity, grant), prefixes), _sources(table, identity, grant))
        for grant in Grant
    ]


def _places(reach: Reach, prefixes: set[str]) -> list[str]:
    """What is reached, in words of the prefixes at whose ends that changes: those that differ from what they lie in."""
    is_in, told = {"": "" in reach}, ["everything"] if "" in reach else []
    for prefix in sorted(prefixes - {""}):
        around = next(found for found in sorted(is_in, key=len, reverse=True) if prefix.startswith(found))
        is_in[prefix] = prefix in reach
        if is_in[prefix] != is_in[around]:
            told.append(prefix if is_in[prefix] else f"except {prefix}")
    return told if len(told) <= _TOLD else [*told[:_TOLD], f"and {len(told) - _TOLD} more"]


def _sources(table: AccessTable, identity: Identity, grant: Grant) -> list[str]:
    found = ["the token itself"] if grant in identity.grants else []
    role = table.role_for(identity, grant)
    found += [f"the role {role}"] if role is not None else []
    if grant in NAMESPACE_GRANTS:
        given = [(rule, rule.gives(grant, identity.principals)) for _, rule in sorted(table.rules.items())]
        told = [f"the grant of {rule.prefix or 'everything'} to {name}" for rule, name in given if name is not None]
        found += told if len(told) <= _TOLD else [*told[:_TOLD], f"and {len(told) - _TOLD} more"]
    return found


def _identity(names: Sequence[str]) -> Identity:
    if list(names) == [ANONYMOUS]:
        return Identity()
    names = [access.canonical_principal(name) for name in names]
    if not names or not all(is_principal(name) for name in names):
        raise InvalidRequestError(
            "caller must be anonymous, or user:NAME, group:NAME, token:NAME, issuer:NAME, dn:DN, inventory:NAME (repeatable)"
        )
    parts = [_alone(name) for name in names]
    limits = [part.limits for part in parts if part.limits is not None]
    grants = frozenset(grant for part in parts for grant in part.grants)
    principals = frozenset(name for part in parts for name in part.principals)
    return Identity(principals, grants, limits[0] if limits else None)


def _alone(name: str) -> Identity:
    kind, _, word = name.partition(":")
    if kind == "token":
        token = ApiToken.objects.filter(name=word).first()
        over = tokens.why_over(token, now=datetime.now(UTC)) if token is not None else ""
        if token is None or over:
            raise InvalidRequestError(f"the token {word} {over}" if over else f"there is no token {word}")
        return tokens.caller_of(token).caller.identity
    if kind == "inventory":
        peer = next((peer for peer in keys.load_trust().peers.values() if peer.name == word), None)
        if peer is None:
            raise InvalidRequestError(f"there is no paired inventory {word}")
        return service_tokens.caller_of_peer(peer).identity
    user = get_user_model().objects.filter(username=word, is_active=True).first() if kind == "user" else None
    return auth.caller_of_user(user).identity if user is not None else Identity(known([name]))
