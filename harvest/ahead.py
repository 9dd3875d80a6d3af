"""The next page on its way while this one is applied: network and disks of two inventories work at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.db import DatabaseError, connection

from datamodel.errors import InventoryError
from harvest import client
from harvest.client import Remote
from harvest.pages import Page, PageQuery
from harvest.staging import prove

_HEARTBEAT_SECONDS = 10.0


class PageAhead:
    """A page that is being fetched, and proven if that is wanted, by a thread of its own. Whoever does not `take` it must `leave` it.

    What goes wrong is not told: the page is asked for again, and then it is.
    """

    def __init__(self, remote: Remote, query: PageQuery, *, proves: bool) -> None:
        self._remote = remote
        self._query = query
        self._proves = proves
        self._page: Page | None = None
        self._is_left = False
        self._lock = threading.Lock()
        self._done = threading.Event()
        threading.Thread(target=self._run, name="page-ahead", daemon=True).start()

    def take(self, heartbeat: Callable[[], None]) -> Page | None:
        """The page, or None; `heartbeat` is called every ten seconds while it is waited for."""
        while not self._done.wait(_HEARTBEAT_SECONDS):
            heartbeat()
        page, self._page = self._page, None
        return page

    def leave(self) -> None:
        """It is of no use any more, now or when it comes."""
        with self._lock:
            self._is_left = True
            if self._page is not None:
                self._page.rows.close()
                self._page = None

    def _run(self) -> None:
        try:
            page = client.fetch_page(self._remote, self._query)
            if self._proves:
                page = prove(page)
        except (InventoryError, DatabaseError):
            return
        else:
            with self._lock:
                self._page = page
            if self._is_left:
                self.leave()
        finally:
            # Who we are, and the time, may have been looked up.
            connection.close()
            self._done.set()
