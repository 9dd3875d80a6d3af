"""Rows on their way while those before them are compared: the database and this process work at the same time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice

from django.db import connection

from site_service.file_validate.merge import Placed
from site_service.file_validate.queries import PAGE
from site_service.file_validate.survey import Rows
from site_service.storage.contract import ListingEnd

_Batch = tuple[str, list[Placed | ListingEnd]]


@contextmanager
def fetched_ahead(rows: Rows, buckets: Sequence[str]) -> Iterator[Rows]:
    """The same rows, of these buckets in this order, each read to its end; another thread is a page ahead of who reads them.

    What goes wrong there is raised where its rows would have come.
    """
    batches = _batches(rows, buckets)
    with ThreadPoolExecutor(1, thread_name_prefix="rows-ahead") as thread:
        coming = thread.submit(next, batches, None)

        def of(bucket: str) -> Iterator[Placed | ListingEnd]:
            nonlocal coming
            while (batch := coming.result()) is not None and batch[0] == bucket:
                coming = thread.submit(next, batches, None)
                yield from batch[1]

        try:
            yield of
        finally:
            thread.submit(_hang_up)


def _batches(rows: Rows, buckets: Iterable[str]) -> Iterator[_Batch]:
    for bucket in buckets:
        listing = iter(rows(bucket))
        while batch := list(islice(listing, PAGE)):
            yield bucket, batch


def _hang_up() -> None:
    """The connection of the thread that calls."""
    connection.close()
