"""`manage.py rotate_keys`: publish a new signing key now, or only when one is due."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from datamodel import keys


class Command(BaseCommand):
    help = (
        "Publish a new key for signing URLs, statements and our calls of other inventories. It signs once these had "
        "INVENTORY_KEY_OVERLAP_SECONDS to fetch it; what was signed with the old one stays good for as long again."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--if-due", action="store_true", help="only if the newest key is older than the key period")

    def handle(self, *args: Any, **options: Any) -> None:
        del args
        overlap = settings.INVENTORY_KEY_OVERLAP
        now = datetime.now(UTC)
        key_id = keys.rotate_keys(
            now=now, period=settings.INVENTORY_KEY_PERIOD, overlap=overlap, is_forced=not options["if_due"]
        )
        if key_id is None:
            self.stdout.write("no new key is due")
        else:
            self.stdout.write(f"key {key_id} is published and signs from {now + overlap:%Y-%m-%d %H:%M:%S} UTC")
