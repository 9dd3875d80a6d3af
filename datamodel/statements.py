"""Signed statements of this inventory: JWS in compact form (RFC 7515) with EdDSA (RFC 8037), verified by `/pubkey`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from datamodel.preauth import SigningKey


def signed_statement(key: SigningKey, claims: Mapping[str, object], *, kind: str) -> str:
    """`claims` (JSON values) as one text that anybody can verify; `kind` says what it is a statement of."""
    header = {"alg": "EdDSA", "kid": key.key_id, "typ": kind}
    message = f"{_packed(_json(header))}.{_packed(_json(claims))}"
    return f"{message}.{_packed(key.private.sign(message.encode()))}"


def verified_claims(statement: str, public_key: bytes) -> dict[str, Any]:
    """What a statement says, if the owner of this key has signed it. Raises `ValueError`."""
    message, _, signature = statement.rpartition(".")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(_unpacked(signature), message.encode())
    except InvalidSignature:
        raise ValueError("the signature is not of this key") from None
    claims = json.loads(_unpacked(message.partition(".")[2]))
    if not isinstance(claims, dict):
        raise ValueError("the statement says nothing")  # noqa: TRY004  # what is signed is the caller's value, not its type
    return claims


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpacked(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
