"""Sets of public keys as inventories publish them (RFC 7517, 8037)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

_PUBLIC_KEY_BYTES = 32


def parse_key_set(document: Any) -> dict[str, bytes]:
    """Key id → raw Ed25519 public key; other kinds are left out. Raises `ValueError`."""
    try:
        keys = [key for key in document["keys"] if (key.get("kty"), key.get("crv")) == ("OKP", "Ed25519")]
        found = {str(key["kid"]): _unpack(key["x"]) for key in keys}
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise ValueError("it is not a JSON key set") from None
    if any(len(key) != _PUBLIC_KEY_BYTES for key in found.values()):
        raise ValueError(f"an Ed25519 key is not {_PUBLIC_KEY_BYTES} bytes long")
    return found


def _unpack(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
