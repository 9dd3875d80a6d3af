"""What the claims of a JWT say: who it is for, until when, who bears it, and how far its scopes reach. No Django, no clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datamodel.grants import Grant, Limits
from datamodel.reach import EVERYWHERE, NOWHERE, Reach

Claims = Mapping[str, object]
# WLCG's profile and SciTokens': the right, and whether it may replace what is there.
_SCOPES: Mapping[str, tuple[Grant, ...]] = {
    "storage.read": (Grant.READ,),
    "storage.modify": (Grant.WRITE, Grant.DELETE),
    "storage.create": (),
    "storage.stage": (),
    "read": (Grant.READ,),
    "write": (Grant.WRITE, Grant.DELETE),
}
_CREATING = "storage.create"
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Trust:
    """What is believed of an issuer. Its users and groups are known as `prefix` and the word of the claim."""

    url: str
    name: str
    audiences: frozenset[str]
    algorithms: tuple[str, ...]
    user_claim: str = "sub"
    groups_claim: str = "groups"
    prefix: str = ""
    # The namespace that the path `/` of scopes means; empty: a path is a uri.
    base: str = ""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a JWT makes of its bearer."""

    name: str
    principals: tuple[str, ...]
    limits: Limits | None


class UnbelievableClaimsError(ValueError):
    """Why the claims are not believed, in words for the caller."""


def judge(claims: Claims, trust: Trust, *, now: float, leeway: float) -> Bearer:
    """The bearer of claims whose signature is good. Raises `UnbelievableClaimsError`."""
    if claims.get("iss") != trust.url:
        raise UnbelievableClaimsError("the token is of another issuer")
    if not trust.audiences & frozenset(words(claims.get("aud"))):
        raise UnbelievableClaimsError("the token is not meant for this service (aud)")
    if _seconds(claims, "exp") + leeway <= now:
        raise UnbelievableClaimsError("the token has expired")
    if any(name in claims and _seconds(claims, name) - leeway > now for name in ("nbf", "iat")):
        raise UnbelievableClaimsError("the token is not valid yet")
    user = claims.get(trust.user_claim)
    if not isinstance(user, str) or not is_name(user):
        raise UnbelievableClaimsError(f"the token does not say whose it is ({trust.user_claim})")
    groups = [group for group in words(claims.get(trust.groups_claim), is_one=True) if is_name(group)]
    principals = (
        f"user:{trust.prefix}{user}",
        f"issuer:{trust.name}",
        *(f"group:{trust.prefix}{group}" for group in groups),
    )
    return Bearer(f"{trust.prefix}{user}", principals, limits_of(claims, trust.base))


def judge_service(claims: Claims, *, issuer: str, audience: str, now: float, leeway: float, longest: float) -> None:
    """Whether the claims of one inventory are for another, now, and for no longer than `longest` seconds. Raises `UnbelievableClaimsError`."""
    if claims.get("iss") != issuer:
        raise UnbelievableClaimsError("the token is of another issuer")
    if claims.get("aud") != audience:
        raise UnbelievableClaimsError("the token is not meant for this inventory (aud)")
    made, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
    if expires + leeway <= now:
        raise UnbelievableClaimsError("the token has expired")
    if made - leeway > now:
        raise UnbelievableClaimsError("the token is not valid yet")
    if expires - made > longest:
        raise UnbelievableClaimsError(f"the token is good for longer than {longest:.0f} s")


def limits_of(claims: Claims, base: str) -> Limits | None:
    """How far the storage scopes of a token reach; None when it has none."""
    scopes = [*words(claims.get("scope")), *words(claims.get("scp"))]
    found = [
        (kind, path)
        for kind, colon, path in (scope.partition(":") for scope in scopes)
        if kind in _SCOPES and (colon or "." in kind)
    ]
    if not found:
        return None
    reaches = dict.fromkeys((Grant.READ, Grant.WRITE, Grant.DELETE), NOWHERE)
    creates = NOWHERE
    for kind, path in found:
        reach = reach_of_path(path, base)
        creates |= reach if kind == _CREATING else NOWHERE
        for grant in _SCOPES[kind]:
            reaches[grant] |= reach
    return Limits(tuple(reaches.items()), creates)


def reach_of_path(path: str, base: str) -> Reach:
    """A path of a scope means itself and what is below it: `/a` is neither `/ab` nor, without a path, anything.

    A path with `..` or empty parts means nothing: nobody guesses what it was to mean.
    """
    if not path.startswith("/"):
        return NOWHERE
    name = path.removeprefix("/")
    if {"..", "."} & set(name.split("/")) or "//" in path or not name.isascii() or "\x7f" in name:
        return NOWHERE
    whole = f"{base}{name}"
    if not whole:
        return EVERYWHERE
    if whole.endswith((":", "/")):
        return Reach.of_prefixes([whole])
    return Reach.of_ranges([(whole, f"{whole}\x01")]) | Reach.of_prefixes([f"{whole}/"])


def words(value: object, *, is_one: bool = False) -> Iterable[str]:
    """A list of texts; a single text is one word (`is_one`) or words with blanks between them."""
    if isinstance(value, str):
        return [value] if is_one else value.split(" ")
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _seconds(claims: Claims, name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UnbelievableClaimsError(f"the token has no time in {name}")
    return float(value)


def is_name(text: str) -> bool:
    """Whether a claim's word may be part of a principal."""
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable() and text == text.strip() and "," not in text
