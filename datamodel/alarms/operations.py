"""Raising and clearing alarms, and the outbox: what is due at which channel, claimed, told. One short transaction each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet

from datamodel.alarms import rules
from datamodel.alarms.models import Alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.rows import database_now

# Longer than sending takes: whoever has not come back by then is dead, and somebody else sends.
CLAIM_SECONDS = 60
_KEPT_DAYS = 90
_TOLD = 50
_SUBJECT_LENGTH, _TEXT_LENGTH, _ERROR_LENGTH = 512, 2000, 500


@dataclass(frozen=True, slots=True)
class Told:
    """One alarm to be told to one channel; `message` is the same however often that is tried."""

    delivery_id: int
    alarm_id: int
    round: int
    attempts: int
    kind: str
    subject: str
    text: str
    count: int
    raised_at: datetime
    last_at: datetime
    cleared_at: datetime | None

    @property
    def message(self) -> str:
        return f"alarm_{self.alarm_id}_{self.round}"


def raise_alarm(*, kind: AlarmKind, subject: str, text: str, count: int = 1) -> None:
    """Call it last in the transaction that records what has happened: the alarm is there if and only if that is.

    While one of this kind and subject is open, `count` is added to it, and it is told again only after
    INVENTORY_ALARM_REPEAT_SECONDS, unless somebody has acknowledged it.
    """
    values: dict[str, Any] = {
        "kind": kind.value,
        "subject": subject[:_SUBJECT_LENGTH],
        "text": text[:_TEXT_LENGTH],
        "count": count,
        "repeat": settings.INVENTORY_ALARM_REPEAT_SECONDS,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RAISE_SQL, values)


def clear_alarms(*, alarms: QuerySet[Alarm], by: str) -> int:
    """These are over; returns how many were open. If it happens again, that is a new alarm."""
    waiting = alarms.filter(cleared_at__isnull=True)
    return _decide(Action.ALARM_CLEARED, waiting, by, {"cleared_at": database_now(), "cleared_by": by[:150]})


def acknowledge_alarms(*, alarms: QuerySet[Alarm], by: str) -> int:
    """Somebody is at it: these are not told again; returns how many were not acknowledged before."""
    waiting = alarms.filter(cleared_at__isnull=True, acknowledged_at__isnull=True)
    facts = {"acknowledged_at": database_now(), "acknowledged_by": by[:150]}
    return _decide(Action.ALARM_ACKNOWLEDGED, waiting, by, facts)


def plan_deliveries(channels: Sequence[str]) -> None:
    """A row for each channel and each alarm that it shall hear of: all that are open, and those cleared within a day.

    What was due at a channel that is no longer configured is given up. A repeat changes nothing.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM alarm_delivery WHERE NOT channel = ANY(%s)", [list(channels)])
        cursor.execute(_PLAN_SQL, [list(channels)])


def claim_deliveries(*, channel: str, limit: int) -> list[Told]:
    """The longest waiting ones that are due at a channel, for this process alone for a minute.

    Whoever dies before `record_delivery` leaves them to the next claim: they may be told twice, never not at all.
    """
    values: dict[str, Any] = {"channel": channel, "limit": limit, "seconds": CLAIM_SECONDS}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CLAIM_SQL, values)
        return sorted((Told(*row) for row in cursor.fetchall()), key=lambda told: told.alarm_id)


def record_delivery(*, told: Sequence[Told], error: str = "") -> None:
    """These were told, or why not and when to try again. Being told of an earlier round is no harm."""
    values: dict[str, Any] = {
        "ids": [one.delivery_id for one in told],
        "rounds": [one.round for one in told],
        "waits": [rules.retry_seconds(one.attempts) for one in told],
        "error": error[:_ERROR_LENGTH],
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FAILED_SQL if error else _TOLD_SQL, values)


def forget_cleared() -> int:
    """Alarms that were cleared long ago go, a thousand at a time; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(_FORGET_SQL, [_KEPT_DAYS])
        return int(cursor.rowcount)


def _decide(action: Action, waiting: QuerySet[Alarm], by: str, facts: dict[str, Any]) -> int:
    with transaction.atomic():
        names = dict(waiting.select_for_update().values_list("id", "subject"))
        Alarm.objects.filter(id__in=names).update(**facts)
        if names:
            told = {"numbers": sorted(names)[:_TOLD], "by": by}
            record(action, next(iter(names.values())) if len(names) == 1 else f"{len(names)} alarms", details=told)
    return len(names)


_RAISE_SQL = """
    INSERT INTO alarm AS a (kind, subject, text, count, raised_at, last_at, round, told_at, acknowledged_by, cleared_by)
    SELECT %(kind)s, %(subject)s, %(text)s, %(count)s, t.now, t.now, 1, t.now, '', '' FROM (SELECT inventory_now() AS now) t
    ON CONFLICT (kind, subject) WHERE cleared_at IS NULL DO UPDATE SET text = excluded.text, last_at = excluded.last_at,
        count = a.count + excluded.count,
        (round, told_at) = (SELECT a.round + again::int, CASE WHEN again THEN excluded.told_at ELSE a.told_at END
            FROM (SELECT a.acknowledged_at IS NULL
                AND a.told_at <= excluded.told_at - make_interval(secs => %(repeat)s) AS again) r)
"""
_PLAN_SQL = """
    INSERT INTO alarm_delivery (alarm_id, channel, round, attempts, next_try_at, last_error)
    SELECT a.id, c.channel, 0, 0, inventory_now(), '' FROM alarm a CROSS JOIN unnest(%s::text[]) AS c(channel)
    WHERE (a.cleared_at IS NULL OR a.cleared_at > (SELECT inventory_now()) - interval '1 day')
        AND NOT EXISTS (SELECT FROM alarm_delivery d WHERE d.alarm_id = a.id AND d.channel = c.channel)
    ON CONFLICT (alarm_id, channel) DO NOTHING
"""
_CLAIM_SQL = """
    WITH due AS (
        SELECT d.id FROM alarm_delivery d JOIN alarm a ON a.id = d.alarm_id
        WHERE d.channel = %(channel)s AND d.round < a.round AND d.next_try_at <= (SELECT inventory_now())
        ORDER BY d.next_try_at, a.id LIMIT %(limit)s FOR UPDATE OF d SKIP LOCKED
    )
    UPDATE alarm_delivery d SET attempts = d.attempts + 1, next_try_at = inventory_now() + make_interval(secs => %(seconds)s)
    FROM due, alarm a WHERE d.id = due.id AND a.id = d.alarm_id
    RETURNING d.id, a.id, a.round, d.attempts, a.kind, a.subject, a.text, a.count, a.raised_at, a.last_at, a.cleared_at
"""
_TOLD_SQL = """
    UPDATE alarm_delivery d SET round = n.round, attempts = 0, delivered_at = inventory_now(), next_try_at = inventory_now(),
        last_error = ''
    FROM unnest(%(ids)s::bigint[], %(rounds)s::int[]) AS n(id, round) WHERE d.id = n.id AND d.round < n.round
"""
_FAILED_SQL = """
    UPDATE alarm_delivery d SET next_try_at = inventory_now() + make_interval(secs => n.wait), last_error = %(error)s
    FROM unnest(%(ids)s::bigint[], %(rounds)s::int[], %(waits)s::float8[]) AS n(id, round, wait)
    WHERE d.id = n.id AND d.round < n.round
"""
_FORGET_SQL = """
    DELETE FROM alarm WHERE id IN (SELECT id FROM alarm
        WHERE cleared_at < (SELECT inventory_now()) - make_interval(days => %s) ORDER BY cleared_at LIMIT 1000)
"""
