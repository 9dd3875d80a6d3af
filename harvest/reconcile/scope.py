"""The sets of artifacts that both ends can name, and the digests of their buckets. No Django, no clock, no I/O.

A tree maps a bucket prefix to how many rows it has and the sum of their words; a row's word is the first 64 bits of the
MD5 of its `metaChecksum`, which covers the id. Sums do not depend on order, and bucket prefixes without rows are not in the tree.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from datamodel.uris import Namespace, namespace_filter

BUCKET_DIGITS = 5
_MODULUS = 2**64
# A bucket prefix with at most so many rows is listed: its digests by the next digit would not be much shorter.
_LIST_BELOW = 24


class Kind(Enum):
    """Which artifacts. STORED: those a site stores, which are those that a global has a SiteLocation of it for.

    KNOWN: those, and what a site's policy wants, which the global knows as such by the filter.
    """

    STORED = "stored"
    KNOWN = "known"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which uris: of the namespaces of both lists that a uri lies under, the longest decides."""

    included: tuple[Namespace, ...] = ()
    excluded: tuple[Namespace, ...] = ()

    @property
    def regions(self) -> list[tuple[Namespace, list[Namespace]]]:
        """Each included namespace and what deeper ones take out of it (those that are included too are regions of their own)."""
        nodes = [*self.included, *self.excluded]
        return [
            (name, namespace_filter([node for node in nodes if node in name and node != name]))
            for name in self.included
        ]

    def matches(self, uri: str) -> bool:
        return any(
            uri.startswith(name.value) and not any(uri.startswith(hole.value) for hole in holes)
            for name, holes in self.regions
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """One set of artifacts at either end: of which site, filtered how. STORED without a filter: everything stored."""

    kind: Kind
    site_id: uuid.UUID
    filter: Filter = Filter()

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """As a peer is asked for it."""
        return [
            ("set", self.kind.value),
            ("site", str(self.site_id)),
            *(("namespace", name.value) for name in self.filter.included),
            *(("except", name.value) for name in self.filter.excluded),
        ]

    def takes(self, uri: str) -> bool:
        """Whether the filter, as far as this kind has one, takes the uri."""
        if self.kind is Kind.STORED and not self.filter.included:
            return True
        return self.filter.matches(uri)


@dataclass(frozen=True, slots=True)
class Digest:
    """Of the rows of one bucket prefix: how many, and the sum of their words modulo 2^64."""

    count: int
    total: int


Tree = Mapping[str, Digest]


def word_of(bucket: str, meta_checksum: str) -> int:
    """As `artifact_digest` in SQL, without its sign (sums are taken modulo 2^64)."""
    return int(bucket[:3] + hashlib.md5(meta_checksum.encode(), usedforsecurity=False).hexdigest()[:13], 16)


def tree_of(rows: Iterable[tuple[str, str]], depth: int) -> Tree:
    """The definition of a tree: from (uri bucket, metaChecksum) of each row."""
    counts: dict[str, tuple[int, int]] = {}
    for bucket, meta_checksum in rows:
        count, total = counts.get(bucket[:depth], (0, 0))
        counts[bucket[:depth]] = count + 1, (total + word_of(bucket, meta_checksum)) % _MODULUS
    return {prefix: Digest(*values) for prefix, values in counts.items()}


def folded(tree: Tree, depth: int, prefixes: Sequence[str] = ()) -> dict[str, Digest]:
    """The same rows by fewer digits; only what is under the prefixes, if there are any."""
    under = tuple(prefixes) or ("",)
    sums: dict[str, tuple[int, int]] = {}
    for prefix, digest in tree.items():
        if prefix.startswith(under):
            count, total = sums.get(prefix[:depth], (0, 0))
            sums[prefix[:depth]] = count + digest.count, (total + digest.total) % _MODULUS
    return {prefix: Digest(*values) for prefix, values in sums.items()}


def whole_of(tree: Tree) -> Tree:
    """The tree of depth 0: one digest of everything."""
    return folded(tree, 0)


def total_of(tree: Tree) -> int:
    """How many rows."""
    return sum(digest.count for digest in tree.values())


def tree_of_lines(lines: bytes) -> Tree:
    """The tree of `tree_lines`."""
    fields = (line.split("\t") for line in lines.decode().splitlines())
    return {prefix: Digest(int(count), int(total, 16)) for prefix, count, total in fields}


def tree_lines(tree: Tree) -> bytes:
    """The tree as text: one line for each bucket prefix, in order; the same text wherever the rows are the same."""
    lines = (f"{prefix}\t{digest.count}\t{digest.total % _MODULUS:016x}\n" for prefix, digest in sorted(tree.items()))
    return "".join(lines).encode()


def digest_of(lines: bytes) -> str:
    """SHA-256 of an answer's lines: the proof in its end mark and, of a tree, its entity tag."""
    return hashlib.sha256(lines).hexdigest()


def differing(ours: Tree, theirs: Tree) -> list[str]:
    """The bucket prefixes whose rows are not the same."""
    return sorted(prefix for prefix in ours.keys() | theirs.keys() if ours.get(prefix) != theirs.get(prefix))


def first_depth(count: int) -> int:
    """How many digits of the bucket the first trees have, by about how many rows there are: one scan shall tell much."""
    return 1 if count < 2_000 else 2 if count < 500_000 else 3


def fine_depth(depth: int) -> int:
    """By how many digits a scan counts that is asked for `depth`: the next level costs no second one, while it is small.

    To count by four digits, in more places than a processor's cache holds, takes half as long again.
    """
    return max(depth, min(depth + 1, 3))


def worth_descending(prefix: str, ours: Tree, theirs: Tree) -> bool:
    """Whether the digests of its parts are asked for first; else the rows are listed.

    A bucket prefix that one side has not at all is listed: all its rows differ.
    """
    here, there = ours.get(prefix), theirs.get(prefix)
    if len(prefix) >= BUCKET_DIGITS or here is None or there is None:
        return False
    return max(here.count, there.count) > _LIST_BELOW


def listing_groups(prefixes: Sequence[str], ours: Tree, theirs: Tree, *, rows: int, most: int) -> list[list[str]]:
    """The bucket prefixes in groups that are listed together: about `rows` rows, at most `most` prefixes each.

    One with many more rows is divided: a page of a listing sorts what is asked for.
    """
    sized: list[tuple[str, float]] = []
    empty = Digest(0, 0)
    for prefix in prefixes:
        size, parts = float(max(ours.get(prefix, empty).count, theirs.get(prefix, empty).count)), [prefix]
        while size > rows and len(parts[0]) < BUCKET_DIGITS:
            parts, size = [part + digit for part in parts for digit in "0123456789abcdef"], size / 16
        sized += [(part, size) for part in parts]
    groups: list[list[str]] = []
    room = 0.0
    for prefix, size in sized:
        if not groups or room < size or len(groups[-1]) >= most:
            groups.append([])
            room = rows
        groups[-1].append(prefix)
        room -= size
    return groups


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """One row of a listing, in its order."""

    bucket: str
    artifact_id: uuid.UUID
    meta_checksum: str


def different_rows(ours: Sequence[Listed], theirs: Sequence[Listed]) -> list[uuid.UUID]:
    """The ids that are not in both with the same checksum."""
    return sorted({row.artifact_id for row in set(ours) ^ set(theirs)})
