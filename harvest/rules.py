"""What a harvested row means here: pure decisions for the two roles, and the arithmetic of namespaces. No Django, no clock.

The set-based statements of `apply_artifacts.py` say the same for the plain cases; a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from datamodel.rules import ArtifactRow, is_newer_metadata, is_winner
from datamodel.uris import Namespace, namespace_filter


@dataclass(frozen=True, slots=True)
class Selection:
    """What a site wants of what a global offers: namespaces to ask for, and the last word on each uri.

    It is read again in the transaction of each batch, after the cursor is locked: see `operations.apply_batch`. `rules` say the
    same as `is_wanted` in a form that a peer understands: the longest namespace that a uri lies under decides; without rules
    everything in `wanted` is wanted.
    """

    wanted: tuple[Namespace, ...]
    is_wanted: Callable[[str], bool]
    rules: tuple[tuple[Namespace, bool], ...] = ()


class Verdict(Enum):
    """What happens to a harvested artifact row."""

    IGNORE = "neither wanted nor known here"
    SKIP = "its id was deleted for ever"
    REJECT = "it contradicts what is known of its id"
    INSERT = "new here"
    UPDATE = "its metadata are newer"
    KEEP = "nothing new"
    OFFER = "ours is newer, and the sender shall see it"
    REPLACE = "it wins a collision: the local artifact is deleted"
    REFUSE = "it loses a collision: it is recorded as deleted"
    RENEW = "it would win, but the local content was put again later: that gets a new id, and this one is recorded as deleted"


@dataclass(frozen=True, slots=True)
class Known:
    """What this inventory knows: of the row's id; of another artifact with its uri, and when that was put again here."""

    same_id: ArtifactRow | None = None
    same_uri: ArtifactRow | None = None
    is_tombstoned: bool = False
    reaffirmed_at: datetime | None = None


def contradicts(one: ArtifactRow, other: ArtifactRow) -> bool:
    """Whether two rows of one id disagree on what never changes."""
    shas = {one.content_sha256, other.content_sha256} - {None}
    return _identity(one) != _identity(other) or len(shas) > 1


def verdict_at_global(incoming: ArtifactRow, known: Known) -> Verdict:
    """A global takes every row that a site stores."""
    if known.is_tombstoned:
        return Verdict.SKIP
    if known.same_id is not None:
        verdict = _of_same_artifact(incoming, known.same_id)
        is_behind = incoming.meta_checksum != known.same_id.meta_checksum and verdict is Verdict.KEEP
        return Verdict.OFFER if is_behind else verdict
    if known.same_uri is not None:
        return Verdict.REPLACE if is_winner(incoming, known.same_uri) else Verdict.REFUSE
    return Verdict.INSERT


def verdict_at_site(incoming: ArtifactRow, known: Known, *, is_kept: bool) -> Verdict:
    """A site takes what it knows by id or uri; of the rest what it keeps: wanted, or its bytes are still here."""
    if known.is_tombstoned:
        return Verdict.SKIP
    if known.same_id is not None:
        return _of_same_artifact(incoming, known.same_id)
    if known.same_uri is not None:
        return _of_collision_at_site(incoming, known.same_uri, known.reaffirmed_at)
    return Verdict.INSERT if is_kept else Verdict.IGNORE


def outlives(reaffirmed_at: datetime | None, deleted_at: datetime) -> bool:
    """Whether content was put again after the deletion that now arrives: its bytes then get a new id and stay."""
    return reaffirmed_at is not None and reaffirmed_at > deleted_at


def uncovered(wanted: Sequence[Namespace], covers: Sequence[Namespace]) -> list[Namespace]:
    """The wanted namespaces that no covered one contains."""
    return [
        namespace for namespace in namespace_filter(list(wanted)) if not any(namespace in cover for cover in covers)
    ]


def narrowed(covers: Sequence[Namespace], wanted: Sequence[Namespace]) -> list[Namespace]:
    """What of the covered namespaces is still wanted: the overlap of two lists of prefixes."""
    overlap = [cover for cover in covers if any(cover in want for want in wanted)]
    overlap += [want for want in wanted if any(want in cover for cover in covers)]
    return namespace_filter(overlap)


def _identity(row: ArtifactRow) -> tuple[object, ...]:
    return row.uri, row.content_checksum, row.content_length, row.content_last_modified


def _of_same_artifact(incoming: ArtifactRow, local: ArtifactRow) -> Verdict:
    if contradicts(incoming, local):
        return Verdict.REJECT
    return Verdict.UPDATE if is_newer_metadata(incoming, local) else Verdict.KEEP


def _of_collision_at_site(incoming: ArtifactRow, local: ArtifactRow, reaffirmed_at: datetime | None) -> Verdict:
    if not is_winner(incoming, local):
        return Verdict.REFUSE
    return Verdict.RENEW if outlives(reaffirmed_at, incoming.content_last_modified) else Verdict.REPLACE
