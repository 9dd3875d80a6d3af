"""Decisions of file sync: which source first, what goes into one batch, when to try again. No Django, no clock, no I/O."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from datamodel.checksums import Checksum
from datamodel.errors import InvalidChecksumError

_TRANSIENT_SECONDS, _TRANSIENT_CAP = 2.0, 15 * 60.0
_REFUSED_SECONDS, _REFUSED_CAP = 10.0, 3600.0
_MAX_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Source:
    """One URL from which the bytes may be had, and the name of its site."""

    url: str
    site: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What must arrive: the identity, length and digests of one artifact."""

    artifact_id: uuid.UUID
    uri: str
    content_length: int
    checksums: tuple[Checksum, ...]


def verifiable(checksum: str, sha256: bytes | None) -> tuple[Checksum, ...]:
    """The digests of an artifact's columns that bytes can be held against; none if its algorithm is not one of ours."""
    found = [] if sha256 is None else [Checksum.from_bytes("sha-256", sha256)]
    try:
        declared = Checksum.parse(checksum)
    except InvalidChecksumError:
        return tuple(found)
    return (declared, *(other for other in found if other.algorithm != declared.algorithm))


@dataclass(frozen=True, slots=True)
class Due:
    """One row at the head of the queue."""

    artifact_id: uuid.UUID
    content_length: int


class Reason(StrEnum):
    """How a unit of work on one artifact ended, beside the `code` of whatever error stopped it."""

    STORED = "stored"
    OBSOLETE = "obsolete"
    ALREADY_STORED = "already_stored"
    GONE = "gone"
    UNWANTED = "unwanted"
    NO_SOURCE = "no_source"
    NO_DIGEST = "no_digest"
    UNEXPECTED = "unexpected"
    NO_FREE_SPACE = "no_free_space"


class Standing(StrEnum):
    """What file sync makes of an artifact, for `explain`."""

    STORED = "stored"
    UNKNOWN = "not known here"
    UNWANTED = "not wanted here"
    QUEUEING = "wanted, not in the queue yet"
    RUNNING = "being pulled"
    DUE = "due"
    WAITING = "waiting for its next try"


@dataclass(frozen=True, slots=True)
class Queued:
    """The times of a row of the queue."""

    is_repair: bool
    next_try_at: datetime
    lease_until: datetime | None


def order_sources(sources: Iterable[Source], *, own_url: str, failing: Collection[str]) -> list[Source]:
    """The global's order, without this site itself and repeated URLs; sites that just failed here come last."""
    others = {source.url: source for source in sources if not source.url.startswith(f"{own_url}/")}
    return sorted(others.values(), key=lambda source: source.site in failing)


def share(due: int, *, among: int, least: int, most: int) -> int:
    """How many files a batch has: few are shared by all who are free, unless that makes crumbs; many are taken in large ones."""
    return min(max(-(-due // among), least), most)


def plan_batches(due: Sequence[Due], *, max_files: int, max_bytes: int) -> Iterator[list[Due]]:
    """Cut the head of the queue, in its order, into batches of bounded count and bytes; a large file goes alone."""
    batch: list[Due] = []
    size = 0
    for row in due:
        if batch and (len(batch) == max_files or size + row.content_length > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row.content_length
    if batch:
        yield batch


def retry_seconds(attempts: int, *, is_retryable: bool, chance: float) -> float:
    """How long to wait after the `attempts`-th failure: doubling, with jitter from `chance` in [0, 1), capped.

    What a repeat may mend is tried every quarter of an hour in the end. What needs a change elsewhere first (news that are
    on their way, a key that a site has yet to fetch, an operator's hand) starts slower and is tried hourly in the end.
    """
    first, cap = (_TRANSIENT_SECONDS, _TRANSIENT_CAP) if is_retryable else (_REFUSED_SECONDS, _REFUSED_CAP)
    return float(min(cap, first * 2 ** min(max(attempts, 1) - 1, _MAX_DOUBLINGS)) * (0.5 + chance / 2))


def has_room(free: int | None, *, mark: int, length: int = 0) -> bool:
    """Whether `length` more bytes leave the marked free space; a store that does not tell its space has room."""
    return free is None or free - length >= mark


def is_due(next_try_at: datetime, lease_until: datetime | None, now: datetime) -> bool:
    """Whether a row of the queue may be claimed."""
    return next_try_at <= now and (lease_until is None or lease_until <= now)


def is_leased(lease_until: datetime | None, now: datetime) -> bool:
    """Whether a unit of work has the row now."""
    return lease_until is not None and lease_until > now


def standing(*, is_known: bool, is_stored: bool, is_wanted: bool, queued: Queued | None, now: datetime) -> Standing:
    """Where an artifact stands, in one word for the operator."""
    if not is_known:
        return Standing.UNKNOWN
    if is_stored:
        return Standing.STORED
    if queued is not None and is_leased(queued.lease_until, now):
        return Standing.RUNNING
    if not (is_wanted or (queued is not None and queued.is_repair)):
        return Standing.UNWANTED
    if queued is None:
        return Standing.QUEUEING
    return Standing.DUE if is_due(queued.next_try_at, queued.lease_until, now) else Standing.WAITING
