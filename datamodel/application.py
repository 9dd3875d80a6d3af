"""The WSGI application of both roles: Django's handler, and a shorter one for requests that cannot be a browser's session.

What keeps sessions, messages and CSRF tokens is of no use where no cookie was sent, and costs as much as finding a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries

Environ = dict[str, Any]
Start = Callable[..., Any]


class _DirectHandler(WSGIHandler):
    """Without the middleware of pages."""

    def load_middleware(self, is_async: bool = False) -> None:  # noqa: FBT001, FBT002  # Django's
        whole = settings.MIDDLEWARE
        settings.MIDDLEWARE = [name for name in whole if name not in settings.PAGE_MIDDLEWARE]
        try:
            super().load_middleware(is_async)
        finally:
            settings.MIDDLEWARE = whole


class Application:
    """Chooses by what was sent: pages of the admin and whatever comes with a cookie are Django's whole handler's."""

    def __init__(self) -> None:
        django.setup(set_prefix=False)
        # The end of each request closes its connections, and statements are noted where DEBUG is on only: nothing is left to do
        # before the next.
        request_started.disconnect(close_old_connections)
        request_started.disconnect(reset_queries)
        self._whole = WSGIHandler()
        self._direct = _DirectHandler()
        self._pages = tuple(f"/{settings.INVENTORY_BASE_PATH}{name}" for name in ("admin", "static"))

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        is_page = "HTTP_COOKIE" in environ or environ.get("PATH_INFO", "").startswith(self._pages)
        answer: Iterable[bytes] = (self._whole if is_page else self._direct)(environ, start_response)
        return answer
