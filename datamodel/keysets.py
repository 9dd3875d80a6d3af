"""Sets of public keys as inventories publish them (RFC 7517, 8037), and the thumbprint of one (RFC 7638)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.jwk import OKPKey

_PUBLIC_KEY_BYTES = 32
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
# Two during a rotation; what names more is no set of ours.
_MOST_KEYS = 32


def key_set(keys: Mapping[str, bytes]) -> dict[str, list[dict[str, str]]]:
    """The JSON key set of raw Ed25519 public keys by key id."""
    rest = {"use": "sig", "alg": "EdDSA"}
    return {"keys": [{**_required(raw), "kid": key_id, **rest} for key_id, raw in sorted(keys.items())]}


def parse_key_set(document: Any) -> dict[str, bytes]:
    """Key id → raw Ed25519 public key; other kinds are left out. Raises `ValueError`."""
    try:
        keys = [key for key in document["keys"] if (key.get("kty"), key.get("crv")) == ("OKP", "Ed25519")]
        found = {str(key["kid"]): _unpack(key["x"]) for key in keys}
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise ValueError("it is not a JSON key set") from None
    if any(len(key) != _PUBLIC_KEY_BYTES for key in found.values()):
        raise ValueError(f"an Ed25519 key is not {_PUBLIC_KEY_BYTES} bytes long")
    if len(found) > _MOST_KEYS or not all(map(_KEY_ID.match, found)):
        raise ValueError("it has too many keys, or names of keys that are none")
    return found


def thumbprint(raw: bytes) -> str:
    """SHA-256 of a public key, in base64url."""
    canonical = json.dumps(_required(raw), sort_keys=True, separators=(",", ":"))
    return _pack(hashlib.sha256(canonical.encode()).digest())


def verification_key(raw: bytes) -> OKPKey:
    """For `joserfc`. Its text says no algorithm: whoever verifies does."""
    return OKPKey.import_key(Ed25519PublicKey.from_public_bytes(raw))


def _required(raw: bytes) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": _pack(raw)}


def _pack(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
