"""One comparison with one remote: trees level by level, listings of what differs, and each difference settled.

The network is here, the rows are in `operations.py`; no transaction spans a request. Trees and listings only find candidates, and
may be of different moments: what is done about one is decided from what both ends say of it afterwards, under the lease.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice

from django.conf import settings
from django.db import connection

from datamodel.errors import CursorGoneError, NotReadyError, RaceLostError
from datamodel.logs import unit_of_work
from datamodel.models import RemoteInventory
from datamodel.positions import read_identity
from harvest import exchange, operations as harvest_operations, queries as harvest_queries, readers
from harvest.client import Remote, fetch_news
from harvest.operations import Lease
from harvest.reconcile import operations, queries
from harvest.reconcile.models import ReconcileRun
from harvest.reconcile.operations import Finding
from harvest.reconcile.peer import Peer
from harvest.reconcile.queries import RemoteMemory
from harvest.reconcile.rules import Mode
from harvest.reconcile.scope import (
    ROWS_OF_A_SCAN,
    Digest,
    Listed,
    Scope,
    Tree,
    different_rows,
    differing,
    fine_depth,
    first_depth,
    folded,
    listing_groups,
    next_depth,
    parts_of,
    section_digits,
    total_of,
    whole_of,
    worth_descending,
)
from harvest.streams import ARTIFACTS, DELETED_ARTIFACTS, DELETED_LOCATIONS, Stream

logger = logging.getLogger(__name__)

# Ids that are looked up and settled together; the remote takes up to a thousand.
_BATCH = 500
_LISTED_ROWS = 20_000
_PAGE_ROWS = 50_000
_PREFIXES = 400
_PATIENCE_SECONDS = 60.0
_TURN_SECONDS = 5.0
_PAUSE_SECONDS = 0.1


def reconcile(name: str, *, mode: Mode, on_change: Callable[[], None] = lambda: None) -> ReconcileRun:
    """Compare with one remote and settle what differs as far as the mode allows; `on_change` is called after repairs.

    Unless it only reports, it harvests the remote first: what that brings is no difference. Raises what `client.py`,
    `exchange.harvest` and `operations.settle` raise, after recording it in the report. A repeat finds what is left.
    """
    remote = RemoteInventory.objects.filter(name=name, enabled=True, role=harvest_queries.harvested_role()).first()
    if remote is None:
        raise NotReadyError(f"there is no enabled remote {name!r} that this inventory harvests")
    run = operations.begin_run(remote=remote, mode=mode)
    interrupted = "interrupted: the process was stopped, or failed in an unforeseen way"
    with (
        exchange.recording_failure(lambda error: operations.finish_run(run=run, error=error), unforeseen=interrupted),
        unit_of_work(logger, "reconcile", remote=name, mode=mode.value) as work,
    ):
        if mode is not Mode.REPORT:
            _harvest(remote)
            remote.refresh_from_db()
        _Comparison(remote, run, mode, on_change).run()
        work.note(here=run.rows_here, there=run.rows_there, bytes=run.traffic_bytes, requests=run.requests)
        work.note(**{f"found_{label}": count for label, count in sorted(run.differences.items())})
    return run


def _harvest(remote: RemoteInventory) -> None:
    """Until every stream has reached an end once: news that arrive all the time are not waited out."""
    while exchange.harvest(remote.name, turn_seconds=_TURN_SECONDS).is_interrupted:
        if harvest_queries.progress(remote.pk).is_complete:
            return


@dataclass(frozen=True, slots=True)
class _Scan:
    """Our first one, and by the digest of everything theirs."""

    depth: int
    tree: Tree
    whole: Tree


class _Comparison:
    """One remote, one mode; fills one report."""

    def __init__(self, remote: RemoteInventory, run: ReconcileRun, mode: Mode, on_change: Callable[[], None]) -> None:
        self._remote = remote
        self._run = run
        self._mode = mode
        self._on_change = on_change
        self._scope: Scope = queries.scope_with(remote)
        self._peer = Peer(Remote.of(remote), self._scope)
        self._told = RemoteMemory()
        self._scan: _Scan | None = None

    def run(self) -> None:
        try:
            self._told = self._ask_memory()
            self._settle_excluded()
            found = self._different_ids()
            while batch := list(islice(found, _BATCH)):
                self._record(self._settle(batch))
        finally:
            self._run.requests, self._run.traffic_bytes = self._peer.requests, self._peer.traffic

    def _ask_memory(self) -> RemoteMemory:
        """First how far the remote had read us, then what it may have forgotten; a remote that we have lost touch with tells nothing."""
        if settings.INVENTORY_ROLE == "global" or self._remote.inventory_id is None:
            return RemoteMemory()
        passed = readers.passed_by(self._remote.inventory_id, read_identity().epoch)
        progress = harvest_queries.progress(self._remote.pk)
        connection.close()
        try:
            news = fetch_news(Remote.of(self._remote), epoch=progress.epoch, after=progress.after)
        except CursorGoneError:
            return RemoteMemory()
        return RemoteMemory(news.expired_until, passed)

    def _settle_excluded(self) -> None:
        while True:
            found = operations.settle_excluded(remote=self._remote, scope=self._scope, mode=self._mode)
            self._record(found)
            if len(found) < operations.DROPPED_AT_ONCE or not found[0].is_applied:
                return

    def _settle(self, ids: Sequence[uuid.UUID]) -> list[Finding]:
        with ExitStack() as stack:
            lease = None if self._mode is Mode.REPORT else stack.enter_context(_leased(self._remote.name))
            connection.close()
            pages = self._peer.rows(_streams(), ids)
            for page in pages:
                stack.enter_context(page)
            return operations.settle(
                remote=self._remote,
                scope=self._scope,
                ids=ids,
                pages=pages,
                mode=self._mode,
                lease=lease,
                told=self._told,
            )

    def _record(self, findings: Sequence[Finding]) -> None:
        for finding in operations.record_findings(run=self._run, findings=findings):
            _log(self._remote.name, finding)
        if any(finding.is_applied for finding in findings):
            self._on_change()

    def _different_ids(self) -> Iterator[uuid.UUID]:
        ours, theirs = self._digests()
        for group in listing_groups(
            sorted(ours.keys() | theirs.keys()), ours, theirs, rows=_LISTED_ROWS, most=_PREFIXES
        ):
            yield from self._listed(group)

    def _digests(self) -> tuple[dict[str, Digest], dict[str, Digest]]:
        """The prefixes to list, as both ends have them: those that differ and are not worth dividing further."""
        ours, theirs = self._first_trees(queries.estimated_rows())
        self._run.rows_here, self._run.rows_there = total_of(ours), total_of(theirs)
        here: dict[str, Digest] = {}
        there: dict[str, Digest] = {}
        while pending := differing(ours, theirs):
            below = [prefix for prefix in pending if worth_descending(prefix, ours, theirs)]
            listed = set(pending).difference(below)
            here |= {prefix: ours[prefix] for prefix in listed if prefix in ours}
            there |= {prefix: theirs[prefix] for prefix in listed if prefix in theirs}
            if not below:
                break
            groups = listing_groups(below, ours, theirs, rows=ROWS_OF_A_SCAN, most=_PREFIXES)
            longest = max(len(prefix) for group in groups for prefix in group)
            ours, theirs = self._trees_of(groups, max(next_depth(below, ours, theirs), longest))
        return here, there

    def _first_trees(self, count: int) -> tuple[dict[str, Digest], dict[str, Digest]]:
        """Of everything. Both ends scan at the same time for one digest of all; only if that differs, theirs is asked for.

        What is too much for one scan is taken in sections.
        """
        depth = first_depth(count)
        if digits := section_digits(count):
            return self._trees_of(([section] for section in parts_of(digits, ())), max(depth, digits + 1))
        with ThreadPoolExecutor(max_workers=1) as pool:
            asked = pool.submit(self._peer.whole, then=depth)
            found = queries.read_tree(self._scope, depth=fine_depth(depth)).tree
            connection.close()
        ours = folded(found, depth)
        if (whole := asked.result()) == whole_of(ours):
            return ours, ours
        self._scan = _Scan(fine_depth(depth), found, whole)
        return ours, dict(self._peer.tree(depth=depth, ours=ours, whole=whole))

    def _trees_of(self, groups: Iterable[Sequence[str]], depth: int) -> tuple[dict[str, Digest], dict[str, Digest]]:
        """Group after group."""
        ours: dict[str, Digest] = {}
        theirs: dict[str, Digest] = {}
        for prefixes in groups:
            mine, yours = self._trees(depth, prefixes)
            ours |= mine
            theirs |= yours
        return ours, theirs

    def _trees(self, depth: int, prefixes: Sequence[str]) -> tuple[dict[str, Digest], dict[str, Digest]]:
        """Of what is known to differ; as far as they tell that, of the same scans."""
        if self._scan is not None and depth <= self._scan.depth:
            theirs_then = self._peer.tree(depth=depth, prefixes=prefixes, ours={}, whole=self._scan.whole)
            return folded(self._scan.tree, depth, prefixes), dict(theirs_then)
        with ThreadPoolExecutor(max_workers=1) as pool:
            theirs = pool.submit(self._peer.tree, depth=depth, prefixes=prefixes, ours={})
            ours = dict(queries.read_tree(self._scope, depth=depth, prefixes=prefixes).tree)
            connection.close()
        return ours, dict(theirs.result())

    def _listed(self, prefixes: Sequence[str]) -> Iterator[uuid.UUID]:
        """Both listings side by side, as far as both pages reach."""
        after: uuid.UUID | None = None
        while True:
            theirs = self._peer.listing(prefixes=prefixes, after=after, limit=_PAGE_ROWS)
            ours = queries.read_listing(self._scope, prefixes=prefixes, after=after, limit=_PAGE_ROWS)
            ends = [page.rows[-1].artifact_id for page in (ours, theirs) if page.more]
            after = min(ends) if ends else None
            yield from different_rows(_until(ours.rows, after), _until(theirs.rows, after))
            if after is None:
                return


def _until(rows: Sequence[Listed], last: uuid.UUID | None) -> Sequence[Listed]:
    return rows if last is None else [row for row in rows if row.artifact_id <= last]


def _streams() -> list[Stream]:
    """Those that a remote of the role that we harvest has; in the order in which it sends them."""
    if settings.INVENTORY_ROLE == "global":
        return [DELETED_LOCATIONS, DELETED_ARTIFACTS, ARTIFACTS]
    return [DELETED_ARTIFACTS, ARTIFACTS]


@contextmanager
def _leased(name: str) -> Iterator[Lease]:
    """The lease of the remote, for which a harvest in progress is waited for. Raises `RaceLostError`."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (lease := harvest_operations.claim_remote(name)) is None:
        if time.monotonic() > deadline:
            raise RaceLostError(f"{name} is being harvested for more than {_PATIENCE_SECONDS:.0f} s; try again")
        time.sleep(_PAUSE_SECONDS)
    try:
        yield lease
    finally:
        harvest_operations.release_remote(lease)


def _log(remote: str, finding: Finding) -> None:
    facts = {
        "remote": remote,
        "artifact": finding.artifact_id,
        "uri": finding.uri,
        "label": finding.verdict.label.value,
        "action": finding.verdict.action.name.lower(),
        "applied": finding.is_applied,
    }
    logger.info("reconcile difference", extra={"facts": facts})
