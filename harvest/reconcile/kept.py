"""Scans that a peer is about to ask about: what told it of a difference need not be done again to tell where."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from harvest.feed import Head
from harvest.reconcile import queries
from harvest.reconcile.queries import ScopeTree
from harvest.reconcile.scope import Scope, digest_of, fine_depth, folded, tree_lines, tree_of_lines, whole_of

_KEPT = 4
# A hundred kilobytes as text; what has more is scanned again.
_MOST_PREFIXES = 4096


@dataclass(frozen=True, slots=True)
class _Scan:
    head: Head
    depth: int
    lines: bytes


class KeptTrees:
    """The last few scans, by scope and the digest of everything in them: whoever names that has been told of this very scan.

    Another process of this service has not kept them and scans again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scans: OrderedDict[tuple[Scope, str], _Scan] = OrderedDict()

    def read(self, scope: Scope, *, depth: int, then: int, prefixes: Sequence[str], whole: str | None) -> ScopeTree:
        """Digests by the first `depth` digits; of everything (depth 0), those by `then` digits, and the next, are kept."""
        with self._lock:
            kept = self._scans.get((scope, whole)) if whole is not None else None
        if kept is not None and depth <= kept.depth:
            return ScopeTree(kept.head, folded(tree_of_lines(kept.lines), depth, prefixes))
        if prefixes or depth > 0 or then == depth:
            return queries.read_tree(scope, depth=depth, prefixes=prefixes)
        fine = fine_depth(then)
        found = queries.read_tree(scope, depth=fine)
        all_of_it = ScopeTree(found.head, whole_of(found.tree))
        if len(found.tree) <= _MOST_PREFIXES:
            name = scope, digest_of(tree_lines(all_of_it.tree))
            with self._lock:
                self._scans[name] = _Scan(found.head, fine, tree_lines(found.tree))
                self._scans.move_to_end(name)
                while len(self._scans) > _KEPT:
                    self._scans.popitem(last=False)
        return all_of_it


kept_trees = KeptTrees()
