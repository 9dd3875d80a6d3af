"""Waiting for news: one long-poll per remote, each in a thread of its own, so that no remote delays another.

What was heard is harvested by that thread at once (a callable), at most a page of each stream; whatever takes more (the first
meeting, a long past, a lost cursor) is a task for a worker. Whoever waits asks the cursors what is news, so a lost message
costs a second, never a row.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import DatabaseError, connection

from datamodel.errors import CursorGoneError, InventoryError
from datamodel.models import RemoteInventory
from datamodel.notify import news
from harvest import client, queries
from harvest.client import Remote
from harvest.exchange import Harvested, Heard

logger = logging.getLogger(__name__)

WAIT_SECONDS = 25
REFRESH_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_LOOK_SECONDS = 0.02
# A turn costs as much for one row as for many: where many come, the next ones gather from the beginning of a turn to that of the next,
# and one row is not kept waiting.
_GATHER_SECONDS_PER_ROW = 0.02
_LONGEST_GATHER_SECONDS = 0.2
_FOR_A_WORKER = Harvested(is_interrupted=True)

# What was heard from the remote of this name is harvested; a task for it is sent.
Harvest = Callable[[str, Heard], Harvested]
Send = Callable[[str], bool]


class Pause:
    """A pause that doubles up to half a minute until it is reset; shortened by chance, so that peers do not meet."""

    def __init__(self) -> None:
        self._seconds = _FIRST_PAUSE_SECONDS

    def reset(self) -> None:
        self._seconds = _FIRST_PAUSE_SECONDS

    def next(self) -> float:
        seconds = self._seconds
        self._seconds = min(seconds * 2, _LONGEST_PAUSE_SECONDS)
        return seconds * random.uniform(0.75, 1.0)  # noqa: S311  # spreads load, guards nothing


class RemoteListener:
    """Asks one remote for news again and again, until stopped."""

    def __init__(self, remote: RemoteInventory, harvest: Harvest, send: Send) -> None:
        self._remote_id = remote.id
        self._remote = Remote.of(remote)
        self._harvest = harvest
        self._send = send
        # Held while a turn is taken.
        self._turn = threading.Lock()
        # At the last turn: who has news after the same again is not believed to have any.
        self._cursors: object = None
        self._stopped = threading.Event()
        self._errors = Pause()
        self._resends = Pause()
        self._thread = threading.Thread(target=self._run, name=f"listen-{remote.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """The thread ends with its current request, or with the turn that it has begun; it does nothing more."""
        self._stopped.set()

    def finish(self, seconds: float) -> None:
        """After `stop`: wait so long for the end of a turn that was begun."""
        if self._turn.acquire(timeout=max(seconds, 0)):
            self._turn.release()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen_once()
                self._errors.reset()
            except (InventoryError, DatabaseError) as error:
                pause = self._errors.next()
                facts = {"remote": self._remote.name, "result": "failed", "reason": str(error), "pause": f"{pause:.1f}"}
                logger.warning("END event=listen", extra={"facts": facts})
                self._stopped.wait(pause)
            finally:
                connection.close()

    def _listen_once(self) -> None:
        progress, sender = queries.progress(self._remote_id), queries.own_site_id()
        # A request that waits for half a minute needs no connection.
        connection.close()
        try:
            found = client.fetch_news(
                self._remote, epoch=progress.epoch, after=progress.after, wait=WAIT_SECONDS, sender=sender
            )
        except CursorGoneError:
            found = None
        if found is not None and not found.has_rows:
            return
        seen, heard = news.count(), time.monotonic()
        with self._turn:
            if self._stopped.is_set():
                return
            turn = _FOR_A_WORKER
            if found is not None and progress.cursors != self._cursors:
                self._cursors = progress.cursors
                turn = self._harvest(self._remote.name, Heard(progress, found))
        if turn.is_interrupted:
            self._send(self._remote.name)
        if turn.is_complete:
            self._resends.reset()
            gathering = min(turn.rows * _GATHER_SECONDS_PER_ROW, _LONGEST_GATHER_SECONDS)
            self._stopped.wait(max(heard + gathering - time.monotonic(), 0))
        else:
            self._await_harvest(progress, seen)

    def _await_harvest(self, before: queries.Progress, seen: int) -> None:
        """Until another's harvest is past these news and over, so that they are not asked for at once again; at most a growing pause.

        After that the news are asked for anew, and if they are still news, the message is sent again: a harvest that was
        already past them when they came, or a message that was lost, is made good so.
        """
        deadline = time.monotonic() + self._resends.next()
        while (left := deadline - time.monotonic()) > 0 and not self._stopped.is_set():
            if queries.is_past(self._remote_id, before):
                self._resends.reset()
                return
            connection.close()
            news.wait(seen, left)
            # Many commits in a short time are one look.
            self._stopped.wait(_LOOK_SECONDS)
            seen = news.count()


@dataclass(frozen=True, slots=True)
class _Identity:
    """What makes a listener another one when it changes."""

    url: str
    token: bytes
    paired_at: datetime | None


class Listeners:
    """The listeners of all enabled remotes, kept in step with their table."""

    def __init__(self, harvest: Harvest, send: Send) -> None:
        self._harvest = harvest
        self._send = send
        self._running: dict[str, tuple[_Identity, RemoteListener]] = {}

    def refresh(self) -> None:
        """Start what is new or changed, stop what is gone, changed or disabled."""
        remotes = {remote.name: remote for remote in queries.harvested_remotes()}
        wanted = {
            name: _Identity(remote.url, bytes(remote.token), remote.paired_at) for name, remote in remotes.items()
        }
        for name, (identity, listener) in list(self._running.items()):
            if wanted.get(name) != identity or not listener.is_alive:
                listener.stop()
                del self._running[name]
        for name in wanted.keys() - self._running.keys():
            listener = RemoteListener(remotes[name], self._harvest, self._send)
            listener.start()
            self._running[name] = (wanted[name], listener)

    @property
    def names(self) -> set[str]:
        return set(self._running)

    def stop(self, *, seconds: float = 0.0) -> None:
        """Stop them all; turns that were begun get so long, for leases that are not given back last a minute."""
        deadline = time.monotonic() + seconds
        listeners = [listener for _, listener in self._running.values()]
        for listener in listeners:
            listener.stop()
        for listener in listeners:
            listener.finish(deadline - time.monotonic())
