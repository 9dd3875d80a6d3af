"""Runs: which bucket comes next, and what was found, in one transaction per bucket; report only.

A bucket that cannot be read to both proven ends changes nothing but the run's error; the next call begins with it again. A repeat
after a crash at any point does the bucket again: nothing is counted twice, because cursor, counts and findings commit together.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from datamodel.alarms.operations import raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.errors import InvalidRequestError, InventoryError, RaceLostError
from datamodel.queries import row_count
from datamodel.rows import database_now
from site_service.file_validate.models import ValidationFinding, ValidationRun
from site_service.file_validate.rules import Action, Policy
from site_service.file_validate.survey import Difference, Survey, grace_configured
from site_service.file_validate.surveyors import Surveyor
from site_service.storage.contract import StoredObject

logger = logging.getLogger("inventory.validate")

# A step must fit into memory and into a tick: some ten thousand objects.
_FEW_DIGITS, _MOST_DIGITS = 2, 3
_MANY_LOCATIONS = 4_000_000
_LEASE = timedelta(minutes=10)
_RUNS_KEPT = 100
_PREFIX = re.compile(r"[0-9a-f]{0,3}\Z")
_GROUP = 256
_GROUP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is after a call: whether it is through, and how many buckets this call did."""

    run: ValidationRun
    buckets: int
    is_complete: bool


def open_run(*, policy: Policy, started_by: str, bucket_prefix: str = "") -> ValidationRun:
    """The running one of this policy and prefix, or a new one. Raises `InvalidRequestError` for what is no bucket."""
    digits = max(_digits(policy), len(bucket_prefix))
    run, _ = ValidationRun.objects.get_or_create(
        policy=policy.value,
        bucket_prefix=bucket_prefix,
        state=ValidationRun.State.RUNNING,
        defaults={
            "digits": digits,
            "started_by": started_by,
            "started_at": database_now(),
            "next_bucket": buckets_of(bucket_prefix, digits)[0],
        },
    )
    return run


def is_held(run: ValidationRun) -> bool:
    """Whether a process has it, for a while yet."""
    return run.lease_until is not None and run.lease_until >= database_now()


def take_over(*, policy: Policy, since: datetime) -> None:
    """A running run over all buckets becomes free at once, whoever had it; one that was begun before `since` begins again.

    Its former holder can record nothing more. For who knows that nobody else should be at it.
    """
    running = ValidationRun.objects.filter(policy=policy.value, bucket_prefix="", state=ValidationRun.State.RUNNING)
    digits = _digits(policy)
    fresh: dict[str, Any] = {"digits": digits, "next_bucket": buckets_of("", digits)[0], "counts": {}, "last_error": ""}
    with transaction.atomic():
        running.update(lease_holder=None, lease_until=None)
        running.filter(started_at__lt=since).update(
            **fresh, artifacts=0, objects_seen=0, bytes_seen=0, not_kept=0, started_at=database_now()
        )


def advance(
    *,
    run_id: uuid.UUID,
    surveyor: Surveyor,
    seconds: float,
    grace: timedelta | None = None,
) -> Progress | None:
    """Do bucket after bucket for about `seconds` (not less than one); None when another process is at it, or it is through.

    Raises `StorageError` or `DatabaseUnavailableError` when a bucket cannot be judged; the run keeps its place and says why.
    """
    holder, waited = uuid.uuid4(), grace if grace is not None else grace_configured()
    if not _take(run_id, holder):
        return None
    try:
        return _advance(run_id, holder, surveyor, time.monotonic() + seconds, waited)
    except InventoryError as error:
        _note_error(run_id, holder, f"{error.code}: {error.detail}")
        raise
    finally:
        _give_back(run_id, holder)


def buckets_of(prefix: str, digits: int) -> list[str]:
    """The steps that a prefix of at most three hex digits covers. Raises `InvalidRequestError`."""
    if not _PREFIX.match(prefix):
        raise InvalidRequestError(f"invalid bucket {prefix!r}: write up to {_MOST_DIGITS} lower-case hex digits.")
    free = digits - len(prefix)
    return [f"{prefix}{number:0{free}x}" if free else prefix for number in range(16**free)]


def prune() -> int:
    """Forget what was decided long ago: complete runs beyond the newest, closed findings beyond the bound; returns how many rows."""
    complete = ValidationRun.objects.filter(state=ValidationRun.State.COMPLETE, findings__isnull=True)
    old_runs = list(complete.order_by("-started_at").values_list("id", flat=True)[_RUNS_KEPT:])
    closed = ValidationFinding.objects.exclude(state=ValidationFinding.State.OPEN).order_by("-id")
    oldest = closed.values_list("id", flat=True)[settings.INVENTORY_VALIDATE_FINDINGS :].first()
    gone = closed.filter(id__lte=oldest).order_by().delete()[0] if oldest is not None else 0
    return gone + ValidationRun.objects.filter(id__in=old_runs).delete()[0]


def _digits(policy: Policy) -> int:
    """By the size of the inventory; where that is what was lost, for the largest store."""
    is_large = row_count("storage_location") > _MANY_LOCATIONS
    return _MOST_DIGITS if is_large or policy is Policy.RECOVER_FROM_STORAGE else _FEW_DIGITS


def _advance(run_id: uuid.UUID, holder: uuid.UUID, surveyor: Surveyor, deadline: float, grace: timedelta) -> Progress:
    done = 0
    while True:
        run = ValidationRun.objects.get(id=run_id)
        if run.state == ValidationRun.State.COMPLETE:
            return Progress(run, done, is_complete=True)
        if done and time.monotonic() > deadline:
            return Progress(run, done, is_complete=False)
        surveys = _group(run, surveyor, grace, deadline)
        record_buckets(run_id=run_id, holder=holder, surveys=surveys)
        done += len(surveys)


def _group(run: ValidationRun, surveyor: Surveyor, grace: timedelta, deadline: float) -> dict[str, Survey]:
    """The next buckets: small ones share a commit. A bucket that fails leaves those before it to be recorded first."""
    until = min(deadline, time.monotonic() + _GROUP_SECONDS)
    surveys: dict[str, Survey] = {}
    waiting = [bucket for bucket in buckets_of(run.bucket_prefix, run.digits) if bucket >= run.next_bucket]
    with closing(surveyor(Policy(run.policy), waiting[:_GROUP], grace)) as coming:
        try:
            for bucket, survey in coming:
                surveys[bucket] = survey
                if time.monotonic() > until:
                    break
        except InventoryError:
            if not surveys:
                raise
    return surveys


def record_buckets(*, run_id: uuid.UUID, holder: uuid.UUID, surveys: Mapping[str, Survey]) -> None:
    """Neighbouring buckets. Commits together: their findings, those that are no more, the counts, the cursor, the renewed lease.

    Raises `RaceLostError` when the lease or the place was lost to another process; then nothing is recorded.
    """
    with transaction.atomic():
        run = ValidationRun.objects.select_for_update().get(id=run_id)
        if (run.lease_holder, run.next_bucket) != (holder, min(surveys)):
            raise RaceLostError("another process has gone on with this run")
        counts = Counter(run.counts)
        for survey in surveys.values():
            counts.update(survey.counts)
            run.artifacts += survey.compared.artifacts
            run.objects_seen += survey.compared.objects
            run.bytes_seen += survey.compared.size
        run.counts = dict(counts)
        run.not_kept += _record_findings(run, surveys)
        run.updated_at = database_now()
        run.lease_until = run.updated_at + _LEASE
        run.last_error = ""
        _step(run, max(surveys))
        run.save()


def _step(run: ValidationRun, bucket: str) -> None:
    later = [one for one in buckets_of(run.bucket_prefix, run.digits) if one > bucket]
    run.next_bucket = later[0] if later else ""
    if not later:
        run.state, run.finished_at = ValidationRun.State.COMPLETE, run.updated_at
        _ask_about(run)
        facts = {"run": run.id, "policy": run.policy, "objects": run.objects_seen, "result": "ok", **run.counts}
        logger.info("END event=validate", extra={"facts": facts})


def _ask_about(run: ValidationRun) -> None:
    """Differences that an operator has to decide are an alarm when the run is through."""
    count = ValidationFinding.objects.filter(policy=run.policy, state="open").exclude(action=Action.NONE.value).count()
    if count:
        text = f"Inventory and storage differ in {count} places; nothing changes until the findings are applied."
        raise_alarm(kind=AlarmKind.VALIDATION_DIFFERENCES, subject=run.policy, text=text)


def _record_findings(run: ValidationRun, surveys: Mapping[str, Survey]) -> int:
    """Returns how many there was no room for."""
    differences = [difference for survey in surveys.values() for difference in survey.differences]
    patterns = [f"{bucket}%" for bucket in surveys]
    values: dict[str, Any] = {"run": run.id, "policy": run.policy, "patterns": patterns}
    with connection.cursor() as cursor:
        cursor.execute(_FORGET_SQL, values | _columns(differences))
        cursor.execute(_ELSEWHERE_SQL, values)
        room = max(settings.INVENTORY_VALIDATE_FINDINGS - cursor.fetchone()[0], 0)
        if differences[:room]:
            cursor.execute(_UPSERT_SQL, values | _columns(differences[:room]))
    return len(differences[room:])


def _columns(differences: list[Difference]) -> dict[str, Any]:
    rows = list(_rows(differences))
    names = ("buckets", "ids", "labels", "actions", "artifact_ids", "uris", "lengths", "details")
    return {name: [row[number] for row in rows] for number, name in enumerate(names)}


def _rows(differences: list[Difference]) -> Iterator[tuple[object, ...]]:
    for one in differences:
        here, found = one.case.here, one.case.found
        facts = found.facts if isinstance(found, StoredObject) else None
        yield (
            *one.place,
            one.verdict.label.value,
            one.verdict.action.value,
            here.id if here is not None else facts and facts.artifact_id,
            here.uri if here is not None else facts and facts.uri[:512],
            found.length if isinstance(found, StoredObject) else here and here.content_length,
            one.detail,
        )


_FORGET_SQL = """
    DELETE FROM validation_finding f WHERE f.policy = %(policy)s AND f.state = 'open' AND f.storage_bucket LIKE ANY(%(patterns)s)
    AND NOT EXISTS (SELECT 1 FROM unnest(%(buckets)s::text[], %(ids)s::text[]) AS n(bucket, id)
                    WHERE n.bucket = f.storage_bucket AND n.id = f.storage_id)
"""
_ELSEWHERE_SQL = """
    SELECT count(*) FROM validation_finding f
    WHERE f.state = 'open' AND NOT (f.policy = %(policy)s AND f.storage_bucket LIKE ANY(%(patterns)s))
"""
_UPSERT_SQL = """
    INSERT INTO validation_finding (run_id, policy, label, action, storage_bucket, storage_id, artifact_id, uri, content_length,
        detail, first_seen_at, seen_at, state, state_at, decided_by)
    SELECT %(run)s, %(policy)s, n.label, n.action, n.bucket, n.id, n.artifact_id, n.uri, n.length, n.detail, t.now, t.now, 'open',
        t.now, ''
    FROM unnest(%(labels)s::text[], %(actions)s::text[], %(buckets)s::text[], %(ids)s::text[], %(artifact_ids)s::uuid[],
        %(uris)s::text[], %(lengths)s::bigint[], %(details)s::text[])
        AS n(label, action, bucket, id, artifact_id, uri, length, detail), (SELECT inventory_now() AS now) t
    ON CONFLICT (policy, storage_bucket, storage_id) WHERE state = 'open' DO UPDATE SET run_id = EXCLUDED.run_id,
        label = EXCLUDED.label, action = EXCLUDED.action, artifact_id = EXCLUDED.artifact_id, uri = EXCLUDED.uri,
        content_length = EXCLUDED.content_length, detail = EXCLUDED.detail, seen_at = EXCLUDED.seen_at
"""


def _take(run_id: uuid.UUID, holder: uuid.UUID) -> bool:
    return _execute(
        "UPDATE validation_run SET lease_holder = %(holder)s, lease_until = inventory_now() + %(lease)s * interval '1 second' WHERE id = %(run)s "
        "AND state = 'running' AND (lease_until IS NULL OR lease_until < inventory_now())",
        run_id,
        holder,
    )


def _give_back(run_id: uuid.UUID, holder: uuid.UUID) -> bool:
    return _execute(
        "UPDATE validation_run SET lease_holder = NULL, lease_until = NULL WHERE id = %(run)s AND lease_holder = %(holder)s",
        run_id,
        holder,
    )


def _note_error(run_id: uuid.UUID, holder: uuid.UUID, text: str) -> None:
    ValidationRun.objects.filter(id=run_id, lease_holder=holder).update(last_error=text, updated_at=database_now())


def _execute(sql: str, run_id: uuid.UUID, holder: uuid.UUID) -> bool:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, {"run": run_id, "holder": holder, "lease": _LEASE.total_seconds()})
        return bool(cursor.rowcount)
