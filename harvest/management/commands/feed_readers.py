"""`manage.py feed_readers`: who reads this inventory's feed and how far, and that one of them no longer blocks expiry."""

from __future__ import annotations

import argparse
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel.models import FeedReader, RemoteInventory
from harvest import readers


class Command(BaseCommand):
    help = "Who reads the feed and how far; --retire: it will not come back, or reconciles if it does, so events need not wait."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--retire", type=uuid.UUID, metavar="INVENTORY", help="the id of an inventory, as listed")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["retire"] is not None:
            chosen = FeedReader.objects.filter(inventory_id=options["retire"])
            if not readers.retire_readers(readers=chosen):
                raise CommandError(f"no inventory {options['retire']} reads here: manage.py feed_readers lists them")
        names = dict(RemoteInventory.objects.exclude(inventory_id=None).values_list("inventory_id", "name"))
        for reader in FeedReader.objects.order_by("caller", "inventory_id"):
            name = names.get(reader.inventory_id, "")
            state = "retired" if reader.retired_at else f"at {reader.txid}, asked {reader.asked_at:%Y-%m-%d %H:%M:%S}"
            self.stdout.write(f"{reader} {name}: {state}")
