"""Who somebody is here that an identity provider has named. No Django, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datamodel.scopes import is_name, words

ANYBODY = "*"
# Of names in Django's tables.
_LONGEST = 150
_MOST_GROUPS = 200


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the admin as its provider describes it: names with our prefix, groups as they are told there too."""

    subject: str
    username: str
    groups: tuple[str, ...]
    is_admitted: bool


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What an ID token says: who, and in answer to which request (`nonce`)."""

    person: Person
    nonce: object

    def answers(self, nonce: object) -> bool:
        """Whether it was made for the request of this nonce (OpenID Connect Core 1.0, 3.1.3.7, 11)."""
        return isinstance(nonce, str) and nonce != "" and self.nonce == nonce


def check_party(claims: Mapping[str, object], client: str) -> None:
    """Raises `ValueError` for a token that was issued to somebody else (the same, 4 and 5)."""
    party, audience = claims.get("azp"), claims.get("aud")
    is_for_many = isinstance(audience, list) and len(audience) > 1
    if (party is not None or is_for_many) and party != client:
        raise ValueError("the ID token was issued to another party (azp)")


def person_of(
    claims: Mapping[str, object], *, user_claim: str, groups_claim: str, prefix: str, admitted: Iterable[str]
) -> Person:
    """Raises `ValueError` in words for whoever signs in."""
    subject, name = claims.get("sub"), claims.get(user_claim)
    if not isinstance(subject, str) or not subject:
        raise ValueError("the provider does not say who you are (sub)")
    if not isinstance(name, str) or not is_name(name) or len(prefix + name) > _LONGEST:
        raise ValueError(f"the provider does not say a name of yours that can be used here ({user_claim})")
    told = {group for group in words(claims.get(groups_claim), is_one=True) if is_name(group)}
    known = sorted(f"{prefix}{group}" for group in told)
    usable = tuple(name for name in known if len(name) <= _LONGEST)[:_MOST_GROUPS]
    wanted = set(admitted)
    return Person(subject, f"{prefix}{name}", usable, is_admitted=ANYBODY in wanted or bool(wanted & told))


def merged(token: Mapping[str, object], info: object) -> dict[str, object]:
    """What the ID token says, and what else the provider tells of the same person. Raises `ValueError`."""
    if not isinstance(info, dict) or info.get("sub") != token.get("sub"):
        raise ValueError("the provider tells of somebody else (sub)")
    return {**info, **token}
