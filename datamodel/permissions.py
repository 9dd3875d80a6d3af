"""What a caller may do: the one decision point of every door. The rules are in `grants.py`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from datamodel import access
from datamodel.errors import (
    ArtifactNotFoundError,
    InventoryError,
    NotAuthenticatedError,
    NotPermittedError,
    PermissionUnknownError,
)
from datamodel.grants import ALL_GRANTS, ANYBODY_KNOWN, Grant, Identity, Limits
from datamodel.permission_service.decisions import ask_services
from datamodel.preauth import TransferClaims
from datamodel.reach import Reach
from datamodel.uris import ArtifactUri, Namespace

__all__ = [
    "ALL_GRANTS",
    "ANONYMOUS",
    "Caller",
    "Grant",
    "grant_for",
    "grants_of",
    "known",
    "may",
    "may_any",
    "may_create",
    "may_do_everything",
    "missing",
    "reach",
    "require",
    "require_any",
    "require_everything",
    "require_somewhere",
    "require_speaker",
    "speaks_for",
]

ANONYMOUS = "anonymous"
_METHOD_GRANTS = {"PUT": Grant.WRITE, "POST": Grant.WRITE, "PATCH": Grant.WRITE, "DELETE": Grant.DELETE}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling and how that is known; `claims` are those of a signed URL.

    `grants` are what the credential itself carries, `principals` what rules and roles know the caller by, `limits` cut both off.
    Whether something is permitted is for the functions below to say.
    """

    name: str
    method: str
    grants: frozenset[Grant]
    claims: TransferClaims | None = None
    principals: frozenset[str] = frozenset()
    limits: Limits | None = None
    # The inventory that it is, known by its keys: what it says of itself is believed.
    inventory_id: uuid.UUID | None = None

    @property
    def is_anonymous(self) -> bool:
        return self.method == ANONYMOUS

    @property
    def known_id(self) -> uuid.UUID | None:
        return self.claims.known_id if self.claims else None

    @property
    def known_at(self) -> datetime | None:
        return self.claims.known_at if self.claims else None

    @property
    def identity(self) -> Identity:
        return Identity(self.principals, self.grants, self.limits)


def known(principals: Iterable[str]) -> frozenset[str]:
    """The principals of a caller with credentials."""
    return frozenset({ANYBODY_KNOWN, *principals})


def grant_for(http_method: str) -> Grant:
    """The grant that a request of this method on a file needs."""
    return _METHOD_GRANTS.get(http_method, Grant.READ)


def grants_of(claims: TransferClaims) -> frozenset[Grant]:
    """The rights that a signed URL carries."""
    return frozenset(grant_for(method) for method in claims.methods.http if method != "OPTIONS")


def reach(caller: Caller, grant: Grant) -> Reach:
    """The URIs for which the caller has the right: what listings and feeds are filtered by."""
    return access.reach_of(caller.identity, grant)


def may(caller: Caller, grant: Grant, within: ArtifactUri | Namespace | None = None) -> bool:
    """Whether the caller has the right for a uri or all of a namespace; without one: for everything.

    For a uri that no local grant permits, permission services are asked if there are any.
    """
    found = reach(caller, grant)
    if isinstance(within, ArtifactUri):
        return within.value in found or ask_services(caller.identity, grant, within.value).permitted
    return found.is_everything if within is None else found.covers(within.value)


def may_create(caller: Caller, uri: ArtifactUri) -> bool:
    """Whether a credential that may not replace may create this: a right to write that is limited to what is not there."""
    if caller.limits is None or uri.value not in caller.limits.creates:
        return False
    unlimited = Identity(caller.principals, caller.grants)
    return (
        uri.value in access.reach_of(unlimited, Grant.WRITE)
        or ask_services(unlimited, Grant.WRITE, uri.value).permitted
    )


def require(caller: Caller, grant: Grant, within: ArtifactUri | Namespace | None = None) -> None:
    """Unless granted (as `may` says) raises `NotPermittedError`, or for anonymous callers `NotAuthenticatedError`.

    An anonymous caller who may read something is told of whatever else that it does not exist: `ArtifactNotFoundError`.
    Nobody learns from the answer whether there is such an artifact: it is given before anyone looks. `PermissionUnknownError` if
    a permission service that might permit it cannot be asked.
    """
    if isinstance(within, ArtifactUri):
        if within.value in reach(caller, grant):
            return
        said = ask_services(caller.identity, grant, within.value)
        if said.permitted:
            return
        if said.unknown:
            raise PermissionUnknownError(f"{within} is refused, because the permission service cannot be asked now")
    elif may(caller, grant, within):
        return
    raise _refusal(caller, [grant], within)


def may_do_everything(caller: Caller) -> bool:
    """Whether there is no right that the caller lacks anywhere."""
    return all(may(caller, grant) for grant in Grant)


def require_everything(caller: Caller) -> None:
    """All rights there are. Raises as `require` does."""
    for grant in Grant:
        require(caller, grant)


def speaks_for(caller: Caller, inventory_id: uuid.UUID) -> bool:
    """Whether what the caller says of an inventory is that inventory's word: its own, or of somebody who may do everything."""
    return caller.inventory_id == inventory_id or (caller.inventory_id is None and may_do_everything(caller))


def require_speaker(caller: Caller, inventory_id: uuid.UUID) -> None:
    """Raises `NotPermittedError` unless the caller speaks for that inventory."""
    if not speaks_for(caller, inventory_id):
        raise NotPermittedError(
            f"{caller.name} does not speak for the inventory {inventory_id}: pair the two, so that it calls in its own name"
        )


def require_any(caller: Caller, grants: Iterable[Grant]) -> None:
    """At least one of the grants, for everything; an anonymous caller never passes. Raises as `require` does."""
    wanted = list(grants)
    if not may_any(caller, wanted):
        raise _refusal(caller, wanted, None)


def may_any(caller: Caller, grants: Iterable[Grant]) -> bool:
    """Whether the caller has one of the rights for everything; nobody unknown has."""
    return not caller.is_anonymous and any(may(caller, grant) for grant in grants)


def require_somewhere(caller: Caller, grant: Grant) -> None:
    """The grant for anything at all: what the door then shows is filtered by `reach`. Raises as `require` does."""
    if not reach(caller, grant):
        raise _refusal(caller, [grant], None)


def missing(uri: ArtifactUri) -> ArtifactNotFoundError:
    """What is said of an artifact that is not there, and of one that an anonymous caller may not read."""
    return ArtifactNotFoundError(f"no artifact {uri}")


def _refusal(caller: Caller, grants: list[Grant], within: ArtifactUri | Namespace | None) -> InventoryError:
    words = "the grant " + " or ".join(repr(grant.value) for grant in grants)
    if not caller.is_anonymous:
        return NotPermittedError(f"{caller.name} lacks {words}" + (f" for {within}" if within is not None else ""))
    if grants == [Grant.READ] and isinstance(within, ArtifactUri) and reach(caller, Grant.READ):
        return missing(within)
    return NotAuthenticatedError(f"this needs {words}: send a bearer token or a signed URL")
