"""When content counts as held. No Django, no clock, no I/O."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from datamodel.checksums import Checksum


class Reason(StrEnum):
    """Why content is not held as asked."""

    UNKNOWN = "unknown"
    OTHER_CONTENT = "other_content"
    OTHER_ALGORITHM = "other_algorithm"
    TOO_FEW_COPIES = "too_few_copies"


@dataclass(frozen=True, slots=True)
class Asked:
    """One file as its owner has it."""

    uri: str
    digest: Checksum


@dataclass(frozen=True, slots=True)
class Demand:
    """What makes it safe: so many copies, each verified (written or read back) since then; None: at any time."""

    copies: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Known:
    """What the global knows of the uri, and the sites that said they hold it."""

    artifact_id: uuid.UUID
    checksum: str
    sha256: str | None
    length: int
    holders: tuple[uuid.UUID, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """What a site says of its own copy, asked just now."""

    site_id: uuid.UUID
    artifact_id: uuid.UUID
    checksum: str
    length: int
    verified_at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one file; `copies` are those that count. `reason` is None when it is held as asked."""

    copies: tuple[Copy, ...]
    reason: Reason | None


def mismatch(asked: Asked, known: Known | None) -> Reason | None:
    """Why no site needs to be asked: nothing is known under the uri, or it is not this content."""
    if known is None:
        return Reason.UNKNOWN
    digests = {known.checksum}
    if known.sha256 is not None:
        digests.add(f"sha-256:{known.sha256}")
    if str(asked.digest) in digests:
        return None
    names = {digest.partition(":")[0] for digest in digests}
    return Reason.OTHER_CONTENT if asked.digest.algorithm in names else Reason.OTHER_ALGORITHM


def judge(asked: Asked, known: Known | None, copies: Iterable[Copy], demand: Demand) -> Verdict:
    """Copies count when their site confirms the very artifact and knows it good since the time that was demanded."""
    reason = mismatch(asked, known)
    if reason is not None or known is None:
        return Verdict((), reason)
    counting = tuple(copy for copy in copies if _counts(copy, known, demand))
    return Verdict(counting, None if len(counting) >= demand.copies else Reason.TOO_FEW_COPIES)


def _counts(copy: Copy, known: Known, demand: Demand) -> bool:
    is_same = (copy.artifact_id, copy.checksum, copy.length) == (known.artifact_id, known.checksum, known.length)
    return is_same and (demand.since is None or copy.verified_at >= demand.since)


def are_held(verdicts: Sequence[Verdict]) -> bool:
    """Whether every file is held as asked; nothing asked is nothing said."""
    return bool(verdicts) and all(verdict.reason is None for verdict in verdicts)
