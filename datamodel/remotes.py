"""The other inventories that this one knows, as an operator or the environment names them."""

from __future__ import annotations

import uuid
from datetime import datetime
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import QuerySet

from datamodel import sealing
from datamodel.errors import InvalidRequestError, StateConflictError
from datamodel.models import HarvestConflict, HarvestRejection, HarvestState, RemoteInventory

# Its name on the wire.
_SITES_STREAM = "sites"


def save_remote(*, name: str, role: str, url: str, token: str | None, enabled: bool | None = None) -> RemoteInventory:
    """Make or change the remote of this name; None keeps what it has. A repeat changes nothing.

    A changed URL may name another inventory: what was learnt of the old one (its id, its site) is forgotten, and the next
    contact learns anew, for which a site's description of itself is read again. A paired one stays the one that it is, wherever it moves.
    Raises `InvalidRequestError` for a role or URL that cannot be, `StateConflictError` for what only a pairing may change.
    """
    address = checked_url(url)
    if role not in RemoteInventory.Role.values:
        raise InvalidRequestError(f"the role must be site or global; it is {role!r}")
    values: dict[str, object] = {"role": role, "url": address}
    if token is not None:
        values["token"] = sealing.seal(token.encode())
    if enabled is not None:
        values["enabled"] = enabled
    with transaction.atomic():
        known = RemoteInventory.objects.select_for_update().filter(name=name).first()
        if known is not None:
            refuse_against_pairing(known, role=role, enabled=enabled)
        if known is not None and known.url != address and known.paired_at is None:
            values |= {"inventory_id": None, "site": None}
            rewind(states=HarvestState.objects.filter(remote=known, name=_SITES_STREAM))
        remote, _ = RemoteInventory.objects.update_or_create(name=name, defaults=values)
    return remote


def refuse_against_pairing(known: RemoteInventory, *, role: str, enabled: bool | None) -> None:
    """Raises `StateConflictError` for a change that only a pairing, or its end, may make."""
    if known.paired_at is not None and role != known.role:
        raise StateConflictError(f"{known.name} was paired as a {known.role}: revoke it before it becomes a {role}")
    if known.revoked_at is not None and enabled:
        raise StateConflictError(f"{known.name} was revoked: only a new pairing opens it again")


def rewind(*, states: QuerySet[HarvestState]) -> int:
    """Let these streams be harvested from the start; returns how many. Nothing is lost: rows that are known change nothing."""
    return states.update(epoch="", cur_txid=0, cur_id=uuid.UUID(int=0), is_complete=False)


def mark_seen(*, found: QuerySet[HarvestConflict] | QuerySet[HarvestRejection], now: datetime) -> int:
    """An operator has seen these; returns how many were new."""
    return found.filter(seen_at__isnull=True).update(seen_at=now)


def checked_url(url: str) -> str:
    """Its base URL without a slash at the end. Raises `InvalidRequestError`."""
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise InvalidRequestError(f"{url!r} is not a base URL: write it as https://host/path")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequestError("the URL must not hold credentials: give the token for itself")
    return url.strip().rstrip("/")
