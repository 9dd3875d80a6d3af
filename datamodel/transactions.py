"""Transactions that may meet others of the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import IntegrityError, OperationalError, transaction

from datamodel import notify
from datamodel.errors import RaceLostError

_ATTEMPTS = 5
_Result = TypeVar("_Result")


def serialized(operation: Callable[[], _Result]) -> _Result:
    """Run `operation` in one transaction, again when another writer of the same rows came first.

    Raises `RaceLostError` when that happened too often.
    """
    for _ in range(_ATTEMPTS):
        try:
            with transaction.atomic():
                result = operation()
                notify.announce()
                return result
        except IntegrityError:
            continue
        except OperationalError as error:
            if not is_race(error):
                raise
    raise RaceLostError("other requests were changing the same artifact; try again")


def is_race(error: OperationalError) -> bool:
    """A serialization failure or a deadlock."""
    return getattr(error.__cause__, "sqlstate", "") in {"40001", "40P01"}
