"""`manage.py sync_once`: file sync without a broker; claims and carries until nothing is due."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connection
from rich.console import Console
from rich.table import Table

from site_service.file_sync import attempts, queries, scan
from site_service.file_sync.operations import BatchResult, claim_batches, sync_batch
from site_service.file_sync.queries import Summary
from site_service.storage.contract import ArtifactStore
from site_service.storage.registry import get_store


class Command(BaseCommand):
    help = "Pull what is missing and due, in this process; ends when nothing is due any more."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--threads",
            type=int,
            default=settings.INVENTORY_SYNC_THREADS,
            help="at most INVENTORY_SYNC_THREADS are busy",
        )
        parser.add_argument("--now", action="store_true", help="do not wait for the next try of what failed before")

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.monotonic()
        scan.note_missing()
        if options["now"]:
            attempts.try_now()
        store = get_store()
        connection.close()
        with ThreadPoolExecutor(options["threads"], thread_name_prefix="sync") as pool:
            stop = threading.Event()
            results = list(pool.map(lambda _: _carry_all(store, stop), range(options["threads"])))
        self._report(_sum(results), queries.summary(), time.monotonic() - started)

    def _report(self, done: BatchResult, left: Summary, seconds: float) -> None:
        table = Table(title=f"File sync of {settings.INVENTORY_NAME}")
        table.add_column("what")
        table.add_column("count", justify="right")
        rate = done.stored_bytes / seconds / 1e6 if seconds else 0.0
        rows = [
            ("files stored", f"{done.stored:,}"),
            ("bytes stored", f"{done.stored_bytes:,}"),
            ("seconds", f"{seconds:.1f} ({done.stored / seconds:,.0f} files/s, {rate:,.1f} MB/s)"),
            ("failed attempts", f"{done.failed:,}"),
            ("still missing", f"{left.missing:,}"),
            *((f"  {reason}", f"{count:,}") for reason, count in left.failing.items()),
        ]
        for name, value in rows:
            table.add_row(name, value)
        console = Console()
        with console.capture() as printed:
            console.print(table)
        self.stdout.write(printed.get())
        if done.is_blocked:
            self.stdout.write("Stopped early: no global answers, or the store has no room. The log says which.")


def _carry_all(store: ArtifactStore, stop: threading.Event) -> BatchResult:
    """One worker: batch after batch. `stop` ends all workers once one of them is blocked."""
    done = BatchResult()
    try:
        while not (stop.is_set() or done.is_blocked) and (leases := claim_batches(batches=1, store=store)):
            done = _sum([done, sync_batch(lease=leases[0], store=store) or BatchResult()])
    finally:
        if done.is_blocked:
            stop.set()
        connection.close()
    return done


def _sum(results: Sequence[BatchResult]) -> BatchResult:
    total = BatchResult()
    for result in results:
        total = replace(
            total,
            stored=total.stored + result.stored,
            stored_bytes=total.stored_bytes + result.stored_bytes,
            failed=total.failed + result.failed,
            is_blocked=total.is_blocked or result.is_blocked,
        )
    return total
