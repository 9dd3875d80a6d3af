"""Signed statements: JWS in compact form (RFC 7515) with Ed25519 (RFC 8037, 9864), made here and verified wherever they come from.

The header's `typ` says what a statement is of: one of another kind is never taken for it, whoever signed it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from datamodel.keysets import verification_key
from datamodel.preauth import SigningKey

Claims = Mapping[str, Any]
# What inventories tell each other names its algorithm fully; what anybody may verify keeps the older name.
BETWEEN_INVENTORIES = "Ed25519"
_FOR_ANYBODY = "EdDSA"


class UnbelievableStatementError(ValueError):
    """Why a statement is not believed, in words for whoever showed it."""


def signed_statement(key: SigningKey, claims: Mapping[str, object], *, kind: str, algorithm: str = _FOR_ANYBODY) -> str:
    """`claims` (JSON values) as one text that anybody can verify; `kind` says what it is a statement of."""
    header = {"alg": algorithm, "kid": key.key_id, "typ": kind}
    message = f"{_packed(_json(header))}.{_packed(_json(claims))}"
    return f"{message}.{_packed(key.private.sign(message.encode()))}"


def unverified(text: str) -> tuple[Claims, Claims]:
    """Header and claims as they are written, whoever wrote them. Raises `UnbelievableStatementError`."""
    try:
        header, claims, _ = text.split(".")
        return _read(header), _read(claims)
    except (ValueError, RecursionError):
        raise UnbelievableStatementError("it is not a JWS in compact form") from None


def verified(text: str, keys: Mapping[str, bytes], *, kind: str) -> Claims:
    """The claims of a statement of this kind between inventories, signed by the one of these keys (by id) that it names.

    Raises `UnbelievableStatementError`.
    """
    header, _ = unverified(text)
    if header.get("typ") != kind:
        raise UnbelievableStatementError(f"it is not a {kind}")
    raw = keys.get(str(header.get("kid")))
    if raw is None:
        raise UnbelievableStatementError("it is signed by a key that is not trusted")
    try:
        return dict(jwt.decode(text, verification_key(raw), algorithms=[BETWEEN_INVENTORIES]).claims)
    except (JoseError, ValueError):
        raise UnbelievableStatementError("its signature is not good") from None


def _read(part: str) -> Claims:
    found = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    if not isinstance(found, dict):
        raise UnbelievableStatementError("its parts are not JSON objects")
    return found


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
