"""One table from error to HTTP: complete, documented, the same through every door."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, TooManyFieldsSent
from django.db import OperationalError, ProgrammingError
from django.http import Http404, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.test import RequestFactory
from rest_framework import exceptions as drf

from datamodel import errors, problems
from datamodel.errors import InventoryError

README = Path(problems.__file__).with_name("README.md")
ABSTRACT = {errors.CallerError, errors.InventoryStateError, errors.StorageError, errors.RemoteError}


def descendants(kind: type[InventoryError]) -> Iterator[type[InventoryError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def ours() -> list[type[InventoryError]]:
    found = {kind for kind in descendants(InventoryError) if not kind.__module__.startswith("tests.")}
    return sorted(found, key=lambda kind: kind.code)


def leaves() -> list[type[InventoryError]]:
    return [kind for kind in ours() if kind not in ABSTRACT]


def test_every_error_that_can_be_raised_is_in_the_table() -> None:
    assert len(leaves()) >= 25
    assert [kind for kind in leaves() if problems.status_of(kind("x")) == HTTPStatus.INTERNAL_SERVER_ERROR] == []


def test_every_code_is_one_words_and_of_one_error() -> None:
    codes = [InventoryError.code, *(kind.code for kind in ours())]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z0-9_]+", code) for code in codes)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"(\w+Error)\b", errors.__doc__ or "")
    in_module = [kind.__name__ for kind in ours() if kind.__module__ == errors.__name__]
    assert sorted(drawn) == sorted(["InventoryError", *in_module])


def test_the_readme_lists_every_code_with_status_and_whether_to_try_again() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (\d{3}) \| (yes|no) \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    listed: list[type[InventoryError]] = [InventoryError, *leaves()]
    expected = {
        (kind.code, str(problems.status_of(kind("x")).value), "yes" if kind.retryable else "no") for kind in listed
    }
    assert set(rows) == expected


@pytest.mark.parametrize("kind", leaves(), ids=[kind.code for kind in leaves()])
def test_each_error_becomes_a_problem_and_a_line_of_text(kind: type[InventoryError]) -> None:
    error = kind("what is wrong", length=10)
    response = problems.problem_response(error)
    body = json.loads(response.content)
    assert response["Content-Type"] == "application/problem+json"
    assert response["Cache-Control"] == "no-store"
    assert body == {
        "type": "about:blank",
        "title": problems.status_of(error).phrase,
        "status": response.status_code,
        "detail": "what is wrong",
        "code": kind.code,
        "retryable": kind.retryable,
        "length": 10,
    }
    plain = problems.problem_response(error, plain=True)
    assert (plain.status_code, plain.content) == (response.status_code, b"what is wrong\n")
    assert plain["Content-Type"] == "text/plain; charset=utf-8"


def test_headers_that_clients_act_on() -> None:
    unauthorized = problems.problem_response(errors.NotAuthenticatedError("x"))
    assert unauthorized["WWW-Authenticate"].startswith("Bearer ")
    assert "Basic " in unauthorized["WWW-Authenticate"]
    assert problems.problem_response(errors.StorageUnavailableError("x"))["Retry-After"] == "2"
    assert "Retry-After" not in problems.problem_response(errors.StorageFullError("x"))
    outside = problems.problem_response(errors.RangeNotSatisfiableError("x", length=7))
    assert outside["Content-Range"] == "bytes */7"
    assert problems.problem_response(errors.PreconditionFailedError("x", etag='"a"'))["ETag"] == '"a"'


FOREIGN = [
    (drf.NotFound(), 404, "route_not_found"),
    (drf.NotAuthenticated(), 401, "not_authenticated"),
    (drf.AuthenticationFailed(), 401, "not_authenticated"),
    (drf.PermissionDenied(), 403, "not_permitted"),
    (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
    (drf.NotAcceptable(), 406, "not_acceptable"),
    (drf.UnsupportedMediaType("x/y"), 415, "unsupported_media_type"),
    (drf.ParseError(), 400, "invalid_request"),
    (drf.ValidationError({"limit": ["too large"]}), 400, "invalid_request"),
    (Http404("x"), 404, "route_not_found"),
    (PermissionDenied(), 403, "not_permitted"),
    (BadRequest("x"), 400, "invalid_request"),
    (OperationalError("the server closed the connection"), 503, "database_unavailable"),
]


@pytest.mark.parametrize(("error", "status", "code"), FOREIGN, ids=[type(case[0]).__name__ for case in FOREIGN])
def test_errors_of_the_frameworks_have_their_place(error: Exception, status: int, code: str) -> None:
    response = problems.drf_exception_handler(error, {})
    assert response is not None
    assert response.data is not None
    assert (response.status_code, response.data["code"]) == (status, code)
    assert response.data["detail"]


def test_validation_tells_the_field() -> None:
    response = problems.drf_exception_handler(drf.ValidationError({"limit": ["too large"]}), {})
    assert response is not None
    assert response.data is not None
    assert json.loads(response.data["detail"]) == {"limit": ["too large"]}


@pytest.mark.parametrize("error", [ValueError("x"), ProgrammingError("x"), KeyError("x")])
def test_what_nobody_foresaw_is_left_to_the_last_resort(error: Exception) -> None:
    assert problems.known_error(error) is None
    response = problems.unexpected_response(error)
    assert response.status_code == 500
    assert json.loads(response.content)["code"] == "inventory_error"


def test_a_database_failure_does_not_tell_its_text() -> None:
    known = problems.known_error(OperationalError('connection to "10.0.0.1", user "secret" failed'))
    assert known is not None
    assert "secret" not in known.detail


CLIENTS = [
    ({"User-Agent": "cadcutils/1.5 cadcdata"}, True),
    ({"User-Agent": "curl/8"}, False),
    ({"Accept": "text/plain"}, True),
    ({"Accept": "application/problem+json, text/plain"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("headers", "expected"), CLIENTS)
def test_clients_of_opencadc_get_text(headers: dict[str, str], expected: bool) -> None:
    assert problems.wants_plain(RequestFactory().get("/", headers=headers)) is expected


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnreadablePostError("timed out"), "short_body"),
        (MultiPartParserError("Invalid boundary"), "invalid_request"),
        (RequestDataTooBig("Request body exceeded"), "content_too_large"),
        (TooManyFieldsSent("too many"), "invalid_request"),
    ],
)
def test_what_the_framework_says_of_a_body_is_the_callers_mistake(error: Exception, code: str) -> None:
    known = problems.known_error(error)
    assert known is not None
    assert known.code == code
    assert "settings." not in known.detail
