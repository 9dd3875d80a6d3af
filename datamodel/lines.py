"""Whole listings as lines of JSON, which PostgreSQL writes: several of its processes at a time, and a few pages in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from django.db import connection

from datamodel.queries import PAGE_END, rows_in_ranges
from datamodel.reach import Range, Reach

# Of the whole process: a page is work for the database, and it has other work.
_FETCHERS = min(os.cpu_count() or 1, 4)
_fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="lines")
# Pages of one listing that are on their way or wait to be sent.
_AHEAD = _FETCHERS + 1
_URIS_SQL = f"SELECT a.uri FROM artifact a WHERE a.uri >= r.low AND a.uri < r.high {PAGE_END}"

_Page = list[tuple[str, str]]


def json_lines(
    sql: str, prefix: str, readable: Reach, *, limit: int, parameters: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Every readable row below a prefix as a line of JSON; holds a few pages of `limit` rows, and no connection between them.

    `sql` is as for `rows_in_ranges`. What is there for the whole time is listed once; what comes or goes meanwhile may or may not be.
    """
    listing = _Listing(f"SELECT p.uri, row_to_json(p)::text FROM ({sql}) p", limit, parameters or {})
    page = listing.page(readable.after(prefix, ""))
    yield from _lines(page)
    # Who needs a second page needs many, mostly.
    if len(page) == limit:
        yield from listing.rest(Reach(tuple(readable.after(prefix, page[-1][0]))))


@dataclass(frozen=True, slots=True)
class _Listing:
    sql: str
    limit: int
    parameters: Mapping[str, Any]

    def page(self, ranges: Sequence[Range]) -> _Page:
        """The first rows of these ranges: (uri, JSON)."""
        try:
            return rows_in_ranges(self.sql, ranges, limit=self.limit, parameters=self.parameters)
        finally:
            connection.close()

    def rest(self, left: Reach) -> Iterator[str]:
        """The lines of what is left, its stretches being fetched side by side."""
        pages: deque[tuple[Reach, Future[_Page]]] = deque()
        try:
            for stretch in self._stretches(left):
                pages.append((stretch, _fetchers.submit(self.page, stretch.ranges)))
                if len(pages) == _AHEAD:
                    yield from self._whole(*pages.popleft())
            while pages:
                yield from self._whole(*pages.popleft())
        finally:
            for _, page in pages:
                page.cancel()

    def _stretches(self, left: Reach) -> Iterator[Reach]:
        """What is left, cut where a page ends by the uris alone, which takes a tenth of the time of the page itself."""
        while left:
            uris = rows_in_ranges(_URIS_SQL, left.ranges, limit=self.limit - 1)
            connection.close()
            end = f"{uris[-1][0]}\x01" if len(uris) == self.limit - 1 else left.ranges[-1][1]
            yield Reach(tuple(left.within("", end)))
            left = Reach(tuple(left.within(end, left.ranges[-1][1])))

    def _whole(self, stretch: Reach, coming: Future[_Page]) -> Iterator[str]:
        page = coming.result()
        yield from _lines(page)
        # Some came since its uris were counted.
        while len(page) == self.limit:
            page = self.page(stretch.after("", page[-1][0]))
            yield from _lines(page)


def _lines(page: _Page) -> Iterator[str]:
    for _, line in page:
        yield line + "\n"
