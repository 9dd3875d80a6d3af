"""Reading copies back one after the other, and taking out of service what is not good. Each step may be repeated.

No transaction is open while bytes are read. What was read and not yet recorded when a process dies is read again.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from datamodel import operations as model, queries as model_queries
from datamodel.alarms.operations import raise_alarm
from datamodel.alarms.rules import AlarmKind, family_of
from datamodel.checksums import Checksum
from datamodel.errors import InvalidChecksumError, StorageUnavailableError
from datamodel.representation import checksums_of
from datamodel.rows import database_now
from datamodel.rules import ArtifactRow, Located
from datamodel.transactions import serialized
from site_service.scrub import leases, queries, reading, rules
from site_service.scrub.models import DamagedCopy
from site_service.scrub.reading import Expected, Pace, Verdict
from site_service.scrub.rules import Rule, Schedule
from site_service.storage.contract import ArtifactStore

logger = logging.getLogger("inventory.scrub")

_GROUP_SECONDS = 0.5
_GROUP_FILES = 100
# A long reading keeps no connection from others.
_LONG_BYTES = 8 * 1024 * 1024
_RETRY_SECONDS = 3600.0
# So many copies in a row that cannot be read say something of the store, not of them.
_STORE_IS_ILL = 3


@dataclass(slots=True)
class RunResult:
    """What a run did; `is_ended_early`: the next one had better wait for its tick."""

    files: int = 0
    bytes: int = 0
    damaged: int = 0
    unreadable: int = 0
    is_ended_early: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A lease and the copies that it is about, the longest unverified first."""

    lease: uuid.UUID
    artifact_ids: list[uuid.UUID]


@dataclass(frozen=True, slots=True)
class _Read:
    """A copy that was read; `began` on the monotonic clock: its bytes were good no later than that is known."""

    artifact_id: uuid.UUID
    located: Located
    length: int
    result: str
    began: float
    next_at: datetime | None = None


def begin_run(*, seconds: float) -> Run | None:
    """Choose what is read next, for about `seconds`, and lease it; None when nothing is due or somebody reads already.

    Each rule of the schedule that may run now gets an equal share of the time. The lease expires unless it is taken up; a
    repeat then chooses anew.
    """
    schedule = queries.configured_schedule()
    now = database_now()
    due = {
        rule: queries.due_copies(rule.namespace, now=now, limit=rules.RUN_FILES) for rule in schedule.open_rules(now)
    }
    waiting = {rule: rows for rule, rows in due.items() if rows}
    chosen = [
        row.artifact_id
        for rule, rows in waiting.items()
        for row in rules.plan_run(rows, limit=rules.budget(rule, seconds=seconds / len(waiting)))
    ]
    if not chosen:
        return None
    lease = leases.claim()
    return Run(lease, chosen[: rules.RUN_FILES]) if lease is not None else None


def carry_run(
    *, lease: uuid.UUID, artifact_ids: Sequence[uuid.UUID], store: ArtifactStore, pace: Pace | None = None
) -> RunResult | None:
    """Read these copies back, those that are still due, one at a time and within the bandwidth of their rule.

    Commits good ones in groups; one that is bad is taken out of service at once. Returns None when the lease is not to be had:
    this message came twice, or too late. Raises `RaceLostError` when it is lost on the way; the rest is read by the next run.
    """
    holder = uuid.uuid4()
    if not leases.take_up(lease=lease, holder=holder):
        return None
    reader = _Reader(store, queries.configured_schedule(), pace or Pace(beat=leases.Heartbeat(holder)))
    try:
        return reader.read_all(artifact_ids)
    finally:
        reader.record()
        leases.release(holder=holder)


def report_missing(*, artifact: ArtifactRow, located: Located, store: ArtifactStore) -> bool:
    """A reader of a file could not get its bytes: take the copy out of service if they are really not there.

    Returns whether it did. Raises `StorageUnavailableError`; a repeat changes nothing.
    """
    verdict = reading.look(store, Expected(located.storage_id, artifact.content_length, {}))
    return verdict.finding is not None and take_out(artifact=artifact, located=located, verdict=verdict, found_by="get")


def take_out(*, artifact: ArtifactRow, located: Located, verdict: Verdict, found_by: str) -> bool:
    """From this commit on the copy is neither served nor located, and file sync repairs it, whatever the policy says.

    Commits together: the end of the location with its DeletedStorageLocationEvent, and the DamagedCopy, which keeps the bytes. Returns
    False, with nothing changed, when the artifact is not stored at that place any more: somebody was faster.
    """
    finding = verdict.finding
    if finding is None:
        return False
    was_stored = serialized(lambda: _take_out(artifact, located, verdict, found_by))
    if was_stored:
        facts = {
            "artifact": artifact.id,
            "uri": artifact.uri,
            "storage_id": located.storage_id,
            "result": "failed",
            "reason": finding,
            "found_by": found_by,
            "detail": verdict.detail,
        }
        logger.warning("END event=damaged_copy", extra={"facts": facts})
    return was_stored


def note_failed_repair(*, artifact_id: uuid.UUID, reason: str, detail: str) -> None:
    """File sync could not repair a copy: an alarm, once, if that means that there is no good copy anywhere.

    For artifacts without damaged copy nothing happens.
    """
    values: dict[str, Any] = {
        "id": artifact_id,
        "reason": reason,
        "detail": detail,
        "hopeless": rules.tells_no_copy(reason),
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_FAILED_REPAIR_SQL, values)
        found = cursor.fetchall()
        for uri, finding, is_new in found:
            if is_new:
                text = (
                    f"No good copy of {uri} was found anywhere ({finding} here; {reason}). The damaged bytes are kept."
                )
                raise_alarm(kind=AlarmKind.NO_GOOD_COPY, subject=family_of(uri), text=text)
    for uri, finding, is_new in found:
        if is_new:
            facts = {"artifact": artifact_id, "uri": uri, "finding": finding, "reason": reason, "detail": detail}
            logger.error("END event=unrepairable_copy", extra={"facts": facts | {"result": "failed"}})


def recheck(*, damaged_id: uuid.UUID, store: ArtifactStore, pace: Pace | None = None) -> bool:
    """Read damaged bytes again: what an operator put back, or a disk that came back, is in service again if all is right.

    Commits the location with its StorageLocationEvent. Returns whether it did. Raises `StorageUnavailableError`.
    """
    damaged = DamagedCopy.objects.filter(id=damaged_id, state=DamagedCopy.State.DAMAGED).first()
    known = model_queries.artifact_by_id(damaged.artifact_id) if damaged is not None else None
    if damaged is None or known is None or known.location is not None:
        return False
    declared = declared_checksums(known.artifact)
    connection.close()
    expected = Expected(damaged.storage_id, known.artifact.content_length, declared)
    speed = queries.configured_schedule().rule_for(damaged.uri).bytes_per_second
    verdict = reading.examine(store, expected, pace=pace or Pace(beat=_no_beat), bytes_per_second=speed)
    if verdict.finding is not None or not declared:
        DamagedCopy.objects.filter(id=damaged_id).update(checked_at=database_now())
        return False
    located = Located(damaged.storage_id, damaged.storage_bucket)
    is_back = model.attach_location(artifact_id=damaged.artifact_id, located=located) is not None
    facts = {"artifact": damaged.artifact_id, "uri": damaged.uri, "result": "ok", "reason": "good_again"}
    logger.info("END event=recheck", extra={"facts": facts})
    return is_back


def declared_checksums(artifact: ArtifactRow) -> dict[str, str]:
    """The digests that its bytes can be held against; none if the algorithm of its checksum is not one of ours."""
    try:
        found = checksums_of(artifact)
    except InvalidChecksumError:
        raw = artifact.content_sha256
        found = [Checksum.from_bytes("sha-256", raw)] if raw is not None else []
    return {checksum.algorithm: checksum.hex for checksum in found}


def _no_beat() -> None:
    """Nobody else is told of a single reading."""


@dataclass(slots=True)
class _Reader:
    """The copies of one run, one after the other; small ones share a commit."""

    store: ArtifactStore
    schedule: Schedule
    pace: Pace
    result: RunResult = field(default_factory=RunResult)
    _done: list[_Read] = field(default_factory=list)
    _unreadable_in_a_row: int = 0

    def read_all(self, artifact_ids: Sequence[uuid.UUID]) -> RunResult:
        for artifact_id in artifact_ids:
            known = _due_copy(artifact_id)
            if known is None:
                continue
            artifact, located = known
            rule = self.schedule.rule_for(artifact.uri)
            if not (rule.period_seconds and rule.hours.hold(database_now())):
                continue
            self._read(artifact, located, rule)
            if self._unreadable_in_a_row >= _STORE_IS_ILL:
                self.result.is_ended_early = True
                raise_alarm(
                    kind=AlarmKind.UNREADABLE_STORE,
                    subject="store",
                    text=f"It fails to read: the last copy was {artifact.uri}.",
                )
                break
            if self._done and (
                len(self._done) >= _GROUP_FILES or time.monotonic() - self._done[0].began > _GROUP_SECONDS
            ):
                self.record()
        return self.result

    def record(self) -> None:
        """Commit what was read and not found bad."""
        done, self._done = self._done, []
        if done:
            serialized(lambda: _record(done))
            connection.close()

    def _read(self, artifact: ArtifactRow, located: Located, rule: Rule) -> None:
        began, declared = time.monotonic(), declared_checksums(artifact)
        if artifact.content_length >= _LONG_BYTES:
            self.record()
            connection.close()
        expected = Expected(located.storage_id, artifact.content_length, declared)
        try:
            if declared:
                verdict = reading.examine(self.store, expected, pace=self.pace, bytes_per_second=rule.bytes_per_second)
            else:
                verdict = reading.look(self.store, expected)
        except StorageUnavailableError as error:
            self._note_unreadable(artifact, located, began, error)
            return
        self._unreadable_in_a_row = 0
        self.result.files += 1
        self.result.bytes += artifact.content_length if declared else 0
        if verdict.finding is None:
            outcome = "read" if declared else "no_digest"
            turn = rules.next_reading(artifact.id, verified_at=database_now(), period_seconds=rule.period_seconds)
            self._done.append(_Read(artifact.id, located, artifact.content_length, outcome, began, turn))
        elif take_out(artifact=artifact, located=located, verdict=verdict, found_by="scrub"):
            self.result.damaged += 1

    def _note_unreadable(
        self, artifact: ArtifactRow, located: Located, began: float, error: StorageUnavailableError
    ) -> None:
        """Not known to be bad, so it stays in service; it is tried again in an hour, and counted until it can be read."""
        self._unreadable_in_a_row += 1
        self.result.unreadable += 1
        self._done.append(_Read(artifact.id, located, 0, "unreadable", began))
        facts = {"artifact": artifact.id, "uri": artifact.uri, "storage_id": located.storage_id, "result": "failed"}
        logger.warning("END event=scrub_copy", extra={"facts": facts | {"reason": error.code, "detail": error.detail}})


def _due_copy(artifact_id: uuid.UUID) -> tuple[ArtifactRow, Located] | None:
    """A copy whose time has come, as it is now; None when it was read, replaced or taken away since it was chosen."""
    known = model_queries.artifact_by_id(artifact_id)
    if known is None or known.location is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(_STILL_DUE_SQL, {"id": artifact_id, "storage_id": known.location.storage_id})
        return (known.artifact, known.location) if cursor.fetchone() else None


def _record(done: Sequence[_Read]) -> None:
    now = time.monotonic()
    values: dict[str, Any] = {
        "ids": [read.artifact_id for read in done],
        "storage_ids": [read.located.storage_id for read in done],
        "results": [read.result for read in done],
        "ages": [now - read.began for read in done],
        "times": [read.next_at for read in done],
        "retry": _RETRY_SECONDS,
    }
    with connection.cursor() as cursor:
        cursor.execute(_RECORD_SQL, values)
        for result in sorted({read.result for read in done}):
            lengths = [read.length for read in done if read.result == result]
            count(result, files=len(lengths), size=sum(lengths))


def _take_out(artifact: ArtifactRow, located: Located, verdict: Verdict, found_by: str) -> bool:
    # Before the location goes: what is known of its bytes is looked up by it.
    with connection.cursor() as cursor:
        cursor.execute(_LAST_VERIFIED_SQL, [artifact.id])
        row = cursor.fetchone()
    if row is None or not model.clear_location(artifact_id=artifact.id, expected=located):
        return False
    now = database_now()
    DamagedCopy.objects.create(
        artifact_id=artifact.id,
        uri=artifact.uri,
        storage_id=located.storage_id,
        storage_bucket=located.storage_bucket,
        content_length=artifact.content_length,
        content_checksum=artifact.content_checksum,
        finding=str(verdict.finding),
        detail=verdict.detail,
        found_by=found_by,
        found_at=now,
        last_verified_at=row[0],
        state_at=now,
        checked_at=now,
    )
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM copy_verification WHERE storage_bucket = %s AND storage_id = %s", _place(located))
    count(str(verdict.finding), files=1, size=artifact.content_length)
    text = f"The copy of {artifact.uri} here is bad ({verdict.finding}, found by {found_by}): out of service, to be repaired."
    raise_alarm(kind=AlarmKind.DAMAGED_COPY, subject=family_of(artifact.uri), text=text)
    return True


def _place(located: Located) -> list[str]:
    return [located.storage_bucket, located.storage_id]


def count(result: str, *, files: int, size: int) -> None:
    """Add to the counters by result; last in a transaction, for the row is shared."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_SQL, {"result": result, "files": files, "bytes": size})


_STILL_DUE_SQL = """
    SELECT 1 FROM copy_verification
    WHERE artifact_id = %(id)s AND storage_id = %(storage_id)s AND next_at <= (SELECT inventory_now())
"""
# Bytes were good when their reading began, not when it ended.
_RECORD_SQL = """
    UPDATE copy_verification v SET result = n.result,
        verified_at = CASE WHEN n.result = 'read'
            THEN greatest(v.verified_at, inventory_now() - make_interval(secs => n.age)) ELSE v.verified_at END,
        next_at = coalesce(n.next_at, inventory_now() + make_interval(secs => %(retry)s)),
        failures = CASE WHEN n.result = 'unreadable' THEN v.failures + 1 ELSE 0 END
    FROM unnest(%(ids)s::uuid[], %(storage_ids)s::text[], %(results)s::text[], %(ages)s::float8[], %(times)s::timestamptz[])
        AS n(id, storage_id, result, age, next_at)
    WHERE v.artifact_id = n.id AND v.storage_id = n.storage_id
"""
_LAST_VERIFIED_SQL = f"""
    SELECT {queries.VERIFIED_AT} FROM storage_location l {queries.VERIFICATION} WHERE l.artifact_id = %s
"""
_COUNT_SQL = """
    INSERT INTO scrub_outcome (result, files, bytes) VALUES (%(result)s, %(files)s, %(bytes)s)
    ON CONFLICT (result) DO UPDATE
        SET files = scrub_outcome.files + EXCLUDED.files, bytes = scrub_outcome.bytes + EXCLUDED.bytes
"""
_FAILED_REPAIR_SQL = """
    WITH before AS (
        SELECT id, unrepairable_since FROM damaged_copy WHERE artifact_id = %(id)s AND state = 'damaged' FOR UPDATE
    )
    UPDATE damaged_copy d SET repair_reason = %(reason)s, repair_detail = %(detail)s,
        unrepairable_since = CASE WHEN %(hopeless)s THEN coalesce(d.unrepairable_since, inventory_now())
            ELSE d.unrepairable_since END
    FROM before b WHERE d.id = b.id
    RETURNING d.uri, d.finding, d.unrepairable_since IS NOT NULL AND b.unrepairable_since IS NULL
"""
