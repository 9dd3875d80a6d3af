"""The WSGI application of both roles: Django's handler, and a shorter one for requests that cannot be a browser's session.

What keeps sessions, messages and CSRF tokens is of no use where no cookie was sent, and costs as much as finding a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from io import BytesIO
from typing import Any

import django
from django.conf import settings
from django.core.cache import close_caches
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.signals import request_finished, request_started
from django.db import DEFAULT_DB_ALIAS, close_old_connections, connections, reset_queries
from django.http import HttpRequest, HttpResponse
from django.http.request import HttpHeaders
from django.http.response import HttpResponseBase
from django.utils.log import log_response
from django.utils.module_loading import import_string

Environ = dict[str, Any]
Start = Callable[..., Any]


class _Headers(HttpHeaders):
    """Looked up where the server has put them; all of them are put together only for who asks for all."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    @cached_property
    def _store(self) -> dict[str, tuple[str, str]]:  # type: ignore[override]  # typed as what is written to
        return HttpHeaders(self._environ)._store

    def __getitem__(self, key: str) -> str:
        value: str = self._environ[_environ_key(key)]
        return value

    def __contains__(self, key: object) -> bool:
        return _environ_key(str(key)) in self._environ


@lru_cache(256)
def _environ_key(header: str) -> str:
    key = header.upper().replace("-", "_")
    return key if key in HttpHeaders.UNPREFIXED_HEADERS else f"{HttpHeaders.HTTP_PREFIX}{key}"


class _DirectRequest(WSGIRequest):
    @cached_property
    def headers(self) -> HttpHeaders:
        return _Headers(self.META)


class _DirectHandler(WSGIHandler):
    """Without the middleware of pages; what others say of every answer alike, they are asked once."""

    request_class = _DirectRequest

    def load_middleware(self, is_async: bool = False) -> None:  # noqa: FBT001, FBT002  # Django's
        whole = settings.MIDDLEWARE
        left_out = settings.PAGE_MIDDLEWARE | settings.CONSTANT_MIDDLEWARE
        settings.MIDDLEWARE = [name for name in whole if name not in left_out]
        try:
            super().load_middleware(is_async)
        finally:
            settings.MIDDLEWARE = whole
        self._constant = {is_secure: _constant_headers(is_secure=is_secure) for is_secure in (False, True)}

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        """As Django's, but for the thread's URLconf, which nobody changes."""
        response: HttpResponse = self._middleware_chain(request)  # type: ignore[attr-defined]  # set by `load_middleware`
        response._resource_closers.append(request.close)  # type: ignore[attr-defined]  # as Django does
        for name, value in self._constant[request.is_secure()].items():
            response.headers.setdefault(name, value)
        if response.status_code >= 400:
            log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request)
        return response


def _constant_headers(*, is_secure: bool) -> dict[str, str]:
    """What CONSTANT_MIDDLEWARE adds to an answer."""
    bare, told = HttpResponse(), HttpResponse()
    for name in settings.CONSTANT_MIDDLEWARE:
        request = WSGIRequest(
            {"REQUEST_METHOD": "GET", "wsgi.input": BytesIO(), "wsgi.url_scheme": "https" if is_secure else "http"}
        )
        told = import_string(name)(lambda _, answer=told: answer)(request)
    return {name: value for name, value in told.items() if name not in bare}


class Application:
    """Chooses by what was sent: pages of the admin and whatever comes with a cookie are Django's whole handler's."""

    def __init__(self) -> None:
        django.setup(set_prefix=False)
        # The end of each request gives its connection back, statements are noted where DEBUG is on only, and caches are this
        # process's own: nothing is left to do before the next.
        request_started.disconnect(close_old_connections)
        request_started.disconnect(reset_queries)
        request_finished.disconnect(close_old_connections)
        request_finished.disconnect(close_caches)
        request_finished.connect(_give_connection_back)
        self._whole = WSGIHandler()
        self._direct = _DirectHandler()
        self._pages = tuple(f"/{settings.INVENTORY_BASE_PATH}{name}" for name in ("admin", "static"))

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        is_page = "HTTP_COOKIE" in environ or environ.get("PATH_INFO", "").startswith(self._pages)
        answer: Iterable[bytes] = (self._whole if is_page else self._direct)(environ, start_response)
        return answer


def _give_connection_back(**_: object) -> None:
    """Most requests have none by now."""
    ours = connections[DEFAULT_DB_ALIAS]
    if ours.connection is not None:
        ours.close_if_unusable_or_obsolete()
