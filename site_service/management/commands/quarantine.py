"""`manage.py quarantine`: list what is kept apart; give it back, or let it go for ever."""

from __future__ import annotations

import argparse
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from datamodel.errors import InventoryError
from site_service.file_validate.models import QuarantinedObject
from site_service.file_validate.quarantine import decide_purge, purge_quarantined, restore_quarantined
from site_service.storage.registry import get_store


class Command(BaseCommand):
    help = "Objects in quarantine: list, restore ID…, purge ID… (bytes of a purged object are gone for ever)."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("what", choices=["list", "restore", "purge"])
        parser.add_argument("ids", nargs="*", type=uuid.UUID)
        parser.add_argument("--by", default="command", help="who decides this, for the record")
        parser.add_argument("--reason", default="", help="why (needed to purge)")
        parser.add_argument("--show", type=int, default=100, help="how many are listed")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["what"] == "list":
            self._list(options["show"])
            return
        if not options["ids"]:
            raise CommandError("name the objects by their ids: see manage.py quarantine list")
        refused = [one for one in options["ids"] if not self._decide(one, options)]
        if refused:
            raise CommandError(f"not done for {', '.join(map(str, refused))}")

    def _decide(self, object_id: uuid.UUID, options: dict[str, Any]) -> bool:
        by = options["by"]
        try:
            if options["what"] == "restore":
                row = restore_quarantined(store=get_store(), object_id=object_id, decided_by=by)
                self.stdout.write(f"{object_id}: {row.uri} is stored again, id {row.id}")
                return True
            is_gone = decide_purge(object_id=object_id, decided_by=by, reason=options["reason"]) and purge_quarantined(
                store=get_store(), object_id=object_id
            )
        except QuarantinedObject.DoesNotExist:
            self.stdout.write(f"{object_id}: no such object in quarantine")
            return False
        except InventoryError as error:
            self.stdout.write(f"{object_id}: {error.detail}")
            return False
        self.stdout.write(
            f"{object_id}: {'its bytes are gone' if is_gone else 'kept: an artifact refers to it, or it is decided'}"
        )
        return is_gone

    def _list(self, show: int) -> None:
        table = Table(title="Quarantine")
        for name in ("id", "since", "label", "uri", "bytes", "storage id"):
            table.add_column(name, overflow="fold")
        for held in QuarantinedObject.objects.filter(state="quarantined").order_by("quarantined_at")[:show]:
            size = f"{held.content_length:,}" if held.content_length is not None else ""
            since = held.quarantined_at.strftime("%Y-%m-%d %H:%M")
            table.add_row(str(held.id), since, held.label, held.uri or "", size, held.storage_id)
        console = Console(width=160)
        with console.capture() as printed:
            console.print(table)
        self.stdout.write(printed.get())
