"""One reader at a time: a lease in the one row of progress, which expires when its holder gives no sign of life."""

from __future__ import annotations

import time
import uuid

from django.db import connection

from datamodel.errors import RaceLostError
from site_service.scrub.models import ScrubProgress

LEASE_SECONDS = 120
_RENEW_SECONDS = 20.0
_LEASE = f"inventory_now() + make_interval(secs => {LEASE_SECONDS})"


def claim() -> uuid.UUID | None:
    """A lease for a message; None while another one lives."""
    ScrubProgress.objects.get_or_create(id=1)
    lease = uuid.uuid4()
    return lease if _execute(_CLAIM_SQL, {"lease": lease}) else None


def take_up(*, lease: uuid.UUID, holder: uuid.UUID) -> bool:
    """Turn a claimed lease into the worker's own; False when it expired, or was taken up before."""
    return _execute(_TAKE_SQL, {"lease": lease, "holder": holder})


def renew(*, holder: uuid.UUID) -> bool:
    """Put off its end; False when somebody else has it."""
    return _execute(_RENEW_SQL, {"holder": holder})


def release(*, holder: uuid.UUID) -> None:
    """The next run may begin. Changes nothing when it is lost already."""
    _execute(_RELEASE_SQL, {"holder": holder})


class Heartbeat:
    """Renews a lease now and then while bytes are read. Raises `RaceLostError` when it is lost."""

    def __init__(self, holder: uuid.UUID) -> None:
        self._holder = holder
        self._renewed_at = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._renewed_at < _RENEW_SECONDS:
            return
        self._renewed_at = time.monotonic()
        is_ours = renew(holder=self._holder)
        connection.close()
        if not is_ours:
            raise RaceLostError("the lease expired and another worker reads now")


_CLAIM_SQL = f"""
    UPDATE scrub_progress SET lease_holder = %(lease)s, lease_until = {_LEASE}
    WHERE id = 1 AND (lease_until IS NULL OR lease_until <= inventory_now())
"""
_TAKE_SQL = f"""
    UPDATE scrub_progress SET lease_holder = %(holder)s, lease_until = {_LEASE}
    WHERE lease_holder = %(lease)s AND lease_until > inventory_now()
"""
_RENEW_SQL = f"UPDATE scrub_progress SET lease_until = {_LEASE} WHERE lease_holder = %(holder)s"
_RELEASE_SQL = "UPDATE scrub_progress SET lease_holder = NULL, lease_until = NULL WHERE lease_holder = %(holder)s"


def _execute(sql: str, values: dict[str, uuid.UUID]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return int(cursor.rowcount) > 0
