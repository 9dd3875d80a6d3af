"""What surrounds every request: an id, one END line, and the answer to errors of plain views."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from datamodel.errors import InventoryError
from datamodel.logs import request_id
from datamodel.problems import problem_response, unexpected_response, wants_plain

logger = logging.getLogger("inventory.http")

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
# Probes and scrapes come every few seconds and say nothing new.
_QUIET = ("/livez", "/readyz", "/metrics")

View = Callable[[HttpRequest], HttpResponseBase]


class RequestLogMiddleware:
    """Binds a request id (taken from `X-Request-ID` if sane) and logs one END line when the headers are ready."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get("X-Request-ID", "")
        identity = given if _SAFE_ID.match(given) else uuid.uuid4().hex[:12]
        bound = request_id.set(identity)
        started = time.monotonic()
        try:
            response = self.get_response(request)
            response["X-Request-ID"] = identity
            if not request.path.endswith(_QUIET):
                self._log(request, response, time.monotonic() - started)
            return response
        finally:
            request_id.reset(bound)

    def _log(self, request: HttpRequest, response: HttpResponseBase, seconds: float) -> None:
        facts = {
            "method": request.method,
            "path": request.path,
            "status": response.status_code,
            "seconds": f"{seconds:.3f}",
            "caller": getattr(request, "caller_name", None),
            "reason": getattr(response, "reason_code", None),
        }
        logger.info("END event=request", extra={"facts": facts})


class ProblemMiddleware:
    """Errors of plain views become answers by the one table; anything else is a 500 with an id."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        # Django's own (404, suspicious requests) keep their meaning.
        if isinstance(exception, InventoryError):
            response = problem_response(exception, plain=wants_plain(request))
            response.reason_code = exception.code  # type: ignore[attr-defined]  # read by the log line
            return response
        if type(exception).__module__.startswith("django."):
            return None
        return unexpected_response(exception, plain=wants_plain(request))
