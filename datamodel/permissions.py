"""What a caller may do: the one decision point of every door."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from datamodel.errors import NotAuthenticatedError, NotPermittedError
from datamodel.preauth import TransferClaims

ANONYMOUS = "anonymous"


class Grant(StrEnum):
    """The rights that a token may hold."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    HARVEST = "harvest"
    OPERATE = "operate"


ALL_GRANTS = frozenset(Grant)
_METHOD_GRANTS = {"PUT": Grant.WRITE, "POST": Grant.WRITE, "PATCH": Grant.WRITE, "DELETE": Grant.DELETE}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling and how that is known; `claims` are those of a signed URL."""

    name: str
    method: str
    grants: frozenset[Grant]
    claims: TransferClaims | None = None

    @property
    def is_anonymous(self) -> bool:
        return self.method == ANONYMOUS

    @property
    def known_id(self) -> uuid.UUID | None:
        return self.claims.known_id if self.claims else None

    @property
    def known_at(self) -> datetime | None:
        return self.claims.known_at if self.claims else None


def grant_for(http_method: str) -> Grant:
    """The grant that a request of this method on a file needs."""
    return _METHOD_GRANTS.get(http_method, Grant.READ)


def grants_of(claims: TransferClaims) -> frozenset[Grant]:
    """The rights that a signed URL carries."""
    return frozenset(grant_for(method) for method in claims.methods.http)


def require_any(caller: Caller, grants: Iterable[Grant]) -> None:
    """At least one of the grants; an anonymous caller never passes. Raises as `require` does."""
    wanted = list(grants)
    if caller.is_anonymous or not caller.grants.intersection(wanted):
        words = " or ".join(repr(grant.value) for grant in wanted)
        if caller.is_anonymous:
            raise NotAuthenticatedError(f"this needs the grant {words}: send a bearer token")
        raise NotPermittedError(f"{caller.name} lacks the grant {words}")


def require(caller: Caller, grant: Grant) -> None:
    """Raises `NotAuthenticatedError` for anonymous callers, `NotPermittedError` for others, unless granted."""
    if grant in caller.grants:
        return
    if caller.is_anonymous:
        raise NotAuthenticatedError(f"this needs the grant {grant.value!r}: send a bearer token or a signed URL")
    raise NotPermittedError(f"{caller.name} lacks the grant {grant.value!r}")
