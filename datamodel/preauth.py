"""Signed transfer tokens in URLs: Ed25519, bound to uri, methods, site, expiry and key id; and the legacy grammar.

Text form, one path segment: `1.{key id}.{claims}.{signature}`, parts in unpadded base64url; the claims are JSON with
`e` expiry (Unix seconds), `m` methods (`r` = HEAD GET, `p` = PUT POST, `x` = DELETE, `px`, `rx`, `w` = r + p, `d` = w + x), `s` site id or null,
`u` the caller's name or null, and for writes optionally `i`, `t`: id and contentLastModified (ms) of the artifact known for
the uri. The signature covers `1.{key id}.{claims}` and the uri, which is not repeated in the token.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from datamodel.errors import NotPermittedError
from datamodel.uris import ArtifactUri

_VERSION = "1"
_LEGACY_GRANTS = {"ReadGrant": "r", "WriteGrant": "d"}
_LEGACY_ALPHABET = str.maketrans("-_", "/+")


class Methods(Enum):
    """What a token allows: no more than its caller may. Clients look before and after they put, so `w` has reading, too."""

    READ = "r"
    WRITE = "w"
    WRITE_AND_DELETE = "d"
    ONLY_WRITE = "p"
    ONLY_DELETE = "x"
    ONLY_WRITE_AND_DELETE = "px"
    READ_AND_DELETE = "rx"

    @property
    def http(self) -> frozenset[str]:
        return _HTTP_METHODS[self]

    @classmethod
    def of(cls, *, read: bool, write: bool, delete: bool) -> Methods:
        """For a caller who may do at least one of these."""
        return _METHODS_OF[read, write, delete]


_METHODS_OF = {
    (True, False, False): Methods.READ,
    (True, True, False): Methods.WRITE,
    (True, True, True): Methods.WRITE_AND_DELETE,
    (False, True, False): Methods.ONLY_WRITE,
    (False, False, True): Methods.ONLY_DELETE,
    (False, True, True): Methods.ONLY_WRITE_AND_DELETE,
    (True, False, True): Methods.READ_AND_DELETE,
}
_OF_RIGHTS = (frozenset({"HEAD", "GET"}), frozenset({"PUT", "POST"}), frozenset({"DELETE"}))
_HTTP_METHODS = {
    methods: frozenset({"OPTIONS"}).union(*(of for of, is_held in zip(_OF_RIGHTS, rights, strict=True) if is_held))
    for rights, methods in _METHODS_OF.items()
}


@dataclass(frozen=True, slots=True)
class TransferClaims:
    """What a valid token says. `known_id` and `known_at` name the artifact that the signer knew for this uri."""

    methods: Methods
    expires_at: datetime
    site_id: uuid.UUID | None
    user: str | None
    known_id: uuid.UUID | None = None
    known_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One Ed25519 private key under its key id."""

    key_id: str
    private: Ed25519PrivateKey

    @classmethod
    def generate(cls, key_id: str) -> SigningKey:
        return cls(key_id, Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, key_id: str, raw: bytes) -> SigningKey:
        return cls(key_id, Ed25519PrivateKey.from_private_bytes(raw))

    @property
    def private_bytes(self) -> bytes:
        """32 raw bytes."""
        return self.private.private_bytes_raw()

    @property
    def public_bytes(self) -> bytes:
        """32 raw bytes."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, uri: ArtifactUri, claims: TransferClaims) -> str:
        """The token for one uri."""
        return self.sign_head(self.head(claims), uri.value)

    def head(self, claims: TransferClaims) -> str:
        """The part of a token before its signature: one head serves any number of uris with the same claims."""
        payload = {
            "e": int(claims.expires_at.timestamp()),
            "m": claims.methods.value,
            "s": str(claims.site_id) if claims.site_id is not None else None,
            "u": claims.user,
        }
        if claims.known_id is not None and claims.known_at is not None:
            payload |= {"i": str(claims.known_id), "t": round(claims.known_at.timestamp() * 1000)}
        return f"{_VERSION}.{self.key_id}.{_pack(json.dumps(payload, separators=(',', ':')).encode())}"

    def sign_head(self, head: str, uri: str) -> str:
        """The token of a `head` for one canonical uri."""
        return f"{head}.{_pack(self.private.sign(_message(head, uri)))}"


def key_id_of(token: str) -> str | None:
    """The key id that a token names, unverified; None for anything that is not of our form."""
    parts = token.split(".")
    return parts[1] if len(parts) == 4 and parts[0] == _VERSION else None


def verify(
    token: str, uri: ArtifactUri, *, keys: Mapping[str, bytes], now: datetime, site_id: uuid.UUID | None
) -> TransferClaims:
    """The claims of a valid token for this uri at this site; `keys` maps key ids to raw Ed25519 public keys.

    Raises `NotPermittedError` without saying more than the bearer should know.
    """
    head, _, signature = token.rpartition(".")
    public = keys.get(key_id_of(token) or "")
    if public is None:
        raise NotPermittedError("this URL was signed with a key that is not trusted here; negotiate a new one")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(_unpack(signature), _message(head, uri.value))
        claims = _claims(json.loads(_unpack(head.split(".")[2])))
    except (InvalidSignature, ValueError, KeyError, TypeError):
        raise NotPermittedError("this URL's signature does not fit its address; negotiate a new one") from None
    if claims.expires_at <= now:
        raise NotPermittedError("this URL has expired; negotiate a new one")
    if claims.site_id is not None and claims.site_id != site_id:
        raise NotPermittedError("this URL was signed for another site")
    return claims


def is_legacy(token: str) -> bool:
    """Whether a token has the grammar of the reference, section 3."""
    return token.count("~") == 1


def verify_legacy(token: str, uri: ArtifactUri, *, public_keys: list[bytes], now: datetime) -> TransferClaims:
    """A token of the reference, section 3 (RSA, SHA-1, no expiry); `public_keys` are DER SubjectPublicKeyInfo.

    Read or write, for this request only. Raises `NotPermittedError`.
    """
    try:
        meta, signature = (_legacy_unpack(part) for part in token.split("~"))
        fields = [part.partition("=") for part in meta.decode().split("&")]
    except (ValueError, binascii.Error):
        raise NotPermittedError("this URL's token is malformed") from None
    names = [name for name, _, _ in fields]
    claims = {name: value for name, _, value in fields}
    # A repeated name is how the original could be fooled (its last one wins); no honest signer writes one.
    is_sound = len(names) == len(set(names)) and claims.get("uri") == uri.value and claims.get("gnt") in _LEGACY_GRANTS
    if not is_sound or not any(_is_legacy_signed(key, signature, meta) for key in public_keys):
        raise NotPermittedError("this URL's token does not fit its address or is not signed by a trusted service")
    return TransferClaims(Methods(_LEGACY_GRANTS[claims["gnt"]]), now, None, claims.get("sub"))


def _message(head: str, uri: str) -> bytes:
    return f"storage-inventory transfer\n{head}\n{uri}".encode()


def _claims(payload: dict[str, str | int | None]) -> TransferClaims:
    site, known, known_at = payload["s"], payload.get("i"), payload.get("t")
    return TransferClaims(
        methods=Methods(payload["m"]),
        expires_at=datetime.fromtimestamp(int(payload["e"] or 0), UTC),
        site_id=uuid.UUID(str(site)) if site is not None else None,
        user=str(payload["u"]) if payload["u"] is not None else None,
        known_id=uuid.UUID(str(known)) if known is not None else None,
        known_at=datetime.fromtimestamp(int(known_at) / 1000, UTC) if known_at is not None else None,
    )


def _pack(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _legacy_unpack(text: str) -> bytes:
    return base64.b64decode(text.translate(_LEGACY_ALPHABET), validate=True)


def _is_legacy_signed(der: bytes, signature: bytes, meta: bytes) -> bool:
    key = serialization.load_der_public_key(der)
    if not isinstance(key, RSAPublicKey):
        return False
    try:
        key.verify(signature, meta, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303  # the legacy grammar's own algorithm
    except InvalidSignature:
        return False
    return True
