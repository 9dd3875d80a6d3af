"""Looking up a row by its key, for many threads: those who ask while a statement is under way share the next one.

Under load most of a look-up's cost is that of a statement, a connection and the threads that take turns, whatever it finds. Nobody
waits for company: who comes to an idle look-up asks at once.
"""

from __future__ import annotations

import threading
from typing import Any

from django.db import connection

from datamodel.prepared import prepared_rows

Row = tuple[Any, ...]
Rows = dict[str, list[Row]]

# As many as there are threads in a web server, and a bound for what one statement takes.
_MOST = 32


class _Asking:
    """A key, and the thread that waits for its row: until a statement has found it or failed, or the next one is this thread's."""

    __slots__ = ("is_next", "key", "rows", "woken")

    def __init__(self, key: str) -> None:
        self.key = key
        self.rows: Rows | None = None
        self.is_next = False
        self.woken = threading.Lock()
        self.woken.acquire()


class SharedLookup:
    """`sql` takes one list of keys, and finds at most one row for each, which begins with it."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._guard = threading.Lock()
        self._is_asked = False
        self._waiting: list[_Asking] = []

    def find(self, key: str) -> list[Row]:
        """Its row, or nothing: found by a statement that began after this call. Raises as Django's cursors do, of this key alone.

        In a transaction it is this thread's own statement, which sees what the transaction wrote.
        """
        if connection.in_atomic_block:
            return self._ask([key]).get(key, [])
        mine = _Asking(key)
        with self._guard:
            mine.is_next = not self._is_asked
            self._is_asked = True
            if not mine.is_next:
                self._waiting.append(mine)
        if not mine.is_next:
            mine.woken.acquire()
        if mine.is_next:
            self._ask_together(mine)
        # A statement that failed says nothing of whose key it was: each asks again by itself.
        rows = mine.rows if mine.rows is not None else self._ask([key])
        return rows.get(key, [])

    def _ask_together(self, first: _Asking) -> None:
        with self._guard:
            others, self._waiting = self._waiting[: _MOST - 1], self._waiting[_MOST - 1 :]
        try:
            rows = self._ask([first.key, *(each.key for each in others)])
            for each in (first, *others):
                each.rows = rows
        except Exception:
            if not others:
                raise
        finally:
            self._pass_on(others)

    def _pass_on(self, answered: list[_Asking]) -> None:
        with self._guard:
            following = self._waiting.pop(0) if self._waiting else None
            self._is_asked = following is not None
        if following is not None:
            following.is_next = True
            answered = [*answered, following]
        for each in answered:
            each.woken.release()

    def _ask(self, keys: list[str]) -> Rows:
        return {row[0]: [row] for row in prepared_rows(self._sql, [keys])}
