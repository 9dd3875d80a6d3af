"""Listings over HTTP, for both roles: the bounds of a page, the query of the next one, and streams of lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from urllib.parse import urlencode

from django.http import HttpRequest

from datamodel.errors import InvalidRequestError

MAX_LIMIT = 10_000
_DEFAULT_LIMIT = 1000
_CHUNK_LINES = 200


def page_bounds(request: HttpRequest) -> tuple[int, str]:
    """`limit` and `after`. Raises `InvalidRequestError`."""
    text = request.GET.get("limit", str(_DEFAULT_LIMIT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_LIMIT:
        raise InvalidRequestError(f"invalid limit {text!r}: write a number from 1 to {MAX_LIMIT}")
    after = request.GET.get("after", "")
    if "\0" in after:
        raise InvalidRequestError("invalid after: pass on the one of the last page")
    return int(text), after


def next_page(request: HttpRequest, after: str | None) -> str | None:
    """The query of the next page, to be put behind the same path."""
    if after is None:
        return None
    kept = {name: value for name, value in request.GET.items() if name != "after"}
    return f"?{urlencode(kept | {'after': after})}"


def chunks(lines: Iterable[str]) -> Iterator[bytes]:
    """A few lines at a time: one write per line would cost more than the line. A failure cuts the stream visibly."""
    held: list[str] = []
    for line in lines:
        held.append(line)
        if len(held) == _CHUNK_LINES:
            yield "".join(held).encode()
            held.clear()
    yield "".join(held).encode()


def moment_of(text: str) -> datetime:
    """A time with its zone (RFC 3339). Raises `InvalidRequestError`."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise InvalidRequestError(
            f"{text!r} is not a time: write it as 2026-01-31T12:00:00Z (a + of a zone is %2B in a query)"
        )
    return when
