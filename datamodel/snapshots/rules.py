"""Digests of an inventory at a moment, states of snapshots, and which of them a schedule keeps. No Django, no clock, no I/O."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

_MODULUS = 2**128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class State(StrEnum):
    """PINNING: bytes are kept, but not everybody concerned has said so. KEPT: they have, and the digest is final."""

    PINNING = "pinning"
    KEPT = "kept"
    RELEASED = "released"


MOVES: Mapping[State, frozenset[State]] = {
    State.PINNING: frozenset({State.KEPT, State.RELEASED}),
    State.KEPT: frozenset({State.RELEASED}),
    State.RELEASED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact of an inventory at a moment; `content_sha256` is raw or None."""

    id: uuid.UUID
    uri: str
    content_checksum: str
    content_sha256: bytes | None
    content_length: int
    content_type: str | None
    content_encoding: str | None
    born_at: datetime

    @property
    def content(self) -> tuple[str, int]:
        """Equal for equal bytes."""
        return self.content_checksum, self.content_length


@dataclass(frozen=True, slots=True)
class Digest:
    """Of a set of artifacts: how many, their bytes, and the sum of their words; the order does not matter."""

    count: int = 0
    size: int = 0
    total: int = 0

    @property
    def text(self) -> str:
        return f"{self.total % _MODULUS:032x}"

    def plus(self, other: Digest) -> Digest:
        return Digest(self.count + other.count, self.size + other.size, (self.total + other.total) % _MODULUS)


Tree = Mapping[str, Digest]
"""Digests by bucket: the first two hex digits of the MD5 of the uri. Buckets without artifacts are not in it."""


def bucket_of(uri: str) -> str:
    """As `left(md5(uri), 2)` in SQL."""
    return hashlib.md5(uri.encode(), usedforsecurity=False).hexdigest()[:2]


def word_of(entry: Entry) -> int:
    """128 bits of SHA-256 over id, uri, checksum and length.

    The SHA-256 of the content is left out: it may become known later, and a digest must not change by that.
    """
    text = f"{entry.id} {entry.uri} {entry.content_checksum} {entry.content_length}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16])


def tree_of(entries: Iterable[Entry]) -> Tree:
    """The definition of a tree."""
    tree: dict[str, Digest] = {}
    for entry in entries:
        bucket = bucket_of(entry.uri)
        one = Digest(1, entry.content_length, word_of(entry))
        tree[bucket] = tree.get(bucket, Digest()).plus(one)
    return tree


def total_of(tree: Tree) -> Digest:
    """The digest of everything in it."""
    whole = Digest()
    for digest in tree.values():
        whole = whole.plus(digest)
    return whole


def differing(one: Tree, other: Tree) -> list[str]:
    """The buckets that are not the same in both."""
    return sorted(bucket for bucket in one.keys() | other.keys() if one.get(bucket) != other.get(bucket))


def stored_tree(tree: Tree) -> dict[str, list[int | str]]:
    """As JSON."""
    return {bucket: [digest.count, digest.size, digest.text] for bucket, digest in sorted(tree.items())}


def tree_from(stored: Mapping[str, Sequence[int | str]]) -> Tree:
    """From its JSON."""
    return {bucket: Digest(int(line[0]), int(line[1]), int(str(line[2]), 16)) for bucket, line in stored.items()}


class Change(StrEnum):
    """What became of a uri between two moments. RENEWED: the same content under another id."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    RENEWED = "renewed"


def change_of(before: Entry | None, after: Entry | None) -> Change:
    """Of two different entries of one uri."""
    if before is None:
        return Change.ADDED
    if after is None:
        return Change.REMOVED
    return Change.RENEWED if before.content == after.content else Change.CHANGED


def is_name(text: str) -> bool:
    """Whether a snapshot or a schedule may be called so."""
    return bool(_NAME.match(text))


@dataclass(frozen=True, slots=True)
class Keep:
    """How many hours, days, months and years a schedule's snapshots reach back, each by one of them; times are UTC."""

    hourly: int = 0
    daily: int = 0
    monthly: int = 0
    yearly: int = 0

    @property
    def periods(self) -> list[tuple[str, int]]:
        """(form of a period's name, how many), the shortest period first."""
        counts = [
            ("%Y-%m-%dT%HZ", self.hourly),
            ("%Y-%m-%d", self.daily),
            ("%Y-%m", self.monthly),
            ("%Y", self.yearly),
        ]
        return [(form, count) for form, count in counts if count > 0]

    def period_of(self, moment: datetime) -> str:
        """The name of the shortest period that is kept, at a moment: a snapshot is due once in each. "" if none is kept."""
        return next((moment.strftime(form) for form, _ in self.periods), "")


def kept_moments(moments: Iterable[datetime], keep: Keep) -> frozenset[datetime]:
    """Which snapshots stay: of each of the latest so many hours (days, …) that have any, the first.

    The first of a period never changes when later ones come, so what was thinned once stays as it is, and a second run
    removes nothing.
    """
    ordered = sorted(moments)
    kept: set[datetime] = set()
    for form, count in keep.periods:
        first: dict[str, datetime] = {}
        for moment in ordered:
            first.setdefault(moment.strftime(form), moment)
        kept.update(sorted(first.values())[-count:])
    return frozenset(kept)
