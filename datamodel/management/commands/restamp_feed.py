"""`manage.py restamp_feed`: after any restore of the database, before the services start."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from datamodel.identity import restamp_feed


class Command(BaseCommand):
    help = "Renew the feed's epoch and all transaction ids (needed after a restore; peers harvest from the start)."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{restamp_feed()} rows restamped; the feed has a new epoch")
