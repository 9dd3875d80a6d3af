"""X.509 client certificates, as a trusted proxy passes on what it has verified: the DN in one header, the verdict in another.

Off unless `INVENTORY_CLIENT_CERTIFICATE_HEADER` names the header; then it may come from proxies of ours only.
"""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from datamodel.distinguished_names import canonical_dn
from datamodel.errors import InvalidRequestError, NotAuthenticatedError, NotPermittedError
from datamodel.permissions import Caller, known
from datamodel.problems import problem_response, wants_plain
from datamodel.proxies import is_from_proxy

_VERIFIED = "SUCCESS"
_UNASKED = "NONE"


def caller_of_certificate(request: HttpRequest) -> Caller | None:
    """Whom the proxy has seen; None without a certificate.

    Raises `NotAuthenticatedError` for one that is not verified, `NotPermittedError` for a request that another page made.
    """
    if not settings.INVENTORY_CLIENT_CERTIFICATE_HEADER:
        return None
    name = request.headers.get(settings.INVENTORY_CLIENT_CERTIFICATE_HEADER, "")
    verdict = request.headers.get(settings.INVENTORY_CLIENT_VERIFY_HEADER, "")
    if not name and verdict in {"", _UNASKED}:
        return None
    if verdict != _VERIFIED:
        raise NotAuthenticatedError(
            f"the client certificate is not verified ({verdict or 'the proxy does not say'!r:.100})"
        )
    try:
        found = canonical_dn(name, is_from_slashes=False)
    except InvalidRequestError as error:
        raise NotAuthenticatedError(f"the client certificate: {error.detail}") from None
    _refuse_forged(request)
    return Caller(found, "x509", frozenset(), principals=known([f"dn:{found}"]))


def _refuse_forged(request: HttpRequest) -> None:
    """A browser shows its certificate whoever made the page; then it says whose page that is."""
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "same-origin")
    if site not in {"same-origin", "none"} or (origin is not None and origin not in settings.CSRF_TRUSTED_ORIGINS):
        raise NotPermittedError("the request was made by a page of another site")


class CertificateHeaderMiddleware:
    """Refuses whoever sends a header that only a proxy of ours may send, whatever else the request shows."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        if not settings.INVENTORY_CLIENT_CERTIFICATE_HEADER:
            raise MiddlewareNotUsed
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        ours = (settings.INVENTORY_CLIENT_CERTIFICATE_HEADER, settings.INVENTORY_CLIENT_VERIFY_HEADER)
        if not is_from_proxy(request) and any(name in request.headers for name in ours):
            refusal = NotPermittedError("client certificates are told by this service's own proxy only")
            return problem_response(refusal, plain=wants_plain(request))
        return self.get_response(request)
