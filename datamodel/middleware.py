"""What surrounds every request: an id, one END line, counters, a content policy, and the answer to errors of plain views."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from datamodel import metrics, rates
from datamodel.errors import RestoringError, TooManyRequestsError
from datamodel.logs import request_id
from datamodel.permissions import Caller
from datamodel.problems import known_error, problem_response, unexpected_response, wants_plain
from datamodel.restoration import gate

logger = logging.getLogger("inventory.http")

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
# Probes and scrapes come every few seconds and say nothing new.
_QUIET = frozenset({"livez", "readyz", "metrics"})

# What says how we are, or what we are, does so while we are restored too.
_ALWAYS_OPEN = _QUIET | {"landing", "availability", "capabilities", "schema", "docs"}

# Our own pages, the admin too: files of this service, nothing inline, nothing from elsewhere.
PAGE_POLICY = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
# Swagger UI styles its elements inline; its page shows nothing that a caller has made.
DOCS_POLICY = f"{PAGE_POLICY}; style-src 'self' 'unsafe-inline'"
# Everything else, above all the content of files: an uploaded page must not act with an operator's session.
CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"

View = Callable[[HttpRequest], HttpResponseBase]


class RequestLogMiddleware:
    """Binds a request id (taken from `X-Request-ID` if sane), logs one END line and counts when the headers are ready."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get("X-Request-ID", "")
        identity = given if _SAFE_ID.match(given) else secrets.token_hex(6)
        bound = request_id.set(identity)
        started = time.monotonic()
        try:
            response = self.get_response(request)
            response["X-Request-ID"] = identity
            if _route(request) not in _QUIET:
                self._report(request, response, time.monotonic() - started)
            return response
        finally:
            request_id.reset(bound)

    def _report(self, request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
        reason = getattr(response, "reason_code", None)
        metrics.count_request(request.method or "", response.status_code, reason, seconds)
        facts = {
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "seconds": f"{seconds:.3f}",
            "caller": getattr(request, "caller_name", None),
            "reason": reason,
        }
        logger.info("END event=request", extra={"facts": facts})


class AnswerMiddleware:
    """What every answer has: a length unless it streams, no body for HEAD, and a Content-Security-Policy.

    The policy is strict for pages of the admin and a sandbox for the rest, unless the view has set one.
    """

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if isinstance(response, HttpResponse) and "Content-Length" not in response:
            response["Content-Length"] = str(len(response.content))
            # Not every WSGI server drops the body of an answer to HEAD.
            response.content = b"" if request.method == "HEAD" else response.content
        is_admin = request.resolver_match is not None and "admin" in request.resolver_match.app_names
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY if is_admin else CONTENT_POLICY)
        caller: Caller | None = getattr(request, "caller", None)
        if caller is not None and caller.is_anonymous:
            # What nobody known is told, no cache shall tell those whom we know.
            patch_vary_headers(response, ["Authorization", "Cookie"])
        rates.set_headers(request, response)
        return response


class ProblemMiddleware:
    """Errors of plain views become answers by the one table; anything else is a 500 with an id."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        known = known_error(exception)
        if known is not None:
            return problem_response(known, plain=wants_plain(request))
        return unexpected_response(exception, plain=wants_plain(request))


class LoginMiddleware:
    """Passwords can be guessed: after too many wrong ones from an address no more of them are looked at for a while."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        # The form again: what was in it was wrong.
        if _is_login(request) and response.status_code == 200:
            rates.charge_login(request)
        return response

    def process_view(
        self, request: HttpRequest, view: View, arguments: Sequence[object], names: Mapping[str, object]
    ) -> HttpResponse | None:
        del view, arguments, names
        try:
            if _is_login(request):
                rates.check_login(request)
        except TooManyRequestsError as error:
            return problem_response(error, plain=True)
        return None


class RestorationMiddleware:
    """A restored inventory is closed to everybody until it agrees with its peers again; probes, metrics and the admin are not.

    The feed is asked about exactly: what left it before the peers were heard would travel on.
    """

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: View, arguments: Sequence[object], names: Mapping[str, object]
    ) -> HttpResponse | None:
        del view, arguments, names
        match = request.resolver_match
        if match is None or match.url_name in _ALWAYS_OPEN or "admin" in match.app_names:
            return None
        try:
            gate.check(is_exact="harvest/" in match.route)
        except RestoringError as error:
            return problem_response(error, plain=wants_plain(request))
        return None


def _is_login(request: HttpRequest) -> bool:
    match = request.resolver_match
    return request.method == "POST" and match is not None and match.view_name == "admin:login"


def _route(request: HttpRequest) -> str | None:
    return request.resolver_match.url_name if request.resolver_match is not None else None
