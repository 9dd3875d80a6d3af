"""Whole listings as lines of JSON, which PostgreSQL writes: several of its processes at a time, and a few pages in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class _Page:
    """Lines of `count` rows, the last of which has this uri."""

    count: int
    last: str
    lines: bytes


def json_lines(
    sql: str, prefix: str, readable: Reach, *, limit: int, parameters: Mapping[str, Any] | None = None
) -> Generator[bytes, None, None]:
    """Every readable row below a prefix as a line of JSON, a page at a time: up to `limit` (at least 2) rows.

    Holds a few pages, and no connection between them. `sql` is as for `rows_in_ranges`. What is there for the whole time is
    listed once; what comes or goes meanwhile may or may not be. Closed early, it fetches no more.
    """
    listing = _Listing(f"SELECT p.uri, row_to_json(p)::text FROM ({sql}) p", limit, parameters or {})
    page = listing.page(readable.after(prefix, ""))
    yield page.lines
    # Who needs a second page needs many, mostly.
    if page.count == limit:
        yield from listing.rest(Reach(tuple(readable.after(prefix, page.last))))


@dataclass(frozen=True, slots=True)
class _Listing:
    sql: str
    limit: int
    parameters: Mapping[str, Any]

    def page(self, ranges: Sequence[Range]) -> _Page:
        """The first rows of these ranges."""
        try:
            rows = rows_in_ranges(self.sql, ranges, limit=self.limit, parameters=self.parameters)
        finally:
            connection.close()
        return _Page(len(rows), rows[-1][0] if rows else "", "".join([f"{line}\n" for _, line in rows]).encode())

    def rest(self, left: Reach) -> Iterator[bytes]:
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

    def _whole(self, stretch: Reach, coming: Future[_Page]) -> Iterator[bytes]:
        page = coming.result()
        yield page.lines
        # Some came since its uris were counted.
        while page.count == self.limit:
            page = self.page(stretch.after("", page.last))
            yield page.lines
