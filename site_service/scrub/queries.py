"""Reads: the schedule, what is due, when copies were verified, and how scrub stands. One statement each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection

from datamodel.errors import NotConfiguredError
from site_service.scrub.models import DamagedCopy, ScrubOutcome, ScrubPolicy
from site_service.scrub.rules import Due, Hours, Rule, Schedule

# Of a location `l`: its bytes were verified when they were written, unless a row says something about them.
VERIFIED_AT = "coalesce(v.verified_at, l.stored_at)"
VERIFICATION = "LEFT JOIN copy_verification v ON v.storage_bucket = l.storage_bucket AND v.storage_id = l.storage_id"
_WAITING = 100


@dataclass(frozen=True, slots=True)
class VerifiedCopy:
    """A copy in service here: what it is, and when its bytes were last known good."""

    artifact_id: uuid.UUID
    uri: str
    content_checksum: str
    content_sha256: bytes | None
    content_length: int
    verified_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """One rule of the schedule and how far it is kept; `overdue` copies should have been read by now."""

    namespace: str
    period_seconds: int
    bytes_per_second: int
    hours: str
    files: int
    bytes: int
    verified_files: int
    verified_bytes: int
    overdue_files: int
    overdue_bytes: int
    oldest_verified_at: datetime | None
    oldest_seconds: float


def configured_schedule() -> Schedule:
    """The rules of the table over those of the settings. Raises `NotConfiguredError`."""
    try:
        hours = Hours.parse(settings.INVENTORY_SCRUB_HOURS)
    except ValueError as error:
        raise NotConfiguredError(f"INVENTORY_SCRUB_HOURS: {error}") from error
    speed = settings.INVENTORY_SCRUB_BYTES_PER_SECOND
    default = Rule("", settings.INVENTORY_SCRUB_PERIOD_SECONDS, speed, hours)
    rows = ScrubPolicy.objects.values_list("namespace", "period_seconds", "bytes_per_second", "from_hour", "until_hour")
    return Schedule(
        default,
        [
            Rule(name, period, speed if limit is None else limit, Hours(start, end))
            for name, period, limit, start, end in rows
        ],
    )


def due_copies(namespace: str, *, now: datetime, limit: int) -> list[Due]:
    """Of one rule: copies whose time has come, the longest unverified first."""
    return [Due(*row) for row in _fetch(_DUE_SQL, {"namespace": namespace, "now": now, "limit": limit})]


def verified_copies(uris: Sequence[str]) -> list[VerifiedCopy]:
    """Those of these canonical uris that are in service here, and when each was last known good."""
    return [
        VerifiedCopy(identity, uri, checksum, bytes(sha256) if sha256 is not None else None, length, when)
        for identity, uri, checksum, sha256, length, when in _fetch(_COPIES_SQL, {"uris": list(uris)})
    ]


def standings(schedule: Schedule) -> list[Standing]:
    """Every rule, the default first. Reads every row of the record once: not for a scrape."""
    found = {row[0]: row[1:] for row in _fetch(_STANDING_SQL, {"names": [r.namespace for r in schedule.rules]})}
    nothing = (0, 0, 0, 0, 0, 0, None, 0.0)
    return [_standing(rule, found.get(rule.namespace, nothing)) for rule in schedule.rules]


def oldest(schedule: Schedule) -> list[tuple[str, float, float]]:
    """Per rule that reads anything: (namespace, seconds since its oldest copy was known good, seconds it is late by)."""
    names = [rule.namespace for rule in schedule.rules if rule.period_seconds]
    return [(row[0], float(row[1] or 0), float(row[2] or 0)) for row in _fetch(_OLDEST_SQL, {"names": names})]


def outcomes() -> dict[str, tuple[int, int]]:
    """Files and bytes read by result, since the beginning."""
    return {row.result: (row.files, row.bytes) for row in ScrubOutcome.objects.order_by("result")}


def damaged_counts() -> dict[str, int]:
    """Damaged copies that wait for their repair, those of them that have no good copy anywhere, unreadable copies."""
    ((damaged, unrepairable, unreadable),) = _fetch(_DAMAGED_SQL, {})
    return {"damaged": damaged, "unrepairable": unrepairable, "unreadable": unreadable}


def waiting_damaged() -> list[uuid.UUID]:
    """Damaged copies that nothing could repair yet, the longest not looked at first."""
    rows = DamagedCopy.objects.filter(state=DamagedCopy.State.DAMAGED).order_by("checked_at")
    return list(rows.values_list("id", flat=True)[:_WAITING])


def _standing(rule: Rule, row: Sequence[Any]) -> Standing:
    files, size, read_files, read_bytes, late_files, late_bytes, first, seconds = row
    whole_day = rule.hours.start == rule.hours.end
    return Standing(
        namespace=rule.namespace,
        period_seconds=rule.period_seconds,
        bytes_per_second=rule.bytes_per_second,
        hours="" if whole_day else f"{rule.hours.start}-{rule.hours.end}",
        files=files,
        bytes=int(size),
        verified_files=read_files,
        verified_bytes=int(read_bytes),
        overdue_files=late_files,
        overdue_bytes=int(late_bytes),
        oldest_verified_at=first,
        oldest_seconds=float(seconds),
    )


# The time is a literal: only then can the planner tell few due copies (one index) from very many (the other).
_DUE_SQL = """
    SELECT artifact_id, content_length FROM copy_verification
    WHERE artifact_id IS NOT NULL AND namespace = %(namespace)s AND next_at <= %(now)s
    ORDER BY verified_at, artifact_id LIMIT %(limit)s
"""
# A copy that all globals have allowed to go may be gone in a moment: nobody must rely on it.
_COPIES_SQL = f"""
    SELECT a.id, a.uri, a.content_checksum, a.content_sha256, a.content_length, {VERIFIED_AT}
    FROM artifact a JOIN storage_location l ON l.artifact_id = a.id {VERIFICATION} WHERE a.uri = ANY(%(uris)s)
        AND NOT EXISTS (SELECT FROM copy_release r WHERE r.location_id = l.artifact_id AND r.state = 'granted')
"""
_STANDING_SQL = """
    SELECT v.namespace, count(*), coalesce(sum(content_length), 0),
        count(*) FILTER (WHERE result = 'read'), coalesce(sum(content_length) FILTER (WHERE result = 'read'), 0),
        count(*) FILTER (WHERE next_at <= t.now), coalesce(sum(content_length) FILTER (WHERE next_at <= t.now), 0),
        min(verified_at), coalesce(extract(epoch FROM t.now - min(verified_at)), 0)
    FROM copy_verification v, (SELECT inventory_now() AS now) t
    WHERE v.artifact_id IS NOT NULL AND v.namespace = ANY(%(names)s) GROUP BY v.namespace, t.now
"""
_OLDEST_SQL = """
    SELECT n.name,
        (SELECT extract(epoch FROM t.now - min(v.verified_at)) FROM copy_verification v
         WHERE v.artifact_id IS NOT NULL AND v.namespace = n.name),
        (SELECT greatest(extract(epoch FROM t.now - min(v.next_at)), 0) FROM copy_verification v
         WHERE v.artifact_id IS NOT NULL AND v.next_at IS NOT NULL AND v.namespace = n.name)
    FROM unnest(%(names)s::text[]) AS n(name), (SELECT inventory_now() AS now) t ORDER BY n.name
"""
_DAMAGED_SQL = """
    SELECT count(*), count(unrepairable_since),
        (SELECT count(*) FROM copy_verification WHERE result = 'unreadable')
    FROM damaged_copy WHERE state = 'damaged'
"""


def _fetch(sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
