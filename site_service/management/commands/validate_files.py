"""`manage.py validate_files`: compare inventory and storage, show what differs, and (in a second step) carry it out."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count, QuerySet, Sum
from rich.console import Console
from rich.table import Table

from datamodel.errors import DeletionBrakeError, InventoryError
from datamodel.memory import machine_bytes
from datamodel.queries import row_count
from site_service.file_validate import queries, runs
from site_service.file_validate.models import ValidationFinding, ValidationRun
from site_service.file_validate.operations import apply_finding, foresee
from site_service.file_validate.rules import TAKES_AWAY, Action, Label, Policy
from site_service.file_validate.surveyors import Surveyor, surveyor_of, surveyor_processes
from site_service.storage.registry import get_store

_AT_A_TIME = 30.0
# For fewer it is not worth while to start processes: a second or two of a processor each.
_MANY = 100_000
_MEMORY = 256 * 1024 * 1024
_MOST = 8
# Beat goes on with a run for a few seconds of each half minute.
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.5


class Command(BaseCommand):
    help = "Compare inventory and storage, bucket by bucket; report only, unless --apply."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--policy", choices=[policy.value for policy in Policy], default=Policy.INVENTORY_IS_ALWAYS_RIGHT
        )
        parser.add_argument("--bucket", default="", help="only storage buckets that begin so: up to three hex digits")
        parser.add_argument(
            "--grace", type=int, help="seconds an object may be without row (INVENTORY_VALIDATE_GRACE_SECONDS)"
        )
        parser.add_argument(
            "--processes",
            type=int,
            help="so many compare buckets (of many files as many as there are processors, at most 8)",
        )
        parser.add_argument("--apply", action="store_true", help="carry the findings out, each after a second look")
        parser.add_argument(
            "--label", action="append", choices=[label.value for label in Label], help="apply only these"
        )
        parser.add_argument(
            "--at-most",
            type=int,
            default=100,
            help="apply nothing if more than so many copies or objects would be taken away",
        )
        parser.add_argument("--show", type=int, default=20, help="how many findings are listed")
        parser.add_argument("--by", default="command", help="who decides this, for the record")

    def handle(self, *args: Any, **options: Any) -> None:
        policy = Policy(options["policy"])
        grace = timedelta(seconds=options["grace"]) if options["grace"] is not None else None
        try:
            run = runs.open_run(policy=policy, started_by=options["by"], bucket_prefix=options["bucket"])
            with _surveyor(options["processes"]) as surveyor:
                run = self._complete(run, surveyor, grace)
            found = queries.findings(policy=policy.value, bucket_prefix=options["bucket"])
            self._report(run, found, options["show"])
            if options["apply"]:
                labels = options["label"] or [label.value for label in Label]
                chosen = found.filter(label__in=labels).exclude(action=Action.NONE.value)
                self._apply(chosen, options["at_most"], options["by"], grace)
        except DeletionBrakeError as error:
            raise CommandError(error.detail) from error
        except BrokenExecutor as error:
            raise CommandError(
                "A process that compared buckets was killed, perhaps for want of memory. What was compared before is kept; "
                "try again, with fewer --processes."
            ) from error
        except InventoryError as error:
            raise CommandError(
                f"{error.detail} Nothing was concluded from what could not be read; try again."
            ) from error

    def _complete(self, run: ValidationRun, surveyor: Surveyor, grace: timedelta | None) -> ValidationRun:
        while True:
            progress = runs.advance(run_id=run.id, surveyor=surveyor, seconds=_AT_A_TIME, grace=grace)
            if progress is None:
                run = self._await_other(run)
                if run.state == ValidationRun.State.COMPLETE:
                    return run
            elif progress.is_complete:
                runs.prune()
                return progress.run
            else:
                self.stderr.write(f"at bucket {progress.run.next_bucket}: {progress.run.objects_seen:,} objects")

    def _await_other(self, run: ValidationRun) -> ValidationRun:
        """The run as another process leaves it. Raises `CommandError` when it does not for a minute."""
        self.stderr.write("another process is at this run: waiting for it")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            run.refresh_from_db()
            if run.state == ValidationRun.State.COMPLETE or not runs.is_held(run):
                return run
            time.sleep(_LOOK_SECONDS)
        raise CommandError(
            f"another process is at this run, until {run.lease_until} if it has died: look at its findings"
        )

    def _report(self, run: ValidationRun, found: QuerySet[ValidationFinding], show: int) -> None:
        size = f"{run.artifacts:,} stored artifacts, {run.objects_seen:,} objects, {run.bytes_seen:,} bytes"
        self.stdout.write(f"{run.policy}: {size}")
        table = Table()
        for name in ("label", "action"):
            table.add_column(name)
        table.add_column("count", justify="right")
        table.add_column("bytes", justify="right")
        table.add_row("valid", "", f"{run.counts.get(Label.VALID.value, 0):,}", "")
        groups = found.order_by().values("label", "action").annotate(count=Count("id"), size=Sum("content_length"))
        for group in groups.order_by("label", "action"):
            table.add_row(group["label"], group["action"], f"{group['count']:,}", f"{group['size'] or 0:,}")
        self._print(table)
        if run.not_kept:
            self.stdout.write(f"{run.not_kept:,} more are not listed: INVENTORY_VALIDATE_FINDINGS is reached.")
        rows = list(found.exclude(label=Label.DELAY.value)[:show])
        if rows:
            self._print(_listed(rows))

    def _apply(self, chosen: QuerySet[ValidationFinding], at_most: int, by: str, grace: timedelta | None) -> None:
        taken = chosen.filter(action__in=[action.value for action in TAKES_AWAY]).count()
        if taken > at_most:
            raise CommandError(
                f"this would take away {taken:,} copies or objects, more than --at-most {at_most:,}: look at them first; "
                f"nothing was applied. If they are right, say --at-most {taken}."
            )
        foresee(findings=chosen)
        store, outcomes = get_store(), Counter[tuple[str, str]]()
        for finding in list(chosen.only("id", "action")):
            applied = apply_finding(store=store, finding_id=finding.pk, decided_by=by, grace=grace)
            outcomes[finding.action, applied.reason] += 1
        table = Table(title="Applied")
        table.add_column("action")
        table.add_column("outcome")
        table.add_column("count", justify="right")
        for (action, reason), count in sorted(outcomes.items()):
            table.add_row(action, reason, f"{count:,}")
        self._print(table)

    def _print(self, table: Table) -> None:
        console = Console(width=160)
        with console.capture() as printed:
            console.print(table)
        self.stdout.write(printed.get())


def _surveyor(processes: int | None) -> AbstractContextManager[Surveyor]:
    number = processes if processes is not None else _usual_processes()
    return surveyor_processes(number) if number > 1 else nullcontext(surveyor_of(get_store()))


def _usual_processes() -> int:
    """By how many files there are, and by the processors and the memory of the machine or container."""
    if row_count("storage_location") < _MANY:
        return 1
    return max(1, min(os.cpu_count() or 1, machine_bytes() // _MEMORY, _MOST))


def _listed(rows: list[ValidationFinding]) -> Table:
    table = Table(title="Findings")
    for name in ("number", "label", "uri", "bytes", "storage id", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        size = f"{row.content_length:,}" if row.content_length is not None else ""
        table.add_row(str(row.pk), row.label, row.uri or "", size, row.storage_id, row.detail)
    return table
