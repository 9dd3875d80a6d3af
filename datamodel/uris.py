"""Artifact URIs and namespaces: their rules, the uri bucket, and the reversible map of file names.

Rules: reference `opencadc-storage-inventory`, 1.3 (java.net.URI plus the inventory's own). The canonical text is the ASCII
form: NFC, non-ASCII characters as %-escaped UTF-8 with upper-case hex. Two spellings of one name are one URI.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

from datamodel.errors import InvalidUriError

MAX_URI_LENGTH = 512

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*\Z")
# What needs neither escapes nor normalization is canonical as it stands: nearly every URI, in a hundredth of the time.
_CANONICAL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!/)[!'()*+,\-./0-9:=@A-Z_a-z~]*[!'()*+,\-.0-9=@A-Z_a-z~]\Z")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_REFUSED_BY_JAVA = frozenset('"<>\\^`{|}#')
_REFUSED_IN_COMPONENT = frozenset(" \\%;&$?[]")
_REFUSED = _REFUSED_BY_JAVA | _REFUSED_IN_COMPONENT
_BLANK_CATEGORIES = frozenset({"Cc", "Zs", "Zl", "Zp", "Cs"})
# Of what the rules allow, `~` opens our escapes and is therefore escaped itself.
_COMPACT_ABOVE = 240
_COMPACT_MARK = "~="


@dataclass(frozen=True, slots=True, order=True)
class ArtifactUri:
    """A valid artifact URI in canonical ASCII form; make it with `parse`."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `InvalidUriError` with the reason; accepts characters or %-escapes for anything beyond ASCII."""
        if len(text) <= MAX_URI_LENGTH and _CANONICAL.match(text):
            return cls(text)
        return cls._parse_slowly(text)

    @classmethod
    def _parse_slowly(cls, text: str) -> Self:
        scheme, colon, rest = text.partition(":")
        if not colon or not _SCHEME.match(scheme):
            raise _invalid(text, "it must start with a scheme, as in cadc:PATH/NAME")
        decoded = unicodedata.normalize("NFC", _decode_escapes(text, rest))
        _check_path(text, decoded)
        value = f"{scheme}:{_to_ascii(decoded)}"
        if len(value) > MAX_URI_LENGTH:
            raise _invalid(text, f"its ASCII form has {len(value)} characters; at most {MAX_URI_LENGTH} are allowed")
        return cls(value)

    @property
    def bucket(self) -> str:
        """First five hex digits of SHA-1 of the ASCII form: the unit of batch work."""
        return bucket_of(self.value)

    @property
    def scheme(self) -> str:
        return self.value.partition(":")[0]

    @property
    def filename(self) -> str:
        """Text after the last `/` of the path, else the whole path (reference 1.3), with non-ASCII characters restored."""
        path = self.value.partition(":")[2]
        return _decode_escapes(self.value, path.rpartition("/")[2])

    def __str__(self) -> str:
        return self.value


def bucket_of(uri: str) -> str:
    """The bucket of what is known to be the value of an `ArtifactUri`."""
    return hashlib.sha1(uri.encode(), usedforsecurity=False).hexdigest()[:5]


@dataclass(frozen=True, slots=True, order=True)
class Namespace:
    """`scheme:` or `scheme:path/`: a prefix of artifact URIs; make it with `parse`."""

    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `InvalidUriError`: it must end with `:` or `/`, and adding a file name must give a valid artifact URI."""
        ending = "/" if "/" in text else ":"
        if not text.endswith(ending):
            raise InvalidUriError(f"invalid namespace {text!r}: it must end with ':' or '/', as in cadc: or cadc:CFHT/")
        probe = ArtifactUri.parse(f"{text}file.ext")
        return cls(probe.value.removesuffix("file.ext"))

    def __contains__(self, uri: ArtifactUri | Namespace) -> bool:
        return uri.value.startswith(self.value)

    def __str__(self) -> str:
        return self.value

    def uri_for(self, path: bytes) -> ArtifactUri:
        """The URI of a file by its relative path: any bytes but NUL, components separated by `/`; reversible by `path_of`.

        Characters that the rules refuse become `~XX` per byte; a component whose form would exceed 240 characters becomes
        `~=` and base64url. Raises `InvalidUriError` for an empty or absolute path, or when even that exceeds 512 characters.
        """
        components = path.split(b"/")
        if not all(components) or {b".", b".."} & set(components):
            raise InvalidUriError(
                f"cannot name the path {path!r}: it must be relative, without empty, '.' or '..' parts"
            )
        return ArtifactUri.parse(self.value + "/".join(_escape_component(component) for component in components))

    def path_of(self, uri: ArtifactUri) -> bytes:
        """The relative path that `uri_for` mapped. Raises `InvalidUriError` when `uri` is outside or not of that form."""
        if uri not in self:
            raise InvalidUriError(f"{uri} is not in the namespace {self}")
        rest = uri.value.removeprefix(self.value)
        return b"/".join(_unescape_component(uri, component) for component in rest.split("/"))


def namespace_filter(namespaces: list[Namespace]) -> list[Namespace]:
    """The shortest list that covers the same URIs: without namespaces inside others; sorted."""
    kept: list[Namespace] = []
    for namespace in sorted(set(namespaces)):
        if not kept or namespace not in kept[-1]:
            kept.append(namespace)
    return kept


def longest_namespace_sql(
    column: str, values: Iterable[tuple[str, str | float]], *, otherwise: str, name: str
) -> tuple[str, dict[str, str | float]]:
    """The value of the longest of these namespaces that a column's uri lies under, as SQL with its named parameters."""
    cases, parameters = list[str](), dict[str, str | float]()
    for number, (namespace, value) in enumerate(sorted(values, key=lambda pair: -len(pair[0]))):
        begin, end, then = (f"{name}_{what}{number}" for what in ("from", "to", "then"))
        cases.append(f"WHEN {column} >= %({begin})s AND {column} < %({end})s THEN %({then})s")
        parameters |= {begin: namespace, end: prefix_upper_bound(namespace), then: value}
    return (f"(CASE {' '.join(cases)} ELSE {otherwise} END)" if cases else otherwise), parameters


def prefix_upper_bound(prefix: str) -> str:
    """The least ASCII text above every text that starts with `prefix`, for range scans in C collation."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _invalid(text: str, reason: str) -> InvalidUriError:
    return InvalidUriError(f"invalid artifact URI {text!r}: {reason}")


def _decode_escapes(text: str, part: str) -> str:
    def decode(match: re.Match[str]) -> str:
        try:
            return bytes.fromhex(match.group().replace("%", "")).decode()
        except UnicodeDecodeError:
            raise _invalid(text, f"{match.group()} is not UTF-8; write other bytes as ~XX") from None

    decoded = _ESCAPES.sub(decode, part)
    if "%" in _ESCAPES.sub("", part):
        raise _invalid(text, "a '%' must be followed by two hex digits")
    return decoded


def _check_path(text: str, path: str) -> None:
    if not path:
        raise _invalid(text, "nothing follows the scheme")
    if path.startswith("/"):
        raise _invalid(text, "the path must not start with '/'")
    if path.endswith((":", "/")):
        raise _invalid(text, "it must not end with ':' or '/'")
    for character in path:
        if character in _REFUSED or (unicodedata.category(character) in _BLANK_CATEGORIES):
            raise _invalid(
                text, f"the character {character!r} is not allowed; write it as ~XX, for example ~20 for a blank"
            )


def _to_ascii(path: str) -> str:
    return path if path.isascii() else quote(path, safe="!'()*+,-./:=@_~")


def _is_plain(character: str) -> bool:
    allowed = character not in _REFUSED and character != "~"
    return allowed and unicodedata.category(character) not in _BLANK_CATEGORIES


def _escape_bytes(data: bytes) -> str:
    return "".join(f"~{byte:02X}" for byte in data)


def _escape_component(component: bytes) -> str:
    pieces: list[str] = []
    for character in component.decode("utf-8", "surrogateescape"):
        encoded = character.encode("utf-8", "surrogateescape")
        pieces.append(character if _is_plain(character) else _escape_bytes(encoded))
    escaped = "".join(pieces)
    if unicodedata.normalize("NFC", escaped) != escaped:
        escaped = "".join(piece if piece.isascii() else _escape_bytes(piece.encode()) for piece in escaped)
    if escaped.endswith(":"):
        escaped = f"{escaped[:-1]}~3A"
    if len(_to_ascii(escaped)) <= _COMPACT_ABOVE:
        return escaped
    compact = _COMPACT_MARK + base64.urlsafe_b64encode(component).decode().rstrip("=")
    return min(_to_ascii(escaped), compact, key=len)


def _unescape_component(uri: ArtifactUri, component: str) -> bytes:
    try:
        if component.startswith(_COMPACT_MARK):
            packed = component.removeprefix(_COMPACT_MARK)
            return base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
        plain = _decode_escapes(uri.value, component).encode()
        return re.sub(rb"~([0-9A-F]{2})?", lambda match: bytes.fromhex(match[1].decode()), plain)
    except (binascii.Error, AttributeError) as error:
        raise InvalidUriError(f"{uri} was not made from a file name: {component!r} has a malformed ~ escape") from error
