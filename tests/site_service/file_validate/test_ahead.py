"""Rows that come a page ahead: the same rows, never more than a page too many, and no connection left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from itertools import count

import pytest
from django.db import connection

from datamodel.errors import DatabaseUnavailableError
from datamodel.processes import wait_until
from site_service.file_validate import ahead
from site_service.file_validate.ahead import fetched_ahead
from site_service.file_validate.merge import Placed
from site_service.storage.contract import ListingEnd

PAGE = 3


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PAGE", PAGE)


def row(bucket: str, number: int) -> Placed:
    return Placed(bucket, f"{bucket}{number:03}", "md5:0", 1, "", "", None, None, None)


def listed(bucket: str, size: int) -> list[Placed | ListingEnd]:
    return [*(row(bucket, number) for number in range(size)), ListingEnd(size)]


SIZES = {"0": 0, "1": 1, "2": PAGE - 1, "3": PAGE, "4": 10 * PAGE, "5": 0}


def test_each_bucket_has_its_rows_whatever_the_pages() -> None:
    with fetched_ahead(lambda bucket: listed(bucket, SIZES[bucket]), list(SIZES)) as rows:
        assert {bucket: list(rows(bucket)) for bucket in SIZES} == {
            bucket: listed(bucket, size) for bucket, size in SIZES.items()
        }


def test_rows_that_were_cut_end_where_they_were_cut() -> None:
    with fetched_ahead(lambda bucket: listed(bucket, 2)[: SIZES[bucket]], list(SIZES)) as rows:
        assert [len(list(rows(bucket))) for bucket in SIZES] == [0, 1, 2, 3, 3, 0]


def test_the_next_page_comes_while_this_one_is_used_and_no_more() -> None:
    fetched: list[int] = []

    def endless(_: str) -> Iterator[Placed]:
        for number in count():
            fetched.append(number)
            yield row("0", number)

    def is_fetched(size: int) -> bool:
        return len(fetched) == size

    with fetched_ahead(endless, ["0"]) as rows:
        reading = iter(rows("0"))
        for used in range(PAGE, 5 * PAGE, PAGE):
            for _ in range(PAGE):
                next(reading)
            wait_until(partial(is_fetched, used + PAGE), 20, "the next page does not come")
    assert len(fetched) == 5 * PAGE


def test_what_fails_is_raised_where_its_rows_would_have_come() -> None:
    def failing(bucket: str) -> Iterator[Placed | ListingEnd]:
        yield from listed(bucket, PAGE)
        if bucket == "1":
            raise DatabaseUnavailableError("gone")

    with fetched_ahead(failing, ["0", "1", "2"]) as rows:
        assert len(list(rows("0"))) == PAGE + 1
        reading = iter(rows("1"))
        assert [next(reading) for _ in range(PAGE)] == listed("1", PAGE)[:-1]
        with pytest.raises(DatabaseUnavailableError, match="gone"):
            list(reading)


def test_who_leaves_early_leaves_no_thread_and_no_connection(transactional_db: None) -> None:
    pids: set[int] = set()

    def asking(bucket: str) -> Iterator[Placed]:
        for number in count():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pids.add(cursor.fetchone()[0])
            yield row(bucket, number)

    with fetched_ahead(asking, ["0"]) as rows:
        next(iter(rows("0")))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rows-ahead")]
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        assert pids
        assert cursor.fetchone()[0] not in pids
        still = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"

        def is_gone() -> bool:
            cursor.execute(still, [list(pids)])
            return bool(cursor.fetchone() == (0,))

        wait_until(is_gone, 20, "its connection is still open")
