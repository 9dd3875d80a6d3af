"""Secrets kept in the database are sealed with a key derived from INVENTORY_SECRET_KEY (fallbacks open older seals)."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from datamodel.errors import NotConfiguredError


def _box() -> MultiFernet:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return MultiFernet(
        [Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"inventory:" + key.encode()).digest())) for key in keys]
    )


def seal(secret: bytes) -> bytes:
    """Encrypted and authenticated form of `secret`."""
    return _box().encrypt(secret)


def unseal(sealed: bytes | memoryview) -> bytes:
    """The secret. Raises `NotConfiguredError` when it was sealed under another INVENTORY_SECRET_KEY."""
    try:
        return _box().decrypt(bytes(sealed))
    except InvalidToken as error:
        raise NotConfiguredError(
            "a secret in the database was sealed under another INVENTORY_SECRET_KEY; "
            "set the old key in INVENTORY_SECRET_KEY_FALLBACKS or enter the secret again"
        ) from error
