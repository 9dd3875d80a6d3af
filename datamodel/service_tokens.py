"""Who an inventory is to another: short-lived JWTs, signed with its own key, for one peer. And the one rule of how we call a remote.

`iss` and `aud` are the ids of the two inventories, the header names the key and, as `typ`, what this is: a statement of another kind
never passes for it, nor it for another issuer's token. What is signed is remembered until shortly before it expires, what is
trusted (`keys.py`) until somebody tells of a change: neither costs a query per request.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from django.conf import settings
from django.db import connection

from datamodel import keys
from datamodel.errors import NotAuthenticatedError, NotConfiguredError
from datamodel.grants import PEER_GRANTS
from datamodel.models import RemoteInventory
from datamodel.permissions import Caller, known
from datamodel.scopes import UnbelievableClaimsError, judge_service
from datamodel.sealing import unseal
from datamodel.statements import (
    BETWEEN_INVENTORIES,
    UnbelievableStatementError,
    signed_statement,
    unverified,
    verified,
)

KIND = "storage-inventory-service+jwt"
METHOD = "service"
SECONDS = 300
# Whoever is given one has so long to show it.
_RENEWED_BEFORE_SECONDS = 60


def is_service_token(token: str) -> bool:
    """Whether it says so itself; it is then believed as that, or not at all."""
    if token.count(".") != 2 or not token.startswith("ey"):
        return False
    try:
        header, _ = unverified(token)
    except UnbelievableStatementError:
        return False
    return header.get("typ") == KIND


def caller_of(token: str) -> Caller:
    """The paired inventory that signed it. Raises `NotAuthenticatedError` with the reason."""
    try:
        header, claims = unverified(token)
        peer = keys.trust_cache.peer(uuid.UUID(str(claims.get("iss"))), str(header.get("kid")))
        if peer is None:
            raise UnbelievableStatementError("its issuer is no inventory that this one is paired with")
        believed = verified(token, peer.keys, kind=KIND)
        leeway = settings.INVENTORY_OIDC_LEEWAY_SECONDS
        judge_service(
            believed,
            issuer=str(peer.inventory_id),
            audience=str(keys.trust_cache.own_id()),
            now=time.time(),
            leeway=leeway,
            longest=SECONDS,
        )
    except (UnbelievableClaimsError, UnbelievableStatementError) as error:
        raise NotAuthenticatedError(f"the service token is not believed: {error}") from None
    except ValueError:
        raise NotAuthenticatedError("the service token is not believed: its issuer is no inventory") from None
    return caller_of_peer(peer)


def caller_of_peer(peer: keys.Peer) -> Caller:
    """A paired inventory as a caller: known as `inventory:NAME`, to whom more can be granted."""
    name = f"inventory:{peer.name}"
    return Caller(name, METHOD, PEER_GRANTS, principals=known([name]), inventory_id=peer.inventory_id)


@dataclass(frozen=True, slots=True)
class Credential:
    """How we identify ourselves to a remote: as ourselves to one that we are paired with, else by the token that it gave us."""

    peer_id: uuid.UUID | None = None
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, remote: RemoteInventory) -> Self:
        """Raises `NotConfiguredError` when its token cannot be unsealed."""
        if remote.paired_at is not None:
            return cls(peer_id=remote.inventory_id)
        return cls(token=unseal(remote.token).decode() if remote.token else "")

    @property
    def headers(self) -> dict[str, str]:
        """For a request that is sent now. Raises `NotConfiguredError` before `manage.py provision` has run."""
        token = self.token if self.peer_id is None else _signed.get(self.peer_id)
        return {"Authorization": f"Bearer {token}"} if token else {}


class _SignedTokens:
    """The tokens of this process by peer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[uuid.UUID, tuple[str, float]] = {}

    def get(self, peer_id: uuid.UUID) -> str:
        with self._lock:
            token, until = self._tokens.get(peer_id, ("", float("-inf")))
            if time.monotonic() > until:
                token = _sign(peer_id)
                self._tokens[peer_id] = (token, time.monotonic() + SECONDS - _RENEWED_BEFORE_SECONDS)
            return token

    def clear(self) -> None:
        with self._lock:
            self._tokens.clear()


def _sign(peer_id: uuid.UUID) -> str:
    """Leaves the database connection as it was: who is about to wait for a remote holds none."""
    was_open = connection.connection is not None
    try:
        own_id, key = keys.own_id(), keys.signing_key_cache.get()
    finally:
        if not was_open:
            connection.close()
    if own_id is None:
        raise NotConfiguredError("this inventory has no identity yet: run manage.py provision")
    now = int(datetime.now(UTC).timestamp())
    claims = {"iss": str(own_id), "aud": str(peer_id), "iat": now, "exp": now + SECONDS}
    return signed_statement(key, claims, kind=KIND, algorithm=BETWEEN_INVENTORIES)


def clear() -> None:
    """Sign anew."""
    _signed.clear()


_signed = _SignedTokens()
