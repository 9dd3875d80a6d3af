"""A pooled connection that can tell, without a round trip for each request, that its server has hung up."""

from __future__ import annotations

import select
import time
from typing import Any

from psycopg import Connection, Cursor, OperationalError
from psycopg._preparing import Prepare, PrepareManager
from psycopg._queries import PostgresClientQuery, PostgresQuery
from psycopg.abc import Params, Query
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

# A network that swallows packets says nothing: so often the server is asked all the same.
_ASK_SECONDS = 10.0
# Who was looked at a moment ago is believed: under load each connection is handed out hundreds of times a second.
_LOOK_SECONDS = 0.02
# A cursor keeps what it found last.
_MOST_ROWS_KEPT = 100
# Bytes of a text with its values: what comes often is short.
_LONGEST_COUNTED = 4096


class _Prepared(PrepareManager):
    """psycopg counts each text, to prepare what comes often; also those of Django's cursors, which have their values in them and are
    never prepared. It keeps the last hundred of a connection: of statements with thousands of ids, megabytes.
    """

    def maybe_add_to_cache(self, query: PostgresQuery, prep: Prepare, name: bytes) -> Any:
        if isinstance(query, PostgresClientQuery) and len(query.query) > _LONGEST_COUNTED:
            return None
        return super().maybe_add_to_cache(query, prep, name)


class PooledConnection(Connection[Any]):
    """The pool checks what it hands out by an empty statement (`ConnectionPool.check_connection`); that is answered here.

    A server that ends a connection (a crash, a restart, `pg_terminate_backend`) closes the socket, which then can be read.
    """

    _asked_at = float("-inf")
    _looked_at = float("-inf")
    _repeating: Cursor[Any] | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._prepared = _Prepared()

    def rows(self, query: str, params: Params) -> list[tuple[Any, ...]]:
        """All rows of what is asked again and again: one cursor is kept with all that it knows of types, and values come in binary."""
        found = self._kept().execute(query, params, binary=True).fetchall()
        if len(found) > _MOST_ROWS_KEPT:
            self._repeating = None
        return found

    def _kept(self) -> Cursor[Any]:
        if self._repeating is None:
            self._repeating = Cursor(self)
        return self._repeating

    def execute(
        self, query: Query, params: Params | None = None, *, prepare: bool | None = None, binary: bool = False
    ) -> Cursor[Any]:
        """As psycopg's; an empty statement is sent only if something seems wrong, or none was for ten seconds."""
        if query == "":
            now = time.monotonic()
            if now - self._asked_at < _ASK_SECONDS and self._is_silent(now):
                return self._kept()
            self._asked_at = now
            return self._asked()
        return super().execute(query, params, prepare=prepare, binary=binary)  # type: ignore[arg-type]  # its overloads know templates

    def _asked(self) -> Cursor[Any]:
        """Where one connection is dead, most are: all are looked at. The pool waits longer after each, and so for none at all."""
        try:
            return super().execute("")
        except OperationalError:
            if isinstance(self._pool, ConnectionPool):
                self._pool.check()
            raise

    def _is_silent(self, now: float) -> bool:
        """Nothing has come that nobody asked for, and nothing is left of what was asked."""
        if self.closed or self.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        if now - self._looked_at < _LOOK_SECONDS:
            return True
        self._looked_at = now
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)
