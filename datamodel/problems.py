"""The one table from error to HTTP, as RFC 9457 problem+json, or plain text where OpenCADC clients expect it."""

from __future__ import annotations

import json
import logging
import uuid
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions as drf
from rest_framework.response import Response

from datamodel import errors
from datamodel.errors import InventoryError
from datamodel.logs import request_id

logger = logging.getLogger(__name__)

STATUS: dict[type[InventoryError], HTTPStatus] = {
    errors.InvalidUriError: HTTPStatus.BAD_REQUEST,
    errors.InvalidChecksumError: HTTPStatus.BAD_REQUEST,
    errors.InvalidRequestError: HTTPStatus.BAD_REQUEST,
    errors.NotAuthenticatedError: HTTPStatus.UNAUTHORIZED,
    errors.NotPermittedError: HTTPStatus.FORBIDDEN,
    errors.TooManyRequestsError: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ReadOnlyError: HTTPStatus.FORBIDDEN,
    errors.RouteNotFoundError: HTTPStatus.NOT_FOUND,
    errors.MethodNotAllowedError: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.NotAcceptableError: HTTPStatus.NOT_ACCEPTABLE,
    errors.UnsupportedMediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.ArtifactNotFoundError: HTTPStatus.NOT_FOUND,
    errors.TransactionNotFoundError: HTTPStatus.NOT_FOUND,
    errors.CursorGoneError: HTTPStatus.GONE,
    errors.HistoryGoneError: HTTPStatus.GONE,
    errors.MomentGoneError: HTTPStatus.GONE,
    errors.StateConflictError: HTTPStatus.CONFLICT,
    errors.RaceLostError: HTTPStatus.CONFLICT,
    errors.PreconditionFailedError: HTTPStatus.PRECONDITION_FAILED,
    errors.ChecksumMismatchError: HTTPStatus.PRECONDITION_FAILED,
    errors.LengthMismatchError: HTTPStatus.PRECONDITION_FAILED,
    errors.ShortBodyError: HTTPStatus.BAD_REQUEST,
    errors.EmptyContentError: HTTPStatus.BAD_REQUEST,
    errors.ContentTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.RangeNotSatisfiableError: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.NotConfiguredError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeletionBrakeError: HTTPStatus.CONFLICT,
    errors.NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RestoringError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DatabaseUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StorageFullError: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.StoredObjectMissingError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RemoteUnavailableError: HTTPStatus.BAD_GATEWAY,
    errors.RemoteRefusedError: HTTPStatus.BAD_GATEWAY,
    errors.RemoteProtocolError: HTTPStatus.BAD_GATEWAY,
    # Closed, not broken: whoever has a local grant is served.
    errors.PermissionUnknownError: HTTPStatus.FORBIDDEN,
    errors.PositionNotReachedError: HTTPStatus.SERVICE_UNAVAILABLE,
}
RETRY_AFTER_SECONDS = "2"
_COME_AGAIN = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
_HERE_IS_NOTHING = "there is nothing at this address; /docs lists what there is"
_FROM_DRF: dict[type[drf.APIException], type[InventoryError]] = {
    drf.NotFound: errors.RouteNotFoundError,
    drf.NotAuthenticated: errors.NotAuthenticatedError,
    drf.AuthenticationFailed: errors.NotAuthenticatedError,
    drf.PermissionDenied: errors.NotPermittedError,
    drf.MethodNotAllowed: errors.MethodNotAllowedError,
    drf.NotAcceptable: errors.NotAcceptableError,
    drf.UnsupportedMediaType: errors.UnsupportedMediaTypeError,
}


def status_of(error: InventoryError) -> HTTPStatus:
    """By the nearest class in the table; every leaf is in it."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def problem_response(error: InventoryError, *, plain: bool = False) -> HttpResponse:
    """The answer to a failed request; `plain` gives text/plain for the OpenCADC endpoints."""
    status = status_of(error)
    if plain:
        response = HttpResponse(f"{error.detail}\n", status=status, content_type="text/plain; charset=utf-8")
    else:
        response = HttpResponse(
            json.dumps(_body(error, status)), status=status, content_type="application/problem+json"
        )
    _complete(response, error, status)
    return response


def unexpected_response(error: BaseException, *, plain: bool = False) -> HttpResponse:
    """500 with an id that the log line carries too, and no text of the failure."""
    identity = request_id.get() or uuid.uuid4().hex[:12]
    logger.error("unexpected", exc_info=error, extra={"facts": {"id": identity}})
    detail = f"unexpected failure {identity}; the service's log has it under that id"
    hidden = InventoryError(detail, id=identity)
    return problem_response(hidden, plain=plain)


def drf_exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """REST framework's door to the same table."""
    del context
    known = known_error(error)
    if known is None:
        return None
    status = status_of(known)
    response = Response(_body(known, status), status=status, content_type="application/problem+json")
    _complete(response, known, status)
    return response


def known_error(error: Exception) -> InventoryError | None:
    """What a failure means to a caller, where the frameworks raise theirs; None for one that nobody foresaw."""
    if isinstance(error, InventoryError):
        return error
    if isinstance(error, (OperationalError, InterfaceError)):
        logger.warning("END event=database", extra={"facts": {"result": "failed", "reason": str(error).strip()}})
        return errors.DatabaseUnavailableError("the database does not answer; try again")
    if isinstance(error, Http404):
        return errors.RouteNotFoundError(_HERE_IS_NOTHING)
    if isinstance(error, PermissionDenied):
        return errors.NotPermittedError(str(error) or "this is not permitted")
    if isinstance(error, RequestDataTooBig):
        return errors.ContentTooLargeError(f"the body may have at most {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes")
    if isinstance(error, UnreadablePostError):
        return errors.ShortBodyError("the body was cut, or nothing came for too long")
    if isinstance(error, BadRequest | SuspiciousOperation | MultiPartParserError):
        return errors.InvalidRequestError(str(error) or "the request is malformed")
    return _from_drf(error) if isinstance(error, drf.APIException) else None


def _from_drf(error: drf.APIException) -> InventoryError:
    detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail)
    for kind, ours in _FROM_DRF.items():
        if isinstance(error, kind):
            return ours(str(detail))
    return errors.InvalidRequestError(str(detail))


def _body(error: InventoryError, status: HTTPStatus) -> dict[str, object]:
    facts = {key: value for key, value in error.fields.items() if value is not None}
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": error.detail,
        "code": error.code,
        "retryable": error.retryable,
        **facts,
    }


def _complete(response: HttpResponse | Response, error: InventoryError, status: HTTPStatus) -> None:
    response.reason_code = error.code  # type: ignore[union-attr]  # read by the log line and the counters
    response.is_refusal = error.is_refusal  # type: ignore[union-attr]  # read by the audit
    response["Cache-Control"] = "no-store"
    # What is said not to be there may be there for somebody: credentials might change the answer.
    if status == HTTPStatus.UNAUTHORIZED or isinstance(error, errors.ArtifactNotFoundError):
        response["WWW-Authenticate"] = 'Bearer realm="inventory", Basic realm="inventory", charset="UTF-8"'
    if error.retryable and status in _COME_AGAIN:
        response["Retry-After"] = str(error.fields.get("retry_after", RETRY_AFTER_SECONDS))
    if isinstance(error, errors.RangeNotSatisfiableError):
        response["Content-Range"] = f"bytes */{error.fields['length']}"
    if isinstance(error, errors.PreconditionFailedError) and error.fields.get("etag"):
        response["ETag"] = str(error.fields["etag"])


def wants_plain(request: HttpRequest) -> bool:
    """OpenCADC clients (by their User-Agent) read error bodies as one line of text; so does who accepts only text/plain."""
    accept = request.headers.get("Accept", "")
    agent = request.headers.get("User-Agent", "").lower()
    return "cadc" in agent or ("text/plain" in accept and "json" not in accept)
