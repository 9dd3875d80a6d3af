"""Trees that a peer is about to ask for: the scan that told it of a difference need not be repeated to tell where."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from harvest.reconcile import queries
from harvest.reconcile.queries import ScopeTree
from harvest.reconcile.scope import Scope, digest_of, tree_lines, whole_of

_KEPT = 4
# About 10 MB; what has more is scanned again.
_MOST_PREFIXES = 65_536


class KeptTrees:
    """The last few, by scope and depth and the digest of everything in them: whoever names that has been told of this very scan.

    Another process of this service has not kept them and scans again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trees: OrderedDict[tuple[Scope, int, str], ScopeTree] = OrderedDict()

    def read(self, scope: Scope, *, depth: int, then: int, prefixes: Sequence[str], whole: str | None) -> ScopeTree:
        """Digests by the first `depth` digits; of everything (depth 0), those by `then` digits are kept."""
        if whole is not None and not prefixes:
            with self._lock:
                kept = self._trees.pop((scope, depth, whole), None)
            if kept is not None:
                return kept
        if prefixes or depth > 0 or then == depth:
            return queries.read_tree(scope, depth=depth, prefixes=prefixes)
        found = queries.read_tree(scope, depth=then)
        all_of_it = ScopeTree(found.head, whole_of(found.tree))
        if len(found.tree) <= _MOST_PREFIXES:
            with self._lock:
                self._trees[scope, then, digest_of(tree_lines(all_of_it.tree))] = found
                while len(self._trees) > _KEPT:
                    self._trees.popitem(last=False)
        return all_of_it


kept_trees = KeptTrees()
