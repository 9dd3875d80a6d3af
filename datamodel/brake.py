"""The brake on deletions: who removes more in a day than the settings allow is stopped until an operator lets it pass."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from datamodel import notify
from datamodel.alarms.models import Alarm
from datamodel.alarms.operations import clear_alarms, raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.deletion import Limits
from datamodel.errors import DeletionBrakeError
from datamodel.models import DeletionBrake
from datamodel.queries import row_count

RELEASE = timedelta(hours=24)
_TALLY_SQL = """
    INSERT INTO deletion_brake AS b (source, day, removed, reason)
    VALUES (%(source)s, (now() AT TIME ZONE 'UTC')::date, %(more)s, '')
    ON CONFLICT (source) DO UPDATE SET day = excluded.day,
        removed = excluded.removed + CASE WHEN b.day = excluded.day THEN b.removed ELSE 0 END
    RETURNING b.removed - %(more)s, b.engaged_at IS NOT NULL, coalesce(b.released_until > now(), false)
"""


def count_removals(*, source: str, more: int) -> None:
    """Call it in the transaction that removes `more` artifacts on behalf of a source, before it removes them.

    Raises `DeletionBrakeError`, which must undo the transaction; its catcher calls `engage` in another. A source that was
    stopped stays stopped, the next day too, until `release`.
    """
    if not more:
        return
    with connection.cursor() as cursor:
        cursor.execute(_TALLY_SQL, {"source": source, "more": more})
        removed, is_engaged, is_released = cursor.fetchone()
    if is_released:
        return
    limits = Limits(settings.INVENTORY_BRAKE_COUNT, settings.INVENTORY_BRAKE_PERCENT / 100)
    total = row_count("artifact")
    if is_engaged or limits.exceeded(removed=removed, more=more, total=total):
        raise DeletionBrakeError(
            f"{source} would remove {more} artifacts after {removed} today; {limits.allowance(total)} a day pass unasked. "
            "Nothing was removed. If it is meant: manage.py release_brake, or the admin",
            source=source,
            removed=removed,
            more=more,
        )


def engage(*, source: str, reason: str) -> None:
    """Record that a source was stopped; the first time stands."""
    values: dict[str, object] = {"reason": reason[:500]}
    with transaction.atomic():
        brake, _ = DeletionBrake.objects.get_or_create(source=source, defaults={"day": Now(), **values})
        DeletionBrake.objects.filter(source=brake.source, engaged_at__isnull=True).update(engaged_at=Now(), **values)
        raise_alarm(kind=AlarmKind.DELETION_BRAKE, subject=source, text=reason)


def release(*, brakes: QuerySet[DeletionBrake], period: timedelta = RELEASE) -> int:
    """An operator lets these pass for a time, however much they remove; returns how many. Whoever waits is woken."""
    with transaction.atomic():
        sources = list(brakes.values_list("source", flat=True))
        released = brakes.update(engaged_at=None, reason="", released_until=Now() + period)
        raised = Alarm.objects.filter(kind=AlarmKind.DELETION_BRAKE.value, subject__in=sources)
        clear_alarms(alarms=raised, by="release")
    notify.announce()
    return released
