"""News inside an inventory: heard after the commit, coalesced, and again after a connection was lost."""

from __future__ import annotations

import time

import pytest
from django.db import connection, transaction

from datamodel import notify, operations
from datamodel.models import InventoryIdentity
from datamodel.uris import ArtifactUri
from tests.factories import new_content

SECONDS = 20


@pytest.fixture
def listener(inventory: InventoryIdentity) -> notify.NewsListener:
    """This process's listener; that it hears shows that both threads are connected to this test's database."""
    seen = notify.news.count()
    notify.announce()
    assert notify.news.wait(seen, SECONDS)
    return notify.news


def settled(listener: notify.NewsListener) -> int:
    """The count once no ring has come for a while."""
    count = listener.count()
    while listener.wait(count, 0.3):
        count = listener.count()
    return count


def terminate(pattern: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()",
            [pattern],
        )
        (count,) = cursor.fetchone()
    return int(count)


def test_a_write_is_heard(listener: notify.NewsListener) -> None:
    seen = settled(listener)
    operations.record_stored(uri=ArtifactUri.parse("cadc:A"), content=new_content())
    assert listener.wait(seen, SECONDS)


def test_nothing_is_heard_before_the_commit_or_after_a_rollback(listener: notify.NewsListener) -> None:
    seen = settled(listener)
    with transaction.atomic():
        notify.announce()
        assert not listener.wait(seen, 0.3)
        transaction.set_rollback(True)
    assert not listener.wait(seen, 0.3)


def test_many_commits_ring_few_times(listener: notify.NewsListener) -> None:
    seen = settled(listener)
    for _ in range(2000):
        notify.announce()
    assert listener.wait(seen, SECONDS)
    assert settled(listener) - seen < 1500


def test_a_listener_whose_connection_was_killed_hears_again(listener: notify.NewsListener) -> None:
    seen = settled(listener)
    assert terminate("LISTEN %") >= 1
    # It rings itself when it is back: whoever waits must look, news may have been missed.
    assert listener.wait(seen, SECONDS)
    seen = settled(listener)
    notify.announce()
    assert listener.wait(seen, SECONDS)


def test_an_announcement_whose_connection_was_killed_arrives_all_the_same(listener: notify.NewsListener) -> None:
    seen = settled(listener)
    assert terminate("NOTIFY %") >= 1
    notify.announce()
    assert listener.wait(seen, SECONDS)


def test_waiting_for_nothing_ends(listener: notify.NewsListener) -> None:
    started = time.monotonic()
    assert not listener.wait(settled(listener), 0.2)
    assert time.monotonic() - started < SECONDS
