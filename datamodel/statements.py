"""Signed statements of this inventory: JWS in compact form (RFC 7515) with EdDSA (RFC 8037), verified by `/pubkey`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from datamodel.preauth import SigningKey


def signed_statement(key: SigningKey, claims: Mapping[str, object], *, kind: str) -> str:
    """`claims` (JSON values) as one text that anybody can verify; `kind` says what it is a statement of."""
    header = {"alg": "EdDSA", "kid": key.key_id, "typ": kind}
    message = f"{_packed(_json(header))}.{_packed(_json(claims))}"
    return f"{message}.{_packed(key.private.sign(message.encode()))}"


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
