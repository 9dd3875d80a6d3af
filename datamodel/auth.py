"""Who is calling: signed URL, API token (Bearer or Basic password), admin session, else anonymous; the first match wins.

Bad credentials never fall through to anonymous.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

from datamodel import keys, preauth
from datamodel.errors import NotAuthenticatedError, NotPermittedError
from datamodel.models import ApiToken, StorageSite
from datamodel.permissions import ALL_GRANTS, ANONYMOUS, Caller, Grant, grants_of
from datamodel.uris import ArtifactUri

_LAST_USED_RESOLUTION = timedelta(minutes=1)
_CACHE_SECONDS = 5.0
_CACHE_SIZE = 1024


def new_token() -> str:
    """A secret of 256 bits in URL-safe text."""
    return secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """What is kept of a token: SHA-256 in hex (its entropy needs no slow hash)."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_api_token(
    *, name: str, grants: frozenset[Grant], now: datetime, token: str | None = None, expires_at: datetime | None = None
) -> str:
    """Make (or, under the same name, replace) an API token; returns the secret, which is kept nowhere."""
    secret = token or new_token()
    ApiToken.objects.update_or_create(
        name=name,
        defaults={
            "digest": token_digest(secret),
            "grants": sorted(grants),
            "created_at": now,
            "expires_at": expires_at,
            "revoked_at": None,
        },
    )
    return secret


def revoke_api_tokens(*, tokens: QuerySet[ApiToken], now: datetime) -> int:
    """These tokens open nothing any more, within five seconds in every process; returns how many still did."""
    _token_callers.clear()
    return tokens.filter(revoked_at__isnull=True).update(revoked_at=now)


def authenticate(request: HttpRequest) -> Caller:
    """The caller by its headers or admin session.

    Raises `NotAuthenticatedError` for bad credentials, `NotPermittedError` for a session whose request another page made.
    """
    if token := _presented_token(request):
        return _token_callers.get(token)
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        _refuse_forged(request)
        grants = ALL_GRANTS if user.is_superuser else frozenset({Grant.READ})
        return Caller(user.get_username(), "session", grants)
    grants = frozenset({Grant.READ}) if settings.INVENTORY_ANONYMOUS_READ else frozenset()
    return Caller(ANONYMOUS, ANONYMOUS, grants)


def authenticate_url(token: str, uri: ArtifactUri, *, http_method: str, begun_at: datetime | None = None) -> Caller:
    """The caller by a signed URL. Raises `NotPermittedError`; other credentials of the request are not considered.

    Expiry is judged at `begun_at` (default: now), when what this request continues was begun with the same URL.
    """
    now = begun_at or datetime.now(UTC)
    if preauth.is_legacy(token) and settings.INVENTORY_LEGACY_TOKENS:
        public_keys = [bytes.fromhex(key) for key in settings.INVENTORY_LEGACY_PUBLIC_KEYS]
        claims = preauth.verify_legacy(token, uri, public_keys=public_keys, now=now)
    else:
        trusted = keys.trusted_key_cache.get(preauth.key_id_of(token))
        claims = preauth.verify(token, uri, keys=trusted, now=now, site_id=_own_site.get())
    if http_method not in claims.methods.http:
        raise NotPermittedError(f"this URL does not allow {http_method}")
    return Caller(claims.user or "signed URL", "signed-url", grants_of(claims), claims)


def _presented_token(request: HttpRequest) -> str | None:
    scheme, _, value = request.headers.get("Authorization", "").strip().partition(" ")
    if not scheme:
        return None
    match scheme.lower():
        case "bearer":
            return value.strip() or _refuse("the Bearer token is empty")
        case "basic":
            return _basic_password(value.strip())
    return _refuse(f"the authorization scheme {scheme!r} is not known; send Bearer or Basic")


def _basic_password(value: str) -> str:
    try:
        _, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return _refuse("the Basic credentials are malformed")
    return password or _refuse("the Basic password must be an API token")


def _refuse(reason: str) -> str:
    raise NotAuthenticatedError(reason)


class _CsrfCheck(CsrfViewMiddleware):
    """Django's own check, telling the reason instead of answering."""

    def _reject(self, request: HttpRequest, reason: str) -> NoReturn:
        del request
        raise NotPermittedError(f"{reason.rstrip('.')}; send a bearer token instead of a browser's session")


def _refuse_forged(request: HttpRequest) -> None:
    """A browser sends its cookie whoever made the page: what changes anything needs the token of a page of ours, too."""
    check = _CsrfCheck(lambda _: HttpResponse())
    check.process_request(request)
    check.process_view(request, lambda _: HttpResponse(), (), {})


class _TokenCallers:
    """Callers by token digest, at most five seconds old: a decision on the hot path costs no query.

    A revocation is therefore heard within five seconds; an expiry at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers: dict[str, tuple[float, Caller]] = {}

    def get(self, token: str) -> Caller:
        digest = token_digest(token)
        with self._lock:
            found = self._callers.get(digest)
        if found is not None and time.monotonic() < found[0]:
            return found[1]
        caller, seconds = _caller_by_digest(digest)
        with self._lock:
            if len(self._callers) >= _CACHE_SIZE:
                self._callers.clear()
            self._callers[digest] = (time.monotonic() + seconds, caller)
        return caller

    def clear(self) -> None:
        with self._lock:
            self._callers.clear()


def _caller_by_digest(digest: str) -> tuple[Caller, float]:
    """The caller, and for how many seconds that is true without asking again."""
    now = datetime.now(UTC)
    token = ApiToken.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=now), digest=digest, revoked_at__isnull=True
    ).first()
    if token is None:
        raise NotAuthenticatedError("the API token is unknown, expired or revoked")
    if token.last_used_at is None or now - token.last_used_at > _LAST_USED_RESOLUTION:
        ApiToken.objects.filter(id=token.id).update(last_used_at=now)
    left = (token.expires_at - now).total_seconds() if token.expires_at is not None else _CACHE_SECONDS
    caller = Caller(token.name, "api-token", frozenset(Grant(grant) for grant in token.grants))
    return caller, min(left, _CACHE_SECONDS)


class _OwnSite:
    """The id of this site (None at a global): written once by `manage.py provision`, so it is read once per process."""

    def __init__(self) -> None:
        self._id: uuid.UUID | None = None

    def get(self) -> uuid.UUID | None:
        if self._id is None and settings.INVENTORY_ROLE == "site":
            self._id = StorageSite.objects.values_list("id", flat=True).first()
        return self._id

    def clear(self) -> None:
        self._id = None


def clear_caches() -> None:
    """Forget what this process knows of tokens, keys and itself."""
    _token_callers.clear()
    _own_site.clear()
    keys.trusted_key_cache.clear()
    keys.signing_key_cache.clear()


_token_callers = _TokenCallers()
_own_site = _OwnSite()
