"""A look-up that threads share: each gets its own row, none waits for more than two statements, and none fails for another's key."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from django.db import DataError, connection, transaction

from datamodel import lookups
from datamodel.lookups import Row, SharedLookup
from datamodel.processes import wait_until
from tests.factories import artifact_row, insert_artifact_row

pytestmark = pytest.mark.usefixtures("inventory")

_LOCK = 728113
# Each statement waits for a lock that a test may hold, and says which transaction it was.
HELD = f"""
    WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared({_LOCK}))
    SELECT k, 100 / k::int, pg_current_xact_id()::text FROM unnest(%s::text[]) AS k, held WHERE k <> 'none'
"""
STORED = "SELECT uri, id FROM artifact WHERE uri = ANY(%s)"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as threads:
        yield threads


def find(lookup: SharedLookup, key: str) -> list[Row]:
    """As a request does, which leaves no connection behind."""
    try:
        return lookup.find(key)
    finally:
        connection.close()


def waiting() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted", [_LOCK]
        )
        return int(cursor.fetchone()[0])


def asked_while_the_first_waits(
    lookup: SharedLookup, threads: ThreadPoolExecutor, first: str, others: list[str]
) -> tuple[Future[list[Row]], list[Future[list[Row]]]]:
    """All are waited for until they stand in line behind the first, whose statement is held up until then."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        leader = threads.submit(find, lookup, first)
        wait_until(lambda: waiting() == 1, 20, "no statement waits")
        followers = [threads.submit(find, lookup, key) for key in others]
        wait_until(lambda: len(lookup._waiting) == len(others), 20, "not all stand in line")
        assert waiting() == 1
    return leader, followers


def test_those_who_ask_meanwhile_share_the_next_statement(threads: ThreadPoolExecutor) -> None:
    keys = [str(number) for number in range(2, 12)]
    leader, followers = asked_while_the_first_waits(SharedLookup(HELD), threads, "1", keys)
    alone = leader.result(20)
    together = [each.result(20) for each in followers]
    assert alone[0][:2] == ("1", 100)
    assert [rows[0][:2] for rows in together] == [(key, 100 // int(key)) for key in keys]
    assert len({rows[0][2] for rows in together}) == 1
    assert together[0][0][2] != alone[0][2]


def test_the_same_key_and_one_without_a_row_may_stand_in_line_together(threads: ThreadPoolExecutor) -> None:
    _, followers = asked_while_the_first_waits(SharedLookup(HELD), threads, "1", ["4", "none", "4"])
    assert [[row[:2] for row in each.result(20)] for each in followers] == [[("4", 25)], [], [("4", 25)]]


def test_a_key_that_fails_fails_for_who_asked_alone(threads: ThreadPoolExecutor) -> None:
    lookup = SharedLookup(HELD)
    leader, followers = asked_while_the_first_waits(lookup, threads, "0", ["5", "0", "10"])
    for failing in (leader, followers[1]):
        with pytest.raises(DataError):
            failing.result(20)
    assert [each.result(20)[0][1] for each in (followers[0], followers[2])] == [20, 10]
    assert lookup.find("50")[0][1] == 2


def test_a_statement_takes_a_bounded_number_of_keys(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "_MOST", 4)
    _, followers = asked_while_the_first_waits(SharedLookup(HELD), threads, "1", [str(n) for n in range(1, 11)])
    shared = [each.result(20)[0][2] for each in followers]
    assert sorted(shared.count(one) for one in set(shared)) == [2, 4, 4]


def test_in_a_transaction_what_it_wrote_is_found_and_nobody_is_told(threads: ThreadPoolExecutor) -> None:
    lookup = SharedLookup(STORED)
    uri = "cadc:TEST/seen.fits"
    with transaction.atomic():
        insert_artifact_row(artifact_row(uri=uri))
        assert len(lookup.find(uri)) == 1
        assert threads.submit(find, lookup, uri).result(20) == []
        transaction.set_rollback(True)
    assert lookup.find(uri) == []


def test_many_threads_find_their_rows_for_a_while(threads: ThreadPoolExecutor) -> None:
    lookup = SharedLookup(HELD)

    def ask(number: int) -> bool:
        keys = [str(1 + (number * step) % 100) for step in range(1, 40)]
        return all(find(lookup, key)[0][:2] == (key, 100 // int(key)) for key in keys)

    assert all(threads.map(ask, range(40)))
    assert lookup._waiting == []
    assert not lookup._is_asked
