"""What surrounds a request for the audit: who acts, that somebody was refused, that a file was read."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from datamodel.audit import acting
from datamodel.audit.acting import Acting
from datamodel.audit.pending import pending
from datamodel.audit.reads import read_rules
from datamodel.audit.rules import Action
from datamodel.logs import request_id

_FILES = "files/"
# What a site answers with content, and a global with the address of a site.
_READ = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.SEE_OTHER})
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_ACTIONS = {
    "GET": Action.READ,
    "HEAD": Action.READ,
    "PUT": Action.PUT,
    "DELETE": Action.DELETE,
    "POST": Action.METADATA,
}


class AuditMiddleware:
    """Operations record what was done, in their transactions; here is what no operation sees."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with acting.on_behalf_of(Acting(request=request)):
            response = self.get_response(request)
            if getattr(response, "is_refusal", response.status_code in _REFUSED):
                _note_refusal(request, getattr(response, "reason_code", None) or str(response.status_code))
            elif request.method in {"GET", "HEAD"} and response.status_code in _READ:
                _note_read(request)
            return response


def uri_of(request: HttpRequest) -> str | None:
    """The uri (or namespace) that a request below `/files/` is about, without the token of a signed URL."""
    path = request.path_info.removeprefix(f"/{settings.INVENTORY_BASE_PATH}")
    if not path.startswith(_FILES):
        return None
    first, slash, rest = path.removeprefix(_FILES).partition("/")
    # A token has no colon, a scheme ends with one.
    named = f"{first}{slash}{rest}" if ":" in first else rest
    return named.partition(":fo/")[0]


def _note_refusal(request: HttpRequest, reason: str) -> None:
    uri = uri_of(request)
    action = Action.REQUEST if uri is None else _ACTIONS.get(str(request.method), Action.REQUEST)
    subject = f"{request.method} {request.path_info}" if uri is None else uri
    pending.refused(acting.actor_of(request), action, subject, reason=reason, request=request_id.get())


def _note_read(request: HttpRequest) -> None:
    uri = uri_of(request)
    if not uri or uri.endswith(("/", ":")):
        return
    percent = read_rules.chosen(uri)
    # HEAD tells of a file, but reads nothing of it.
    if percent and request.method == "GET":
        pending.read(acting.actor_of(request), uri, percent=percent, request=request_id.get())
