"""One remote, harvested until it has nothing new: fetch a page, apply it, go on.

The network is here, the rows are in `operations.py`; no transaction spans a request. Order within a pass: sites, absence of
copies, copies; then artifacts, each page of which waits until every deletion that is older has been applied. So the two halves
of a replacement at the source (old id deleted, new id born, in one transaction) are never mistaken for a collision.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from django.conf import settings
from django.db import DatabaseError, connection

from datamodel import brake
from datamodel.errors import (
    CursorGoneError,
    HistoryGoneError,
    InventoryError,
    RaceLostError,
    RemoteProtocolError,
)
from datamodel.logs import unit_of_work
from datamodel.models import HarvestState
from datamodel.positions import Cursor
from datamodel.uris import Namespace
from harvest import client, operations, queries
from harvest.ahead import PageAhead
from harvest.client import Remote, RemoteNews
from harvest.operations import Lease, Passed
from harvest.pages import Page, PageQuery
from harvest.streams import ARTIFACTS, DELETED_ARTIFACTS, Stream

logger = logging.getLogger(__name__)

# After this time a harvest gives others their turn; the rest is a new task's.
TURN_SECONDS = 60.0
# What every server of this protocol grants.
_MOST_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Harvested:
    """What one turn brought. `is_busy`: another process has the lease; `is_complete`: nothing was left at the end;
    `is_interrupted`: there is more, for another turn; `must_reconcile`: deletions were missed.
    """

    rows: int = 0
    changed: int = 0
    rejected: int = 0
    is_complete: bool = False
    is_busy: bool = False
    is_interrupted: bool = False
    must_reconcile: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """What a remote has said to whoever waits for its news, and the cursors with which it was asked."""

    progress: queries.Progress
    news: RemoteNews

    @property
    def is_clear(self) -> bool:
        """Whether it says which streams have rows after cursors that all had reached an end."""
        return self.progress.is_complete and self.news.streams is not None and self.news.epoch == self.progress.epoch


def harvest_heard(name: str, heard: Heard, *, on_change: Callable[[], None] = lambda: None) -> Harvested:
    """Fetch and apply what was heard, at most one page of each stream and without asking again: who listens asks next anyway.

    `is_complete`: we have it. `is_interrupted`: there is more to do than that, for `harvest`, and what could be done has been.
    `is_busy`: another process is at it, or was faster. Raises and records as `harvest` does.
    """
    if not heard.is_clear:
        return Harvested(is_interrupted=True)
    found = _under_lease(name, lambda lease: _Turn(lease, 0.0, on_change).run_heard(heard), is_listeners=True)
    return found or Harvested(is_busy=True)


def harvest(name: str, *, turn_seconds: float | None = None, on_change: Callable[[], None] = lambda: None) -> Harvested:
    """Harvest one remote under its lease; `on_change` is called after each batch that changed rows.

    Raises what `client.py` and `operations.apply_batch` raise, after recording it as the remote's last error. A repeat goes
    on where the last committed batch ended.
    """
    seconds = TURN_SECONDS if turn_seconds is None else turn_seconds
    found = _under_lease(name, lambda lease: _Turn(lease, seconds, on_change).run(), is_listeners=False)
    return found or Harvested(is_interrupted=True)


def _under_lease(name: str, take_turn: Callable[[Lease], Harvested], *, is_listeners: bool) -> Harvested | None:
    """One turn, if nobody else is at it. None, and no failure: someone else moved the cursor (a changed policy) or took the lease,
    and what is left is another turn's.
    """
    lease = operations.claim_remote(name)
    if lease is None:
        return Harvested(is_busy=True)

    def release(error: str) -> None:
        operations.release_remote(lease, error=error, is_listeners=is_listeners)

    with recording_failure(release), suppress(RaceLostError), unit_of_work(logger, "harvest", remote=name) as work:
        found = take_turn(lease)
        work.note(rows=found.rows, changed=found.changed, rejected=found.rejected, complete=found.is_complete)
        return found
    return None


@contextmanager
def recording_failure(finish: Callable[[str], object], *, unforeseen: str = "") -> Iterator[None]:
    """However the block ends, `finish` is told why it failed: "" if it did not, `unforeseen` if that has no words of ours.

    Who was stopped by the brake is recorded as stopped before. Errors pass through.
    """
    error = unforeseen
    try:
        with brake.engaging():
            yield
        error = ""
    except InventoryError as failure:
        error = f"{failure.code}: {failure.detail}"
        raise
    except DatabaseError as failure:
        error = f"database: {failure}"
        raise
    finally:
        finish(error)


class _Turn:
    """One lease, one remote, one stretch of time."""

    def __init__(self, lease: Lease, seconds: float, on_change: Callable[[], None]) -> None:
        self._lease = lease
        self._remote = Remote.of(lease.remote)
        self._deadline = time.monotonic() + seconds
        self._on_change = on_change
        self._found = Harvested()
        # Streams that the remote has said to have nothing are not asked for; their cursors move with the next batch.
        self._quiet: frozenset[str] = frozenset()
        self._passed: list[Passed] = []
        # Cursors as they were read under the lease, until one is moved.
        self._states: Mapping[tuple[str, str], HarvestState] = {}
        # After a page of news more of them are expected: proven beforehand. Those of known rows need no proof (`known.py`).
        self._is_news = False
        # What a turn of the listener cannot do at once it leaves to another.
        self._is_heard = False

    def run(self) -> Harvested:
        """Passes until the remote has no news; news that arrive meanwhile are in the next pass."""
        before = None
        while True:
            operations.start_states(self._lease)
            progress = queries.progress(self._lease.remote_id)
            is_settled = self._ask(progress)
            if is_settled:
                return replace(self._found, is_complete=True)
            if progress.cursors == before:
                raise RemoteProtocolError(f"{self._lease.name} says that it has news, but serves none")
            before = progress.cursors
            if self._is_over() or not self._pass():
                return replace(self._found, is_interrupted=True)

    def run_heard(self, heard: Heard) -> Harvested:
        """One pass over what was heard, if it was said by whom we know and of cursors that still are where they were."""
        progress = queries.progress(self._lease.remote_id)
        if progress.cursors != heard.progress.cursors:
            return Harvested(is_busy=True)
        if heard.news.inventory_id != self._lease.remote.inventory_id:
            return Harvested(is_interrupted=True)
        self._is_heard = True
        self._believe(heard.news, progress)
        try:
            is_done = self._pass()
        except (CursorGoneError, HistoryGoneError):
            is_done = False
        return replace(self._found, is_complete=is_done, is_interrupted=not is_done)

    def _ask(self, progress: queries.Progress) -> bool:
        """Whether the remote has nothing for us. Who it is comes with the answer."""
        try:
            news = client.fetch_news(self._remote, epoch=progress.epoch, after=progress.after)
        except CursorGoneError:
            for stream in queries.harvested_streams():
                operations.restart_stream(self._lease, stream)
            self._quiet, self._passed, self._states = frozenset(), [], {}
            return False
        is_settled = progress.is_complete and not news.has_rows
        operations.record_contact(self._lease, inventory_id=news.inventory_id, is_settled=is_settled)
        self._believe(news, progress)
        return is_settled

    def _believe(self, news: RemoteNews, progress: queries.Progress) -> None:
        """Which streams are not asked for: those that have nothing new, and whose cursor can be moved to where that holds."""
        self._quiet, self._passed, self._states = frozenset(), [], progress.states
        if not news.has_rows or news.streams is None or news.epoch != progress.epoch:
            return
        cursor = Cursor.below(news.epoch, news.settled + 1)
        self._quiet = frozenset(
            name
            for (name, selector), state in progress.states.items()
            if not selector and name not in news.streams and state.is_complete and state.cur_txid <= cursor.txid
        )
        self._passed = [Passed(tuple(self._quiet), cursor)] if self._quiet else []

    def _pass(self) -> bool:
        """Every stream to its end; whether there was time for that."""
        asked = [stream for stream in queries.harvested_streams() if stream.name not in self._quiet]
        if ARTIFACTS in asked:
            asked.remove(ARTIFACTS)
            before = [stream for stream in asked if stream is not DELETED_ARTIFACTS]
            is_done = all(self._drain(stream) for stream in before) and self._artifacts("")
        else:
            is_done = all(self._drain(stream) for stream in asked)
        if self._passed:
            operations.pass_over(self._lease, self._passed)
            self._passed, self._states = [], {}
        backfills = [] if self._is_heard else queries.backfills(self._lease.remote_id)
        return is_done and all(self._artifacts(backfill.selector) for backfill in backfills)

    def _drain(self, stream: Stream) -> bool:
        while True:
            with self._fetch(stream, "") as page:
                self._apply(page)
                if not page.more:
                    return True
            if self._is_over():
                return False

    def _artifacts(self, selector: str) -> bool:
        page = self._fetch(ARTIFACTS, selector)
        while True:
            with page, self._ahead_of(page, selector) as ahead:
                # After the page was fetched, however long ago: the deletions that are older than it.
                if self._has_deletions_of(page):
                    self._pass_deletions(page)
                elif not self._drain(DELETED_ARTIFACTS):
                    return False
                self._apply(page, selector)
                if not page.more:
                    break
                if self._is_over():
                    return False
                following = ahead.take(self._renew) if ahead is not None else None
            page = following or self._fetch(ARTIFACTS, selector)
        if selector:
            operations.join_backfill(self._lease, selector)
        return True

    def _has_deletions_of(self, page: Page) -> bool:
        """Whether we have every deletion that there was when the page was made, as the remote says with it."""
        state = self._state(DELETED_ARTIFACTS, "")
        is_known = state.is_complete and state.epoch == page.epoch
        return is_known and page.deletions is not None and state.cur_txid >= page.deletions

    def _pass_deletions(self, page: Page) -> None:
        """What is not asked for moves all the same: there is no deletion between our cursor and the end of the page."""
        if DELETED_ARTIFACTS.name not in self._quiet:
            end = Cursor.below(page.epoch, page.next_cursor.txid + 1)
            self._passed.append(Passed((DELETED_ARTIFACTS.name,), end))

    @contextmanager
    def _ahead_of(self, page: Page, selector: str) -> Iterator[PageAhead | None]:
        """What follows the page, on its way while this block runs."""
        if not page.more or self._is_over():
            yield None
            return
        query = replace(self._query(ARTIFACTS, selector), cursor=page.next_cursor)
        ahead = PageAhead(self._remote, query, proves=self._is_news)
        try:
            yield ahead
        finally:
            ahead.leave()

    def _renew(self) -> None:
        operations.renew_lease(self._lease)

    def _fetch(self, stream: Stream, selector: str) -> Page:
        """The page after our cursor; a cursor that the remote no longer knows goes back to the start, once."""
        if self._is_heard:
            return self._fetch_once(stream, selector)
        try:
            return self._fetch_once(stream, selector)
        except HistoryGoneError as gone:
            operations.skip_history(self._lease, stream, cursor=str(gone.fields["cursor"]), reason=gone.detail)
            self._states = {}
            self._found = replace(self._found, must_reconcile=True)
            return self._fetch_once(stream, selector)
        except CursorGoneError as gone:
            logger.warning(
                "END event=harvest_restart",
                extra={"facts": {"remote": self._lease.name, "stream": stream.name, "reason": gone.detail}},
            )
            operations.restart_stream(self._lease, stream, selector)
            self._states = {}
            return self._fetch_once(stream, selector)

    def _fetch_once(self, stream: Stream, selector: str) -> Page:
        query = self._query(stream, selector)
        # Nobody needs our connection less than a slow remote.
        connection.close()
        return client.fetch_page(self._remote, query, heartbeat=self._renew)

    def _query(self, stream: Stream, selector: str) -> PageQuery:
        state = self._state(stream, selector)
        namespaces: tuple[Namespace, ...] = ()
        holder = None
        if settings.INVENTORY_ROLE == "global":
            namespaces = queries.namespaces_of(settings.INVENTORY_NAMESPACES) if stream.has_uri else ()
        elif stream is ARTIFACTS:
            namespaces = queries.namespaces_of([selector] if selector else state.covers)
            # A past that is read anew is read whole.
            holder = None if selector else queries.own_site_id()
        limit = min(settings.INVENTORY_HARVEST_BATCH, _MOST_ROWS)
        return PageQuery(stream, queries.cursor_of(state), limit, namespaces, holder, sender=holder)

    def _state(self, stream: Stream, selector: str) -> HarvestState:
        known = self._states.get((stream.name, selector))
        if known is not None:
            return known
        return HarvestState.objects.get(remote_id=self._lease.remote_id, name=stream.name, selector=selector)

    def _apply(self, page: Page, selector: str = "") -> None:
        applied = operations.apply_batch(lease=self._lease, page=page, selector=selector, passed=self._passed)
        self._passed, self._states = [], {}
        self._is_news = applied.changed > 0
        self._found = replace(
            self._found,
            rows=self._found.rows + applied.rows,
            changed=self._found.changed + applied.changed,
            rejected=self._found.rejected + applied.rejected,
        )
        if applied.changed:
            self._on_change()

    def _is_over(self) -> bool:
        return time.monotonic() > self._deadline
