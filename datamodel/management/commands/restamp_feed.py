"""`manage.py restamp_feed`: after any restore of the database that was not `manage.py restore`, before the services start."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from datamodel import restoration
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.identity import restamp_feed


class Command(BaseCommand):
    help = (
        "Renew the feed's epoch and all transaction ids after a restore by other means; the inventory is closed then, and "
        "`manage.py restore --resume` brings it back into the federation."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--nothing-lost",
            action="store_true",
            help="stay open: no committed transaction is missing (a switch to a synchronous standby)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            stamped = restamp_feed()
            record(Action.RESTORE, "restamp_feed", details={"nothingLost": bool(options["nothing_lost"])})
            if not options["nothing_lost"]:
                restoration.begin(source="restamp_feed", by="command", taken_at=None)
        self.stdout.write(f"{stamped} rows restamped; the feed has a new epoch")
        if not options["nothing_lost"]:
            self.stdout.write("closed until: manage.py restore --resume")
