"""Distinguished names of X.509 certificates in one form."""

from __future__ import annotations

import re

from cryptography.x509 import Name
from cryptography.x509.oid import NameOID

from datamodel.errors import InvalidRequestError

_LONGEST = 200
_KINDS = {
    "CN": NameOID.COMMON_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "C": NameOID.COUNTRY_NAME,
    "STREET": NameOID.STREET_ADDRESS,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
    "SN": NameOID.SURNAME,
    "GN": NameOID.GIVEN_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "title": NameOID.TITLE,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}
_NAMES = {oid: name for name, oid in _KINDS.items()}
# `E` is what some write for emailAddress.
_OIDS = {name.lower(): oid for name, oid in {**_KINDS, "E": NameOID.EMAIL_ADDRESS}.items()}
_KIND = r"(?:[A-Za-z][A-Za-z0-9-]*|\d+(?:\.\d+)+)"
_KINDS_IN_PLACE = re.compile(rf"(?<!\\)([,+])\s*({_KIND})\s*=\s*")
_SLASHES = re.compile(rf"/(?={_KIND}=)")
_SPECIAL = re.compile(r'([,+"\\<>;])')


def canonical_dn(text: str, *, is_from_slashes: bool = True) -> str:
    """A distinguished name as RFC 4514 writes it, the most particular first. Raises `InvalidRequestError`.

    OpenSSL's `/C=CA/CN=alice` is understood where people write it; it does not say which slash is part of a value, so what a
    certificate says must come in the other form. Values are compared letter by letter.
    """
    given = text.strip()
    is_slashed = given.startswith("/") and is_from_slashes
    try:
        parsed = Name.from_rfc4514_string(_numbered(_from_slashes(given) if is_slashed else given))
        found = parsed.rfc4514_string(_NAMES)
    except (ValueError, KeyError) as error:
        raise InvalidRequestError(
            f"{text!r:.250} is no distinguished name{f': {error}' if str(error) else ''}"
        ) from None
    if not found or len(found) > _LONGEST or not found.isprintable():
        raise InvalidRequestError(f"{text!r:.250} is no distinguished name of 1 to {_LONGEST} printable characters")
    return found


def _from_slashes(text: str) -> str:
    parts = (part.partition("=") for part in _SLASHES.split(text)[1:])
    escaped = [kind + "=" + _SPECIAL.sub(r"\\\1", value) for kind, _, value in parts]
    return ",".join(reversed(escaped))


def _numbered(text: str) -> str:
    """Kinds of attributes by their numbers, whatever their case, and no blanks around them."""
    return _KINDS_IN_PLACE.sub(_number, f",{text}").removeprefix(",")


def _number(match: re.Match[str]) -> str:
    oid = _OIDS.get(match[2].lower())
    return f"{match[1]}{oid.dotted_string if oid is not None else match[2]}="
