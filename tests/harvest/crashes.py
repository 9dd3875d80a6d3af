"""Crashes at any statement, and the whole state of an inventory to compare before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from django.db import connection

TABLES = (
    "artifact",
    "site_location",
    "storage_location",
    "retired_artifact",
    "deleted_artifact_event",
    "storage_location_event",
    "storage_site",
    "harvest_conflict",
    "harvest_rejection",
)


class CrashError(BaseException):
    """The process ends here."""


def everything() -> dict[str, list[tuple[Any, ...]]]:
    """All rows with their transaction ids."""
    found = {}
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"SELECT t::text FROM {table} t ORDER BY 1")
            found[table] = cursor.fetchall()
    return found


@contextmanager
def crash_at(statement: int) -> Iterator[list[str]]:
    """Raise before the nth statement; the list holds those that ran."""
    ran: list[str] = []

    def count(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if len(ran) == statement:
            raise CrashError
        ran.append(sql)
        return execute(sql, *arguments)

    with connection.execute_wrapper(count):
        yield ran


@contextmanager
def crash_at_write(number: int) -> Iterator[None]:
    """The process ends before its write number `number` (from 0): what was committed before stays, nothing else is different.

    A crash before a commit is one before the last write of its transaction, one after it is one before the next write.
    """
    left = number

    def statement(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        nonlocal left
        if sql.split(None, 1)[0] in {"INSERT", "UPDATE", "DELETE", "WITH"}:
            left -= 1
            if left < 0:
                raise CrashError
        return execute(sql, *arguments)

    with connection.execute_wrapper(statement):
        yield


def dies(operation: Callable[[], object], crash: AbstractContextManager[object]) -> bool:
    """Whether `operation` ran into the crash, or came to its end before it."""
    with crash:
        try:
            operation()
        except CrashError:
            return True
    return False


def crash_everywhere(operation: Callable[[], object], check: Callable[[], None]) -> int:
    """Run `operation` with a crash before its first statement, its second, and so on, until it is done.

    `check` runs after each crash. Returns how many there were.
    """
    crashes = 0
    while dies(operation, crash_at(crashes)):
        check()
        crashes += 1
    return crashes
