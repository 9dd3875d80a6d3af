"""`manage.py release_brake`: whom the brake on deletions has stopped, and letting one pass."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel import brake
from datamodel.models import DeletionBrake


class Command(BaseCommand):
    help = "Without a source: who removed how much today and who is stopped. With one: what it removes is meant, let it pass."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("source", nargs="?", help="as listed, e.g. harvest:alpha")
        parser.add_argument("--namespace", help="only what is stopped under this rule; '' for none (all)")
        parser.add_argument("--hours", type=int, default=24, help="for how long it may pass (24)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["source"] is None:
            for found in DeletionBrake.objects.all():
                state = f"STOPPED: {found.reason}" if found.engaged_at else "not stopped"
                self.stdout.write(f"{found}: {found.removed} removed on {found.day}; {state}")
            return
        if options["hours"] < 1:
            raise CommandError("--hours must be at least 1")
        chosen = DeletionBrake.objects.filter(source=options["source"])
        if options["namespace"] is not None:
            chosen = chosen.filter(namespace=options["namespace"])
        if not brake.release(brakes=chosen, period=timedelta(hours=options["hours"])):
            raise CommandError(f"there is no source {options['source']}: manage.py release_brake lists them")
        self.stdout.write(f"{options['source']} may pass for {options['hours']} hours")
