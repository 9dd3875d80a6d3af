"""Why somebody may, or may not, do something: for those who answer such questions."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth import get_user_model

from datamodel import access, auth, keys, service_tokens, tokens
from datamodel.errors import InvalidRequestError
from datamodel.grants import Grant, Identity, is_principal
from datamodel.models import ApiToken
from datamodel.permissions import ANONYMOUS, known
from datamodel.uris import ArtifactUri


def explain(*, names: Sequence[str], grant: Grant, uri: ArtifactUri) -> dict[str, object]:
    """The verdict and what led to it, from the tables as they are now. `names`: principals of one caller, or `anonymous`.

    A token brings its own rights and limits, a user of the admin its groups. Raises `InvalidRequestError`.
    """
    table, identity = access.load_table(), _identity(names)
    return {
        "caller": sorted(identity.principals) or [ANONYMOUS],
        "operation": grant.value,
        "uri": uri.value,
        "permitted": uri.value in table.reach(identity, grant),
        "because": table.explain(identity, grant, uri.value),
    }


def _identity(names: Sequence[str]) -> Identity:
    if list(names) == [ANONYMOUS]:
        return Identity()
    wrong = [name for name in names if not is_principal(name)]
    if wrong or not names:
        raise InvalidRequestError(
            "caller must be anonymous, or user:NAME, group:NAME, token:NAME, issuer:NAME, dn:DN, inventory:NAME (repeatable)"
        )
    parts = [_alone(name) for name in names]
    limits = [part.limits for part in parts if part.limits is not None]
    grants = frozenset(grant for part in parts for grant in part.grants)
    principals = frozenset(name for part in parts for name in part.principals)
    return Identity(principals, grants, limits[0] if limits else None)


def _alone(name: str) -> Identity:
    kind, _, word = name.partition(":")
    if kind == "token":
        token = ApiToken.objects.filter(name=word, revoked_at__isnull=True).first()
        if token is None:
            raise InvalidRequestError(f"there is no token {word}, or it is revoked")
        return tokens.caller_of(token).caller.identity
    if kind == "inventory":
        peer = next((peer for peer in keys.load_trust().peers.values() if peer.name == word), None)
        if peer is None:
            raise InvalidRequestError(f"there is no paired inventory {word}")
        return service_tokens.caller_of_peer(peer).identity
    user = get_user_model().objects.filter(username=word, is_active=True).first() if kind == "user" else None
    return auth.caller_of_user(user).identity if user is not None else Identity(known([name]))
