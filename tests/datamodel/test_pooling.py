"""The pool hands out no connection that its server has ended, and does not ask about each."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from psycopg import ClientCursor
from psycopg_pool import ConnectionPool

from datamodel import pooling
from datamodel.embedded import EmbeddedServers
from datamodel.pooling import PooledConnection

Pool = ConnectionPool[PooledConnection]


def pool_of(servers: EmbeddedServers, size: int, *, seconds: float) -> Pool:
    return ConnectionPool(
        servers.database_url,
        connection_class=PooledConnection,
        kwargs={"autocommit": True},
        min_size=0,
        max_size=size,
        timeout=seconds,
        check=ConnectionPool.check_connection,
        open=True,
    )


@pytest.fixture
def pool(servers: EmbeddedServers) -> Iterator[Pool]:
    with pool_of(servers, 1, seconds=20) as pool:
        yield pool


def pid_of(pool: Pool) -> int:
    with pool.connection() as connection:
        return connection.info.backend_pid


def questions(servers: EmbeddedServers, pid: int) -> object:
    """When the server was last asked anything on that connection."""
    with psycopg.connect(servers.database_url) as other:
        return other.execute("SELECT state_change FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()


def test_a_connection_that_the_server_has_ended_is_not_handed_out(
    servers: EmbeddedServers, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "_LOOK_SECONDS", 0.0)
    pid = pid_of(pool)
    assert pid_of(pool) == pid
    with psycopg.connect(servers.database_url, autocommit=True) as other:
        assert other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone() == (True,)
    with pool.connection() as connection:
        assert connection.info.backend_pid != pid
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_of_many_connections_that_have_ended_at_once_the_first_is_enough_to_know(
    servers: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool waits a second after the first dead one that it meets, twice as long after each further: not even one wait fits."""
    monkeypatch.setattr(pooling, "_LOOK_SECONDS", 0.0)
    with pool_of(servers, 8, seconds=5) as pool:
        lent = [pool.getconn() for _ in range(8)]
        pids = [connection.info.backend_pid for connection in lent]
        for connection in lent:
            pool.putconn(connection)
        with psycopg.connect(servers.database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid, 10000) FROM unnest(%s::int[]) AS pid", [pids])
        with pool.connection() as connection:
            assert connection.info.backend_pid not in pids


def test_a_server_is_asked_about_a_quiet_connection_only_now_and_then(
    servers: EmbeddedServers, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = pid_of(pool)
    pid_of(pool)
    before = questions(servers, pid)
    for _ in range(5):
        assert pid_of(pool) == pid
    assert questions(servers, pid) == before
    monkeypatch.setattr(pooling, "_ASK_SECONDS", 0.0)
    assert pid_of(pool) == pid
    assert questions(servers, pid) != before


def test_what_is_asked_again_uses_the_same_cursor_unless_it_found_much(pool: Pool) -> None:
    statement = "SELECT n, now(), %s::uuid FROM generate_series(1, %s) AS n"
    identity = uuid.uuid4()
    with pool.connection() as connection:
        row = connection.rows(statement, [identity, 1])[0]
        assert (row[0], row[1].utcoffset(), row[2]) == (1, timedelta(0), identity)
        kept = connection._kept()
        assert len(connection.rows(statement, [identity, pooling._MOST_ROWS_KEPT])) == pooling._MOST_ROWS_KEPT
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.rows("SELECT 1 / %s", [0])
        assert connection._kept() is kept
        assert len(connection.rows(statement, [identity, 1000])) == 1000
        assert connection._kept() is not kept


def test_a_connection_remembers_no_long_texts_with_their_values(pool: Pool) -> None:
    with pool.connection() as connection, ClientCursor(connection) as cursor:
        cursor.execute("SELECT 1")
        tracemalloc.start()
        for number in range(50):
            cursor.execute("SELECT length(%s)", [f"{number}{'x' * 100_000}"])
            cursor.fetchall()
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        for _ in range(10):
            connection.execute("SELECT 42", prepare=None)
        prepared = connection.execute("SELECT statement FROM pg_prepared_statements").fetchall()
    assert kept < 1_000_000
    assert prepared == [("SELECT 42",)]
