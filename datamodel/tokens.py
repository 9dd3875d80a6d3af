"""API tokens: made, rotated, revoked, and remembered by each process. Only digests are kept.

A process remembers callers until a token changes (it hears that at once), without a listener for five seconds.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet

from datamodel.access import canonical_prefix
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.errors import InvalidRequestError, NotAuthenticatedError, StateConflictError
from datamodel.grants import ALL_GRANTS, Grant, Limits
from datamodel.models import ApiToken
from datamodel.notify import Freshness
from datamodel.permissions import Caller, grant_for, known
from datamodel.reach import EVERYWHERE, NOWHERE, Reach

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
# That a token is used is noted once in so long; nobody is remembered for longer, so that it is noted at all.
_LAST_USED_RESOLUTION = timedelta(minutes=1)
_CACHE_SECONDS = _LAST_USED_RESOLUTION.total_seconds()
_CACHE_SIZE = 1024
_FILE_GRANTS = frozenset({Grant.READ, Grant.WRITE, Grant.DELETE})


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Below which prefixes and by which methods a token may be used; empty: no limit."""

    prefixes: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    @classmethod
    def parse(cls, prefixes: Iterable[str], methods: Iterable[str]) -> TokenLimits:
        """Raises `InvalidUriError`, `InvalidRequestError`."""
        asked = {method.strip().upper() for method in methods} - {""}
        if unknown := sorted(asked - set(METHODS)):
            raise InvalidRequestError(f"{unknown[0]} is no method of ours: choose of {', '.join(METHODS)}")
        names = sorted({canonical_prefix(prefix) for prefix in prefixes} - {""})
        return cls(tuple(names), tuple(method for method in METHODS if method in asked))


@dataclass(frozen=True, slots=True)
class TokenCaller:
    """The caller of a token, and the methods it may be used with (None: any)."""

    caller: Caller
    methods: frozenset[str] | None


def new_token() -> str:
    """A secret of 256 bits in URL-safe text."""
    return secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """What is kept of a token: SHA-256 in hex (its entropy needs no slow hash)."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_api_token(
    *,
    name: str,
    grants: frozenset[Grant],
    now: datetime,
    token: str | None = None,
    expires_at: datetime | None = None,
    limits: TokenLimits | None = None,
) -> str:
    """Make (or, under the same name, replace) an API token; returns the secret, which is kept nowhere."""
    secret, limited = token or new_token(), limits or TokenLimits()
    kept: dict[str, object] = {
        "digest": token_digest(secret),
        "previous_digest": None,
        "previous_until": None,
        "grants": sorted(grants),
        "prefixes": list(limited.prefixes),
        "methods": list(limited.methods),
        "expires_at": expires_at,
        "revoked_at": None,
    }
    with transaction.atomic():
        is_same = ApiToken.objects.filter(name=name, **kept).exists()
        ApiToken.objects.update_or_create(name=name, defaults=kept | {"created_at": now})
        if not is_same:
            until = expires_at.isoformat() if expires_at is not None else None
            facts = {"grants": kept["grants"], "prefixes": kept["prefixes"], "methods": kept["methods"], "until": until}
            record(Action.TOKEN_CREATED, name, details=facts)
        transaction.on_commit(token_callers.clear)
    return secret


def rotate_api_token(*, name: str, now: datetime, overlap: timedelta) -> str:
    """A new secret with the same rights; the one before is good for `overlap` more. Returns the new one.

    Raises `InvalidRequestError` for an unknown name, `StateConflictError` for a token that is revoked or has expired. A repeat
    within the overlap ends the oldest secret.
    """
    with transaction.atomic():
        token = ApiToken.objects.select_for_update().filter(name=name).first()
        if token is None:
            raise InvalidRequestError(f"there is no token named {name}")
        if over := why_over(token, now=now):
            raise StateConflictError(f"the token {name} {over}: make a new one")
        secret = new_token()
        token.previous_digest, token.previous_until = token.digest, now + overlap
        token.digest = token_digest(secret)
        token.save(update_fields=["digest", "previous_digest", "previous_until"])
        record(Action.TOKEN_ROTATED, name, details={"overlapUntil": token.previous_until.isoformat()})
        transaction.on_commit(token_callers.clear)
    return secret


def revoke_api_tokens(*, tokens: QuerySet[ApiToken], now: datetime) -> int:
    """These tokens open nothing any more, at once in every process; returns how many still did."""
    with transaction.atomic():
        names = list(tokens.filter(revoked_at__isnull=True).select_for_update().values_list("name", flat=True))
        ApiToken.objects.filter(name__in=names).update(revoked_at=now)
        for name in names:
            record(Action.TOKEN_REVOKED, name)
        transaction.on_commit(token_callers.clear)
    return len(names)


def why_over(token: ApiToken, *, now: datetime) -> str:
    """Why a token opens nothing any more, whatever it was given; "" while it does."""
    if token.revoked_at is not None:
        return f"was revoked {_minute(token.revoked_at)}"
    if token.expires_at is not None and token.expires_at <= now:
        return f"expired {_minute(token.expires_at)}"
    return ""


def caller_of(token: ApiToken) -> TokenCaller:
    """Who a token makes of its bearer."""
    grants = frozenset(Grant(word) for word in token.grants)
    methods = frozenset(token.methods) | ({"HEAD"} if "GET" in token.methods else set()) or None
    reach = Reach.of_prefixes(token.prefixes) if token.prefixes else EVERYWHERE
    limits = None
    if token.prefixes or methods is not None:
        usable = _grants_by(methods)
        limits = Limits(tuple((grant, reach if grant in usable else NOWHERE) for grant in Grant))
    caller = Caller(token.name, "api-token", grants, principals=known([f"token:{token.name}"]), limits=limits)
    return TokenCaller(caller, methods)


def description(token: ApiToken, *, now: datetime) -> str:
    """A token in one line, for operators."""
    words = [f"{token.name}: {', '.join(token.grants) or 'no rights of its own'}"]
    if token.prefixes:
        words.append(f"below {', '.join(token.prefixes)}")
    if token.methods:
        words.append(f"by {', '.join(token.methods)}")
    if over := why_over(token, now=now):
        words.append(over.upper())
    elif token.expires_at is not None:
        words.append(f"expires {_minute(token.expires_at)}")
    if not over and token.previous_until is not None and token.previous_until > now:
        words.append(f"its secret before is good until {_minute(token.previous_until)}")
    words.append(f"last used {_minute(token.last_used_at)}" if token.last_used_at is not None else "never used")
    return "; ".join(words)


def _minute(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _grants_by(methods: frozenset[str] | None) -> frozenset[Grant]:
    """What can be done by these methods at all: a URL signed for a limited token must not do more. POST also asks for lists."""
    if methods is None:
        return ALL_GRANTS
    found = {grant_for(method) for method in methods} | ({Grant.READ} if "POST" in methods else set())
    return ALL_GRANTS - _FILE_GRANTS | found


@dataclass(frozen=True, slots=True)
class _Remembered:
    found: TokenCaller
    until: float
    freshness: Freshness

    @property
    def is_good(self) -> bool:
        return time.monotonic() < self.until and self.freshness.is_good


class TokenCallers:
    """Callers by token digest: a known token costs no query."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers: dict[str, _Remembered] = {}

    def get(self, token: str) -> TokenCaller:
        """Raises `NotAuthenticatedError`; unknown tokens are not remembered."""
        digest = token_digest(token)
        with self._lock:
            remembered = self._callers.get(digest)
        if remembered is not None and remembered.is_good:
            return remembered.found
        freshness = Freshness.now()
        found, seconds = _find(digest)
        with self._lock:
            if len(self._callers) >= _CACHE_SIZE:
                self._callers.clear()
            self._callers[digest] = _Remembered(found, time.monotonic() + seconds, freshness)
        return found

    def clear(self) -> None:
        with self._lock:
            self._callers.clear()


def _find(digest: str) -> tuple[TokenCaller, float]:
    """The caller, and for how many seconds that is true if nothing is changed."""
    now = datetime.now(UTC)
    token = ApiToken.objects.filter(
        Q(digest=digest) | Q(previous_digest=digest, previous_until__gt=now),
        Q(expires_at__isnull=True) | Q(expires_at__gt=now),
        revoked_at__isnull=True,
    ).first()
    if token is None:
        raise NotAuthenticatedError("the API token is unknown, expired or revoked")
    if token.last_used_at is None or now - token.last_used_at >= _LAST_USED_RESOLUTION:
        ApiToken.objects.filter(id=token.id).update(last_used_at=now)
    ends = [token.expires_at, token.previous_until if token.digest != digest else None]
    left = [(end - now).total_seconds() for end in ends if end is not None]
    return caller_of(token), min([*left, _CACHE_SECONDS])


token_callers = TokenCallers()
