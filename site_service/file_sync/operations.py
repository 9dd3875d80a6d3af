"""Carrying bytes: one batch of the queue from its lease to its locations.

The table is the one mechanism of retries: whatever fails is recorded with its next try, and brokers are told to repeat nothing.
"""

from __future__ import annotations

import io
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.conf import settings
from django.db import connection, transaction

from datamodel.attachment import Arrival, attach_locations
from datamodel.errors import (
    CallerError,
    ChecksumMismatchError,
    InventoryError,
    RaceLostError,
    RemoteError,
    StorageError,
)
from datamodel.rules import ArtifactRow, Located
from datamodel.transactions import serialized
from site_service.file_sync import attempts, rules
from site_service.file_sync.attempts import Taken
from site_service.file_sync.download import Download, Failure, Limits
from site_service.file_sync.locator import Answer, configured_globals, locate
from site_service.file_sync.prefetch import Came, Prefetched
from site_service.file_sync.rules import Reason, Source, Wanted
from site_service.policy.queries import current_policy
from site_service.scrub import operations as scrub
from site_service.storage.contract import (
    ArtifactStore,
    ContentFacts,
    ContentSource,
    ExpectedContent,
    StoredObject,
    Write,
)

logger = logging.getLogger("inventory.sync")

# A location is recorded at most this long, and the files that are stored together, after its bytes are durable; in between a crash leaves bytes without a row.
_GROUP_SECONDS = 0.5
_RENEW_SECONDS = attempts.LEASE_SECONDS / 4
_POSTPONE_SECONDS = 10.0
# Small files that share their syncs; each is open twice, in each thread of a worker.
_TOGETHER = 25
# A site that could not be reached so often in one batch is not asked for the rest of it.
_UNREACHABLE = 2


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch; `is_blocked` says that others would fare alike now: no global answers, or the store is full."""

    stored: int = 0
    stored_bytes: int = 0
    failed: int = 0
    is_blocked: bool = False


@dataclass(frozen=True, slots=True)
class _Order:
    """One artifact to pull: the row of the queue, the artifact, and where it may be had."""

    taken: Taken
    artifact: ArtifactRow
    wanted: Wanted
    located: Answer


@dataclass(slots=True)
class _Ending:
    """The facts of the END line of one artifact, collected while it is worked on."""

    artifact: ArtifactRow
    started: float = field(default_factory=time.monotonic)
    sources: list[str] = field(default_factory=list)

    def log(self, reason: str, *, is_ok: bool, detail: str | None = None) -> None:
        facts = {
            "artifact": self.artifact.id,
            "uri": self.artifact.uri,
            "bytes": self.artifact.content_length,
            "seconds": f"{time.monotonic() - self.started:.3f}",
            "sources": ",".join(self.sources) or None,
            "result": "ok" if is_ok else "failed",
            "reason": reason,
            "detail": detail,
        }
        logger.log(logging.INFO if is_ok else logging.WARNING, "END event=sync", extra={"facts": facts})


def claim_batches(*, batches: int, store: ArtifactStore) -> list[uuid.UUID]:
    """Lease the head of the queue unless the store lacks room: then nothing is claimed until it has room again."""
    if not rules.has_room(store.free_space().free, mark=settings.INVENTORY_SYNC_FREE_BYTES):
        logger.warning("END event=claim", extra={"facts": {"result": "failed", "reason": Reason.NO_FREE_SPACE}})
        return []
    return attempts.claim(batches=batches)


def sync_batch(*, lease: uuid.UUID, store: ArtifactStore) -> BatchResult | None:
    """Pull what a claimed lease names: negotiate once, then per artifact download, store, and record in groups.

    Commits together, per group: locations with their events (or the bytes as obsolete), the end of the attempts, the counters.
    What fails is recorded with its reason and next try; an error of ours is recorded and raised. What was not begun when
    the process is told to stop is released. Returns None when the lease names nothing: it was taken up before, or is lost.
    """
    holder = uuid.uuid4()
    batch = _Batch(holder, store)
    try:
        taken = attempts.take_up(lease=lease, holder=holder)
        if not taken:
            return None
        orders = _negotiate(holder, _settle(taken))
        connection.close()
        batch.carry_all(orders or [])
    finally:
        attempts.release(holder=holder)
    return batch.result if orders is not None else BatchResult(is_blocked=True)


def _settle(taken: Sequence[Taken]) -> list[tuple[Taken, ArtifactRow]]:
    """Those that still need bytes; attempts of the others end here."""
    policy = current_policy()
    missing: list[tuple[Taken, ArtifactRow]] = []
    settled: list[tuple[Taken, Reason]] = []
    for row in taken:
        if row.known is None:
            settled.append((row, Reason.GONE))
        elif row.known.location is not None:
            settled.append((row, Reason.ALREADY_STORED))
        elif not (row.is_repair or policy.is_wanted(row.uri)):
            settled.append((row, Reason.UNWANTED))
        else:
            missing.append((row, row.known.artifact))
    if settled:
        attempts.finish([row.artifact_id for row, _ in settled])
    for row, reason in settled:
        logger.info("END event=sync", extra={"facts": {"artifact": row.artifact_id, "uri": row.uri, "reason": reason}})
    return missing


def _negotiate(holder: uuid.UUID, missing: Sequence[tuple[Taken, ArtifactRow]]) -> list[_Order] | None:
    """Orders with their sources; None when no global answers, which postpones the batch without counting an attempt."""
    if not missing:
        return []
    wanted = {taken.artifact_id: _wanted(artifact) for taken, artifact in missing}
    try:
        located = locate(configured_globals(), list(wanted.values()))
    except RemoteError as error:
        attempts.postpone(holder=holder, reason=error.code, detail=error.detail, seconds=_POSTPONE_SECONDS)
        facts = {"files": len(missing), "result": "failed", "reason": error.code, "detail": error.detail}
        logger.warning("END event=negotiate", extra={"facts": facts})
        return None
    return [_Order(taken, row, wanted[row.id], located[row.id]) for taken, row in missing]


def _wanted(row: ArtifactRow) -> Wanted:
    return Wanted(row.id, row.uri, row.content_length, rules.verifiable(row.content_checksum, row.content_sha256))


class _Batch:
    """The artifacts of one lease, one after the other; small ones share a commit."""

    def __init__(self, holder: uuid.UUID, store: ArtifactStore) -> None:
        self._holder = holder
        self._store = store
        self._limits = Limits.configured()
        self._renewed_at = time.monotonic()
        self._unreachable: dict[str, int] = {}
        self._left: deque[_Order] = deque()
        self._endings: dict[uuid.UUID, _Ending] = {}
        self._ahead = Prefetched(self._limits, self.renew_if_due)
        self._arrived: list[tuple[_Ending, Arrival]] = []
        self._result = BatchResult()

    @property
    def result(self) -> BatchResult:
        return self._result

    def carry_all(self, orders: Sequence[_Order]) -> None:
        """One after the other; what arrived is recorded even if the process is told to stop in the middle of the next."""
        self._left.extend(orders)
        try:
            while self._left and self._carry(self._left.popleft()):
                pass
        finally:
            self.record()

    def _carry(self, order: _Order) -> bool:
        """Bring one artifact's bytes; False when the rest of the batch had better wait."""
        ending = self._ending(order)
        sources, obstacle = self._sources(order)
        if obstacle is not None:
            self._fail(order, ending, *obstacle, is_retryable=True)
            return True
        try:
            self.renew_if_due()
            sources = self._fetch_ahead(order, sources)
            if together := self._take_together(order):
                self._write_together(together)
            else:
                self._arrive(ending, self._fetch(order, ending, sources))
        except InventoryError as error:
            self._fail(order, ending, error.code, error.detail, is_retryable=error.retryable)
            is_blocked = isinstance(error, StorageError)
            self._result = replace(self._result, is_blocked=is_blocked)
            return not is_blocked and not isinstance(error, RaceLostError)
        except Exception as error:
            self._fail(order, ending, Reason.UNEXPECTED, f"{type(error).__name__}: {error}", is_retryable=False)
            raise
        if self._arrived and time.monotonic() - self._arrived[0][0].started > _GROUP_SECONDS:
            self.record()
        return True

    def _ending(self, order: _Order) -> _Ending:
        """The same for what is asked for again."""
        return self._endings.setdefault(order.artifact.id, _Ending(order.artifact))

    def _arrive(self, ending: _Ending, stored: StoredObject) -> None:
        self._arrived.append((ending, _arrival(ending.artifact, stored)))

    def record(self) -> None:
        """Commit what arrived. If the fate of a commit is unknown the bytes stay: removing them could betray a row."""
        if not self._arrived:
            return
        arrived, self._arrived = self._arrived, []
        sizes = {ending.artifact.id: ending.artifact.content_length for ending, _ in arrived}
        attached = serialized(lambda: _record([arrival for _, arrival in arrived], sizes))
        connection.close()
        for ending, arrival in arrived:
            ending.log(Reason.STORED if arrival.artifact_id in attached else Reason.OBSOLETE, is_ok=True)
        self._result = replace(
            self._result,
            stored=self._result.stored + len(attached),
            stored_bytes=self._result.stored_bytes + sum(sizes[artifact_id] for artifact_id in attached),
        )

    def renew_if_due(self) -> None:
        """The heartbeat of the lease. Raises `RaceLostError` when it expired and another worker has the rows."""
        if time.monotonic() - self._renewed_at < _RENEW_SECONDS:
            return
        self._renewed_at = time.monotonic()
        is_ours = attempts.renew(holder=self._holder)
        connection.close()
        if not is_ours:
            raise RaceLostError("the lease expired and another worker has this artifact now")

    def _sources(self, order: _Order) -> tuple[list[Source], tuple[Reason, str] | None]:
        """Whom to ask, and if nobody or in vain: why."""
        length, free = order.artifact.content_length, self._store.free_space().free
        if not rules.has_room(free, mark=settings.INVENTORY_SYNC_FREE_BYTES, length=length):
            return [], (Reason.NO_FREE_SPACE, f"{length} bytes would leave less than INVENTORY_SYNC_FREE_BYTES")
        if not order.wanted.checksums:
            return [], (
                Reason.NO_DIGEST,
                f"{order.artifact.content_checksum} is of no algorithm that can be verified here",
            )
        if order.located.error is not None:
            return [], (Reason.NO_SOURCE, order.located.error.detail)
        ranked = rules.order_sources(
            order.located.sources, own_url=settings.INVENTORY_PUBLIC_URL, failing=self._unreachable
        )
        reachable = [source for source in ranked if self._unreachable.get(source.site, 0) < _UNREACHABLE]
        if not reachable:
            sites = ", ".join(sorted({source.site for source in ranked})) or "no other site"
            return [], (Reason.NO_SOURCE, f"{sites}: could not be reached a moment ago")
        return reachable, None

    def _fetch_ahead(self, order: _Order, sources: list[Source]) -> list[Source]:
        """If this one may come with others of its best source that wait for their turn, they come now. Its sources, as ranked then."""
        if not self._ahead.may_ask(order.wanted, sources[0]) or sources[0].site in self._unreachable:
            return sources
        waiting = [(each, self._sources(each)[0]) for each in self._left]
        choices = [(order.wanted, sources[0])]
        choices += [(each.wanted, reachable[0]) for each, reachable in waiting if reachable]
        self._remember(*self._ahead.fetch(choices))
        return self._sources(order)[0] or sources

    def _take_together(self, order: _Order) -> list[tuple[_Order, Came]]:
        """This one and those after it, as far as their bytes have come already and there is room for all; they leave the line."""
        came = self._ahead.take(order.wanted)
        if came is None:
            return []
        together, size, free = [(order, came)], len(came.content), self._store.free_space().free
        while self._left and len(together) < _TOGETHER:
            size += self._left[0].artifact.content_length
            if not rules.has_room(free, mark=settings.INVENTORY_SYNC_FREE_BYTES, length=size):
                break
            if (came := self._ahead.take(self._left[0].wanted)) is None:
                break
            together.append((self._left.popleft(), came))
        return together

    def _write_together(self, together: Sequence[tuple[_Order, Came]]) -> None:
        """Small files share their syncs. What is not right is asked for alone, of all sources; after a failure the others wait again."""
        endings = [self._ending(order) for order, _ in together]
        for ending, (_, came) in zip(endings, together, strict=True):
            ending.sources.append(came.site)
        again = [order for order, _ in together[1:]]
        try:
            outcomes = self._store.write_all(
                [self._writing(order, io.BytesIO(came.content)) for order, came in together]
            )
            again = [order for (order, _), one in zip(together, outcomes, strict=True) if isinstance(one, CallerError)]
        finally:
            self._left.extendleft(reversed(again))
        for ending, outcome in zip(endings, outcomes, strict=True):
            if isinstance(outcome, StoredObject):
                self._arrive(ending, outcome)

    def _fetch(self, order: _Order, ending: _Ending, sources: list[Source]) -> StoredObject:
        """The artifact in the store; sources that gave wrong bytes are left out and the rest asked again."""
        while True:
            with Download(order.wanted, sources, self._limits) as download:
                try:
                    writing = self._writing(order, download)
                    return self._store.write(writing.content, writing.facts, writing.expected)
                except ChecksumMismatchError:
                    sources = [source for source in sources if source not in download.contributors]
                    if not sources:
                        raise
                finally:
                    ending.sources += download.tried
                    self._remember(download.failures, download.contributors)

    def _writing(self, order: _Order, content: ContentSource) -> Write:
        return Write(_Renewing(content, self), _facts(order.artifact), _expected(order.wanted))

    def _remember(self, failures: Iterable[Failure], contributors: Iterable[Source]) -> None:
        for failure in failures:
            if failure.error.retryable:
                self._unreachable[failure.source.site] = self._unreachable.get(failure.source.site, 0) + 1
        for source in contributors:
            self._unreachable.pop(source.site, None)

    def _fail(self, order: _Order, ending: _Ending, reason: str, detail: str, *, is_retryable: bool) -> None:
        seconds = rules.retry_seconds(order.taken.attempts, is_retryable=is_retryable, chance=random.random())  # noqa: S311  # jitter
        with transaction.atomic():
            attempts.fail(
                holder=self._holder, artifact_id=order.artifact.id, reason=reason, detail=detail, seconds=seconds
            )
            if order.taken.is_repair:
                scrub.note_failed_repair(artifact_id=order.artifact.id, reason=reason, detail=detail)
            attempts.count(reason, files=1, size=0)
        connection.close()
        ending.log(reason, is_ok=False, detail=detail)
        self._result = replace(self._result, failed=self._result.failed + 1)


class _Renewing:
    """The content of a download, with the heartbeat of its lease while it streams."""

    def __init__(self, content: ContentSource, batch: _Batch) -> None:
        self._content = content
        self._batch = batch

    def read(self, size: int, /) -> bytes:
        self._batch.renew_if_due()
        return self._content.read(size)


def _record(arrivals: Sequence[Arrival], sizes: Mapping[uuid.UUID, int]) -> set[uuid.UUID]:
    attached = attach_locations(arrivals)
    attempts.finish(list(sizes))
    for reason, ids in ((Reason.STORED, attached), (Reason.OBSOLETE, sizes.keys() - attached)):
        if ids:
            attempts.count(reason, files=len(ids), size=sum(sizes[artifact_id] for artifact_id in ids))
    return attached


def _arrival(artifact: ArtifactRow, stored: StoredObject) -> Arrival:
    sha256 = stored.checksums.get("sha-256")
    located = Located(stored.storage_id, stored.storage_bucket)
    return Arrival(artifact.id, located, bytes.fromhex(sha256) if sha256 else None)


def _facts(artifact: ArtifactRow) -> ContentFacts:
    return ContentFacts(artifact.id, artifact.uri, artifact.content_type, artifact.content_encoding)


def _expected(wanted: Wanted) -> ExpectedContent:
    checksums = {checksum.algorithm: checksum.hex for checksum in wanted.checksums}
    return ExpectedContent(length=wanted.content_length, checksums=checksums)
