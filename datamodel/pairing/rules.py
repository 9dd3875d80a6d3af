"""The one-time code and the messages that it protects. No Django, no clock, no I/O.

The secret of the code is never sent: what the accepting side says of itself carries a proof (HMAC-SHA256) made with a key that is a hash of
the secret, and the answer is signed by the key whose thumbprint is in the code. Somebody in between can neither learn the
secret nor put keys of his own in place of either's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from datamodel.keysets import key_set, parse_key_set

SECRET_BYTES = 32
# Failed ones; then the code is void.
MOST_ATTEMPTS = 10
ROLES = ("site", "global")
_VERSION = 1
_LONGEST_CODE = 2048
_LONGEST_URL = 512
_LONGEST_RESOURCE_ID = 512


class MalformedError(ValueError):
    """What is wrong with a code or a message, in words for whoever sent it."""


@dataclass(frozen=True, slots=True)
class Code:
    """Who invites, where, under which invitation; the secret; and the thumbprint of the key that will sign the answer."""

    url: str
    inventory_id: uuid.UUID
    invitation_id: uuid.UUID
    secret: bytes
    thumbprint: str

    def __str__(self) -> str:
        fields = [
            _VERSION,
            self.url,
            str(self.inventory_id),
            str(self.invitation_id),
            _pack(self.secret),
            self.thumbprint,
        ]
        return _pack(json.dumps(fields, separators=(",", ":")).encode())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `MalformedError`."""
        try:
            if len(text) > _LONGEST_CODE:
                raise ValueError
            version, url, inventory_id, invitation_id, secret, thumbprint = json.loads(_unpack("".join(text.split())))
            if version != _VERSION or not isinstance(url, str) or not isinstance(thumbprint, str):
                raise ValueError
            code = cls(url, uuid.UUID(inventory_id), uuid.UUID(invitation_id), _unpack(secret), thumbprint)
        except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
            raise MalformedError("this is no pairing code: copy it whole, as the other inventory showed it") from None
        if len(code.secret) != SECRET_BYTES:
            raise MalformedError("the secret of this pairing code is not whole")
        return code


@dataclass(frozen=True, slots=True)
class Introduction:
    """What one inventory says of itself to the other."""

    inventory_id: uuid.UUID
    role: str
    name: str
    url: str
    keys: Mapping[str, bytes]
    # Of a site.
    resource_id: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "inventoryId": str(self.inventory_id),
            "role": self.role,
            "name": self.name,
            "url": self.url,
            "resourceID": self.resource_id,
            **key_set(self.keys),
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Raises `MalformedError`."""
        texts = [document.get(name) for name in ("inventoryId", "role", "name", "url", "resourceID")]
        try:
            keys = parse_key_set(document)
            inventory_id = uuid.UUID(str(texts[0]))
        except ValueError as error:
            raise MalformedError(f"an introduction is not as it should be: {error}") from None
        _, role, name, url, resource_id = (text if isinstance(text, str) else "" for text in texts)
        is_short = 0 < len(url) <= _LONGEST_URL and len(resource_id) <= _LONGEST_RESOURCE_ID
        if role not in ROLES or not is_short or not f"{url}{resource_id}".isprintable() or not keys:
            raise MalformedError("an introduction needs inventoryId, role (site or global), url and keys")
        return cls(inventory_id, role, name[:64], url, keys, resource_id)


def proof_key(secret: bytes) -> bytes:
    """What the inviting side keeps instead of the secret."""
    return hashlib.sha256(b"storage-inventory pairing\n" + secret).digest()


def proof(key: bytes, invitation_id: uuid.UUID, body: bytes) -> str:
    """That whoever made this body knows the secret."""
    message = f"storage-inventory pairing\n{invitation_id}\n".encode() + body
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def is_proven(key: bytes, invitation_id: uuid.UUID, body: bytes, given: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(proof(key, invitation_id, body).encode(), given.encode())


def may_pair(own_role: str, other_role: str) -> bool:
    """A site pairs with globals, a global with sites: nobody else harvests anybody."""
    return {own_role, other_role} == set(ROLES)


def _pack(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
