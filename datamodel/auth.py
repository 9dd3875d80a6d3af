"""Who is calling: signed URL, JWT of a paired inventory or a trusted issuer, API token (Bearer or Basic password), client
certificate, admin session, else anonymous.

The first match wins; bad credentials never fall through to anonymous.
"""

from __future__ import annotations

import base64
import uuid
from datetime import UTC, datetime
from typing import NoReturn, cast

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

from datamodel import access, certificates, issuers, keys, preauth, rates, service_tokens
from datamodel.errors import NotAuthenticatedError, NotPermittedError
from datamodel.models import StorageSite
from datamodel.permission_service import memory
from datamodel.permissions import ALL_GRANTS, ANONYMOUS, Caller, grants_of, known
from datamodel.tokens import create_api_token, new_token, revoke_api_tokens, token_callers, token_digest
from datamodel.uris import ArtifactUri

__all__ = [
    "authenticate",
    "authenticate_url",
    "caller_of",
    "caller_of_user",
    "clear_caches",
    "create_api_token",
    "new_token",
    "note_caller",
    "revoke_api_tokens",
    "token_digest",
]


def caller_of(request: HttpRequest) -> Caller:
    """Who is calling, noted for the log line; asked and counted once per request.

    Raises as `authenticate` does, and `TooManyRequestsError`.
    """
    found: Caller | None = getattr(request, "caller", None)
    if found is None:
        try:
            found = authenticate(request)
        except NotAuthenticatedError:
            rates.charge_failure(request)
            raise
        note_caller(request, found)
        rates.charge_caller(request, found)
    return found


def note_caller(request: HttpRequest, caller: Caller) -> None:
    """Who was found to be calling."""
    request.caller = caller  # type: ignore[attr-defined]  # our own
    request.caller_name = caller.name  # type: ignore[attr-defined]  # read by the log line


def authenticate(request: HttpRequest) -> Caller:
    """The caller by its headers or admin session.

    Raises `NotAuthenticatedError` for bad credentials, `NotPermittedError` for a session or certificate whose request another page made and for
    a method that the token is not for.
    """
    if token := _presented_token(request):
        if service_tokens.is_service_token(token):
            return service_tokens.caller_of(token)
        if issuers.is_jwt(token):
            return issuers.caller_of_jwt(token)
        found = token_callers.get(token)
        if found.methods is not None and request.method not in found.methods | {"OPTIONS"}:
            raise NotPermittedError(f"the token {found.caller.name} is for {', '.join(sorted(found.methods))} only")
        return found.caller
    if (certified := certificates.caller_of_certificate(request)) is not None:
        return certified
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        _refuse_forged(request)
        return caller_of_user(cast("AbstractUser", user))
    return Caller(ANONYMOUS, ANONYMOUS, frozenset())


def caller_of_user(user: AbstractUser) -> Caller:
    """A user of the admin, with the groups that it has there."""
    groups = user.groups.values_list("name", flat=True)
    principals = known([f"user:{user.get_username()}", *(f"group:{name}" for name in groups)])
    return Caller(
        user.get_username(), "session", ALL_GRANTS if user.is_superuser else frozenset(), principals=principals
    )


def authenticate_url(token: str, uri: ArtifactUri, *, http_method: str, begun_at: datetime | None = None) -> Caller:
    """The caller by a signed URL. Raises `NotPermittedError`; other credentials of the request are not considered.

    Expiry is judged at `begun_at` (default: now), when what this request continues was begun with the same URL.
    """
    now = begun_at or datetime.now(UTC)
    if preauth.is_legacy(token) and settings.INVENTORY_LEGACY_TOKENS:
        public_keys = [bytes.fromhex(key) for key in settings.INVENTORY_LEGACY_PUBLIC_KEYS]
        claims = preauth.verify_legacy(token, uri, public_keys=public_keys, now=now)
    else:
        trusted = keys.trust_cache.url_keys(preauth.key_id_of(token))
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
    except ValueError:  # not base64, not ASCII, or not UTF-8 inside
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
    token_callers.clear()
    access.forget()
    issuers.forget()
    memory.forget()
    _own_site.clear()
    keys.trust_cache.clear()
    service_tokens.clear()
    keys.signing_key_cache.clear()


_own_site = _OwnSite()
