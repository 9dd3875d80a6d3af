"""Checksum values (`md5:…`) and the digest headers that carry them: Digest, Content-MD5, Repr-Digest, Content-Digest."""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from typing import Self

from datamodel.errors import InvalidChecksumError

# Bytes per algorithm (reference 1.4). `adler` is known to the model but is no digest of ours.
DIGEST_BYTES = {"md5": 16, "sha-1": 20, "sha-256": 32, "sha-384": 48, "sha-512": 64}
_ALIASES = {"sha": "sha-1", "sha1": "sha-1", "sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}
_STRUCTURED = re.compile(r"\s*([a-z0-9*._-]+)\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;[^,]*)?\Z")


@dataclass(frozen=True, slots=True)
class Checksum:
    """One digest: algorithm as in model URIs (`md5`, `sha-256`) and lower-case hex of the right length."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `{algorithm}:{hex}`. Raises `InvalidChecksumError`."""
        algorithm, colon, digits = text.partition(":")
        try:
            raw = bytes.fromhex(digits)
        except ValueError as error:
            raise InvalidChecksumError(f"invalid checksum {text!r}: its value is not hex") from error
        if not colon or DIGEST_BYTES.get(algorithm) != len(raw) or digits != digits.strip().lower():
            raise InvalidChecksumError(f"invalid checksum {text!r}: write it as md5:HEX or sha-256:HEX in lower case")
        return cls(algorithm, digits)

    @classmethod
    def from_bytes(cls, algorithm: str, raw: bytes) -> Self:
        """Raises `InvalidChecksumError` for an unknown algorithm or a wrong length."""
        return cls.parse(f"{_ALIASES.get(algorithm.lower(), algorithm.lower())}:{raw.hex()}")

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.hex)

    @property
    def base64(self) -> str:
        return base64.b64encode(self.raw).decode()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    def matches(self, other: Checksum) -> bool:
        """Compares in constant time."""
        return self.algorithm == other.algorithm and hmac.compare_digest(self.hex, other.hex)


def parse_digest_header(header: str) -> Checksum:
    """`Digest: md5=<base64>` with exactly one value (reference 2.6). Raises `InvalidChecksumError`.

    The legacy form, base64 of the hex text, is understood too.
    """
    algorithm, equals, value = header.strip().partition("=")
    if not equals or "," in value:
        raise InvalidChecksumError(f"invalid Digest header {header!r}: write one value, as in md5=BASE64")
    raw = _decode(header, value)
    name = _ALIASES.get(algorithm.lower(), algorithm.lower())
    if len(raw) == 2 * DIGEST_BYTES.get(name, -1):
        return Checksum.parse(f"{name}:{raw.decode('ascii', 'replace').lower()}")
    return Checksum.from_bytes(name, raw)


def parse_content_md5(header: str) -> Checksum:
    """`Content-MD5: <base64>` (RFC 1864). Raises `InvalidChecksumError`."""
    return Checksum.from_bytes("md5", _decode(header, header.strip()))


def parse_structured_digests(header: str) -> list[Checksum]:
    """`Repr-Digest` / `Content-Digest` (RFC 9530, 2 and 3): a dictionary of byte sequences, `sha-256=:BASE64:`.

    Unknown algorithms are left out, as the RFC demands of receivers. Raises `InvalidChecksumError` for bad grammar.
    """
    checksums = []
    for member in header.split(","):
        match = _STRUCTURED.match(member)
        if match is None:
            raise InvalidChecksumError(f"invalid digest {member.strip()!r}: write it as sha-256=:BASE64:")
        name = _ALIASES.get(match[1], match[1])
        if name in DIGEST_BYTES:
            checksums.append(Checksum.from_bytes(name, _decode(header, match[2])))
    return checksums


def structured_digest(checksums: list[Checksum]) -> str:
    """The value of a `Repr-Digest` header (RFC 9530): SHA-1 is written `sha`, as registered."""
    names = {"sha-1": "sha"}
    return ", ".join(f"{names.get(c.algorithm, c.algorithm)}=:{c.base64}:" for c in checksums)


def _decode(header: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:  # not base64, or not even ASCII
        raise InvalidChecksumError(f"invalid digest header {header!r}: its value is not base64") from error
