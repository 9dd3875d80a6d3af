"""What an inventory signs its published keys with: so a paired one learns of new keys from those that it trusts already.

Each key that signs now makes a statement about the whole answer of `/pubkey`, as one header: whoever was away for a rotation still
trusts the older one.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from django.conf import settings

from datamodel import keys
from datamodel.scopes import UnbelievableClaimsError, judge_service
from datamodel.statements import (
    BETWEEN_INVENTORIES,
    UnbelievableStatementError,
    signed_statement,
    verified,
)

HEADER = "X-Inventory-Keys-Statement"
KIND = "storage-inventory-keys+jwt"
_SECONDS = 300


def statements(document: bytes) -> str:
    """The header's value for an answer; "" before `manage.py provision` has run."""
    own_id, now = keys.trust_cache.own_id(), datetime.now(UTC)
    if own_id is None:
        return ""
    made = int(now.timestamp())
    claims = {"iss": str(own_id), "aud": _digest(document), "iat": made, "exp": made + _SECONDS}
    signed = (
        signed_statement(key, claims, kind=KIND, algorithm=BETWEEN_INVENTORIES)
        for key in keys.valid_signing_keys(now=now)
    )
    return ", ".join(signed)


def verify(value: str, document: bytes, *, inventory_id: uuid.UUID, trusted: Mapping[str, bytes]) -> None:
    """That one of the trusted keys of this inventory stands behind an answer, now. Raises `UnbelievableStatementError`."""
    complaint = "its answer is not signed"
    for text in filter(None, value.split(", ")):
        try:
            claims = verified(text, trusted, kind=KIND)
            judge_service(
                claims,
                issuer=str(inventory_id),
                audience=_digest(document),
                now=time.time(),
                leeway=settings.INVENTORY_OIDC_LEEWAY_SECONDS,
                longest=_SECONDS,
            )
        except (UnbelievableStatementError, UnbelievableClaimsError) as error:
            complaint = str(error)
        else:
            return
    raise UnbelievableStatementError(complaint)


def _digest(document: bytes) -> str:
    return f"sha-256:{hashlib.sha256(document).hexdigest()}"
