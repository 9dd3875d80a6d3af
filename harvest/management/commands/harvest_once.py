"""`manage.py harvest_once`: harvest now, in this process, without a broker."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from datamodel.errors import InventoryError
from harvest import exchange, queries
from harvest.exchange import Harvested

_LINE = "{:<24} {:>10} {:>10} {:>10}  {}"


class Command(BaseCommand):
    help = "Harvest every enabled remote (or one) until it has nothing new, and print what came."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--remote", metavar="NAME", help="only this one")

    def handle(self, *_: Any, **options: Any) -> None:
        names = [remote.name for remote in queries.harvested_remotes()]
        if options["remote"] is not None and options["remote"] not in names:
            raise CommandError(
                f"no enabled remote {options['remote']!r} to harvest; there are: {', '.join(names) or 'none'}"
            )
        self.stdout.write(_LINE.format("remote", "rows", "changed", "rejected", "result"))
        results = [self._harvest(name) for name in names if options["remote"] in {None, name}]
        if not all(results):
            raise CommandError("not every remote could be harvested to its end")

    def _harvest(self, name: str) -> bool:
        rows = changed = rejected = 0
        try:
            while True:
                found = exchange.harvest(name)
                rows, changed, rejected = rows + found.rows, changed + found.changed, rejected + found.rejected
                if not found.is_interrupted:
                    break
            result, is_good = _result(found), found.is_complete
        except (InventoryError, DatabaseError) as error:
            result, is_good = str(error), False
        self.stdout.write(_LINE.format(name, rows, changed, rejected, result))
        return is_good


def _result(found: Harvested) -> str:
    return "another process is harvesting it" if found.is_busy else "complete"
