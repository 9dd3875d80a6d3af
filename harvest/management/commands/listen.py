"""`manage.py listen`: wait for news of every remote, and harvest them at once; what takes longer a worker does."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, connection

from datamodel.audit.chain import Sealer
from datamodel.errors import InventoryError
from datamodel.notify import news
from harvest.listening import REFRESH_SECONDS, Listeners
from harvest.tasks import harvest_heard, request_harvest

logger = logging.getLogger(__name__)

# For batches that are being applied: their leases are given back.
_GRACE_SECONDS = 5.0


class Command(BaseCommand):
    help = (
        "Wait for news of every enabled remote by long-poll and harvest them, or send tasks; ends on SIGTERM or SIGINT."
    )
    # `manage.py check` is their place; here they would load every page of the site.
    requires_system_checks: list[str] = []

    def handle(self, *_: Any, **__: Any) -> None:
        stopped = threading.Event()

        def stop(*_: Any) -> None:
            stopped.set()
            news.is_closing = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        # The one service that always runs and mostly waits; Celery seals, too, but not every second.
        sealer = Sealer()
        sealer.start()
        listeners = Listeners(harvest_heard, request_harvest)
        while not stopped.is_set():
            # A peer that is paired is listened to at once, one that is revoked no longer.
            seen = news.access()[0]
            try:
                listeners.refresh()
            except (InventoryError, DatabaseError) as error:
                logger.warning("END event=listen", extra={"facts": {"result": "failed", "reason": str(error)}})
            finally:
                connection.close()
            news.wait_access(seen, REFRESH_SECONDS)
        # The threads are daemons: a request that still waits ends with the process.
        listeners.stop(seconds=_GRACE_SECONDS)
        sealer.stop()
