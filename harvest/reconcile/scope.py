"""The sets of artifacts that both ends can name, and the digests of their parts. No Django, no clock, no I/O.

A part is what has the same first hexadecimal digits of its id, its prefix: the rows of a part follow each other in an index by id.
A tree maps a prefix to how many rows it has and the sum of their words; a row's word is the first 64 bits of the MD5 of its
`metaChecksum`, which covers the id. Sums do not depend on order, and prefixes without rows are not in the tree.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product

from datamodel.uris import Namespace, namespace_filter

ID_DIGITS = 32
# One tree has at most so many parts.
MOST_PARTS = 16**4
_MODULUS = 2**64
_DIGITS = "0123456789abcdef"
# A prefix with at most so many rows is listed: its digests by the next digit would not be much shorter.
_LIST_BELOW = 24
# A scan may not last for ever: so many rows take one or two minutes.
ROWS_OF_A_SCAN = 100_000_000
# What has more rows is divided by several digits at once, into so many parts together: each level is a scan of them.
_MANY_ROWS = 80_000
_PARTS_AT_ONCE = 4096


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
    """Of the rows of one prefix: how many, and the sum of their words modulo 2^64."""

    count: int
    total: int


Tree = Mapping[str, Digest]


def word_of(meta_checksum: str) -> int:
    """As `digest_word` in SQL, without its sign (sums are taken modulo 2^64)."""
    return int(hashlib.md5(meta_checksum.encode(), usedforsecurity=False).hexdigest()[:16], 16)


def tree_of(rows: Iterable[tuple[uuid.UUID, str]], depth: int) -> Tree:
    """The definition of a tree: from (id, metaChecksum) of each row."""
    counts: dict[str, tuple[int, int]] = {}
    for identity, meta_checksum in rows:
        prefix = identity.hex[:depth]
        count, total = counts.get(prefix, (0, 0))
        counts[prefix] = count + 1, (total + word_of(meta_checksum)) % _MODULUS
    return {prefix: Digest(*values) for prefix, values in counts.items()}


def id_range(prefix: str) -> tuple[uuid.UUID, uuid.UUID]:
    """The first and the last id that begin with it."""
    return uuid.UUID(prefix.ljust(ID_DIGITS, "0")), uuid.UUID(prefix.ljust(ID_DIGITS, "f"))


def count_parts(depth: int, prefixes: Sequence[str]) -> int:
    """Into how many parts a tree by so many digits divides what is under the prefixes (none: everything)."""
    return sum(16 ** max(depth - len(prefix), 0) for prefix in prefixes or ("",))


def parts_of(depth: int, prefixes: Sequence[str]) -> list[str]:
    """Those parts, each once, in order; a prefix with more digits than that is one by itself."""
    outermost: list[str] = []
    for prefix in sorted(prefixes or ("",)):
        if not outermost or not prefix.startswith(outermost[-1]):
            outermost.append(prefix)
    return [
        prefix + "".join(digits)
        for prefix in outermost
        for digits in product(_DIGITS, repeat=max(depth - len(prefix), 0))
    ]


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
    """The tree as text: one line for each prefix, in order; the same text wherever the rows are the same."""
    lines = (f"{prefix}\t{digest.count}\t{digest.total % _MODULUS:016x}\n" for prefix, digest in sorted(tree.items()))
    return "".join(lines).encode()


def digest_of(lines: bytes) -> str:
    """SHA-256 of an answer's lines: the proof in its end mark and, of a tree, its entity tag."""
    return hashlib.sha256(lines).hexdigest()


def differing(ours: Tree, theirs: Tree) -> list[str]:
    """The prefixes whose rows are not the same."""
    return sorted(prefix for prefix in ours.keys() | theirs.keys() if ours.get(prefix) != theirs.get(prefix))


def first_depth(count: int) -> int:
    """How many digits of the id the first trees have, by about how many rows there are: one scan shall tell much."""
    return 1 if count < 2_000 else 2 if count < 500_000 else 3


def section_digits(count: int) -> int:
    """How many digits of the id the sections have that the first scans take one by one; 0: one scan takes everything."""
    digits = 0
    while count > ROWS_OF_A_SCAN:
        digits, count = digits + 1, count // 16
    return digits


def fine_depth(depth: int) -> int:
    """By how many digits a scan counts that is asked for `depth`: the next level costs no second one, while it is small."""
    return max(depth, min(depth + 1, 3))


def next_depth(prefixes: Sequence[str], ours: Tree, theirs: Tree) -> int:
    """By how many digits prefixes of the same length are divided: one more, or as many as bring very many rows nearer to few."""
    empty = Digest(0, 0)
    most = max(max(ours.get(prefix, empty).count, theirs.get(prefix, empty).count) for prefix in prefixes)
    digits = 1
    while most > _MANY_ROWS and len(prefixes) * 16 ** (digits + 1) <= _PARTS_AT_ONCE:
        digits, most = digits + 1, most // 16
    return min(len(prefixes[0]) + digits, ID_DIGITS)


def worth_descending(prefix: str, ours: Tree, theirs: Tree) -> bool:
    """Whether the digests of its parts are asked for first; else the rows are listed.

    A prefix that one side has not at all is listed: all its rows differ.
    """
    here, there = ours.get(prefix), theirs.get(prefix)
    if len(prefix) >= ID_DIGITS or here is None or there is None:
        return False
    return max(here.count, there.count) > _LIST_BELOW


def listing_groups(prefixes: Sequence[str], ours: Tree, theirs: Tree, *, rows: int, most: int) -> list[list[str]]:
    """The prefixes in groups that are listed together: about `rows` rows, at most `most` prefixes each.

    One with many more rows is divided: a page of a listing may sort what is asked for.
    """
    sized: list[tuple[str, float]] = []
    empty = Digest(0, 0)
    for prefix in prefixes:
        size, parts = float(max(ours.get(prefix, empty).count, theirs.get(prefix, empty).count)), [prefix]
        while size > rows and len(parts[0]) < ID_DIGITS:
            parts, size = [part + digit for part in parts for digit in _DIGITS], size / 16
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

    artifact_id: uuid.UUID
    meta_checksum: str


def different_rows(ours: Sequence[Listed], theirs: Sequence[Listed]) -> list[uuid.UUID]:
    """The ids that are not in both with the same checksum."""
    return sorted({row.artifact_id for row in set(ours) ^ set(theirs)})
