"""`manage.py reconcile`: compare this inventory with its remotes now, and settle what differs if told."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from datamodel.errors import InventoryError
from harvest import queries
from harvest.reconcile import compare
from harvest.reconcile.models import ReconcileRun
from harvest.reconcile.rules import Mode

_LINE = "{:<20} {:>12} {:>12} {:>9} {:>10}  {}"
_SHOWN = 50


class Command(BaseCommand):
    help = "Compare with every enabled remote (or one), and print what differs; nothing is changed unless told."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--remote", metavar="NAME", help="only this one")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--apply", action="store_const", dest="mode", const=Mode.ALL, help="settle every difference")
        how.add_argument("--add", action="store_const", dest="mode", const=Mode.ADD, help="settle what removes nothing")
        parser.add_argument("--json", action="store_true", help="one JSON object for each remote")
        parser.set_defaults(mode=Mode.REPORT)

    def handle(self, *_: Any, **options: Any) -> None:
        names = [remote.name for remote in queries.harvested_remotes()]
        if options["remote"] is not None and options["remote"] not in names:
            raise CommandError(
                f"no enabled remote {options['remote']!r} to compare with; there are: {', '.join(names) or 'none'}"
            )
        if not options["json"]:
            self.stdout.write(_LINE.format("remote", "rows here", "rows there", "requests", "bytes", "result"))
        chosen = [name for name in names if options["remote"] in {None, name}]
        results = [self._compare(name, options["mode"], as_json=options["json"]) for name in chosen]
        if not all(results):
            raise CommandError("not every remote could be compared")

    def _compare(self, name: str, mode: Mode, *, as_json: bool) -> bool:
        try:
            run = compare.reconcile(name, mode=mode)
        except (InventoryError, DatabaseError) as error:
            answer = {"remote": name, "complete": False, "error": str(error)}
            self.stdout.write(json.dumps(answer) if as_json else _LINE.format(name, "", "", "", "", error))
            return False
        if as_json:
            self.stdout.write(json.dumps(_report(name, run)))
        else:
            self._print(name, run)
        return True

    def _print(self, name: str, run: ReconcileRun) -> None:
        total, settled = sum(run.differences.values()), sum(run.applied.values())
        result = "equal" if not total else f"{total} differences, {settled} settled"
        self.stdout.write(_LINE.format(name, run.rows_here, run.rows_there, run.requests, run.traffic_bytes, result))
        for label, count in sorted(run.differences.items()):
            self.stdout.write(f"  {label:<30} {count:>8} found {run.applied.get(label, 0):>8} settled")
        for found in run.found.order_by("id")[:_SHOWN]:
            done = "done" if found.is_applied else "not done"
            self.stdout.write(f"    {found.label}  {found.uri or found.artifact_id}: {found.action} ({done})")
        if total > _SHOWN:
            self.stdout.write("    … the first thousand are in the admin and in --json")


def _report(name: str, run: ReconcileRun) -> dict[str, Any]:
    return {
        "remote": name,
        "mode": run.mode,
        "complete": run.is_complete,
        "rowsHere": run.rows_here,
        "rowsThere": run.rows_there,
        "requests": run.requests,
        "bytes": run.traffic_bytes,
        "differences": run.differences,
        "settled": run.applied,
        "found": [
            {
                "id": str(found.artifact_id),
                "uri": found.uri,
                "label": found.label,
                "action": found.action,
                "settled": found.is_applied,
            }
            for found in run.found.order_by("id")
        ],
    }
