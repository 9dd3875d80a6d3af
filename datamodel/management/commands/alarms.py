"""`manage.py alarms`: what is open, acknowledging and clearing it, and a test of the channels."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from datamodel.alarms import channels, operations, queries
from datamodel.alarms.models import Alarm
from datamodel.alarms.rules import AlarmKind

_SHOWN = 1000


class Command(BaseCommand):
    help = "List open alarms; acknowledge or clear some; --test raises one that a worker tells every channel."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--acknowledge", type=int, nargs="+", metavar="NUMBER", default=[], help="somebody is at these"
        )
        parser.add_argument("--clear", type=int, nargs="+", metavar="NUMBER", default=[], help="these are over")
        parser.add_argument("--by", default="command", help="who says so, for the record")
        parser.add_argument("--test", action="store_true", help="raise an alarm of the kind test")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["test"]:
            self._test(options["by"])
        if options["acknowledge"] or options["clear"]:
            chosen = Alarm.objects.filter(id__in=options["acknowledge"] + options["clear"], cleared_at__isnull=True)
            if missing := {*options["acknowledge"], *options["clear"]} - set(chosen.values_list("id", flat=True)):
                raise CommandError(f"no open alarm has the number {min(missing)}: manage.py alarms lists them")
            operations.acknowledge_alarms(alarms=Alarm.objects.filter(id__in=options["acknowledge"]), by=options["by"])
            operations.clear_alarms(alarms=Alarm.objects.filter(id__in=options["clear"]), by=options["by"])
        for alarm in queries.listed(state="open")[:_SHOWN]:
            seen = f", acknowledged by {alarm.acknowledged_by}" if alarm.acknowledged_at else ""
            self.stdout.write(f"{alarm.pk} {alarm} ({alarm.count}, since {alarm.raised_at:%Y-%m-%d %H:%M:%S}{seen})")
            self.stdout.write(f"    {alarm.text}")

    def _test(self, by: str) -> None:
        names = channels.names()
        if not names:
            raise CommandError("there is no channel: set INVENTORY_ALARM_EMAIL_TO or INVENTORY_ALARM_WEBHOOKS")
        with transaction.atomic():
            # Each test is to be heard.
            operations.clear_alarms(alarms=Alarm.objects.filter(kind=AlarmKind.TEST.value), by=by)
            operations.raise_alarm(
                kind=AlarmKind.TEST, subject=by, text="A test: nothing has happened. Clear it when you have it."
            )
        self.stdout.write(f"a worker tells {', '.join(names)} within some seconds")
