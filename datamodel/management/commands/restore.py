"""`manage.py restore`: from a backup back into the federation, step by step, in the one order that loses nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel import restoration
from datamodel.archive import BackupError
from datamodel.backup import chosen_file
from datamodel.errors import InventoryError
from datamodel.loading import bring_to_present, load_backup
from datamodel.models import Restoration
from datamodel.restoration import StepOptions


class Command(BaseCommand):
    help = (
        "Restore a backup (of DIR the newest of this inventory), then harvest and reconcile with all peers, take back from the store "
        "what nobody knows, and validate; until then the inventory is closed. A step that fails is gone on with by --resume."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("source", type=Path, nargs="?", metavar="FILE|DIR")
        what.add_argument("--resume", action="store_true", help="go on with the steps that are left")
        what.add_argument("--status", action="store_true", help="which step is next, and what the others did")
        parser.add_argument("--replace", action="store_true", help="what the database holds now goes")
        parser.add_argument("--only-load", action="store_true", help="stop before the steps; --resume does them")
        parser.add_argument(
            "--stop-before",
            default="",
            choices=restoration.steps(),
            help="do the steps up to this one, and leave it to --resume",
        )
        parser.add_argument(
            "--skip",
            action="append",
            default=[],
            metavar="PEER",
            help="do without this peer: what only it knows is not asked for",
        )
        parser.add_argument(
            "--at-most",
            type=int,
            default=100,
            help="stop if more copies than so many (100) would leave service: their bytes are gone",
        )
        parser.add_argument("--by", default="command", help="who decides this, for the record")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["status"]:
                self._tell()
                return
            if options["source"] is not None:
                load_backup(
                    chosen_file(options["source"]), replace=options["replace"], by=options["by"], say=self.stdout.write
                )
            if not options["only_load"]:
                self._resume(options)
        except (BackupError, InventoryError) as error:
            hint = " Then: manage.py restore --resume" if restoration.is_restoring() else ""
            raise CommandError(f"{error}{hint}") from error

    def _resume(self, options: dict[str, Any]) -> None:
        if restoration.current() is None:
            raise CommandError("nothing is being restored: this inventory is open")
        bring_to_present()
        chosen = StepOptions(frozenset(options["skip"]), options["at_most"], options["by"])
        if restoration.resume(options=chosen, say=self.stdout.write, until=options["stop_before"]):
            self.stdout.write("open: the inventory is back in the federation")
        else:
            self._tell()

    def _tell(self) -> None:
        found = Restoration.objects.filter(id=1).first()
        if found is None:
            self.stdout.write("this inventory was never restored")
            return
        is_open = found.finished_at is not None
        self.stdout.write("open" if is_open else restoration.description(found))
        self.stdout.write(f"{found.source}, begun {found.begun_at:%Y-%m-%d %H:%M:%S} UTC by {found.begun_by}")
        for step, report in found.report.items():
            self.stdout.write(f"  {step}: {', '.join(f'{name} {value}' for name, value in report.items())}")
        if found.last_error:
            self.stdout.write(f"  last error: {found.last_error}")
