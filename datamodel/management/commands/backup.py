"""`manage.py backup`: the database and its sealed keys as one file; and whether such a file is whole."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel.archive import BackupError, Manifest, verify
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.backup import chosen_file, write_backup
from datamodel.errors import InventoryError


class Command(BaseCommand):
    help = (
        "Write every row of this inventory's database to a new file (or, under a name with the time, into a directory)."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("target", type=Path, metavar="FILE|DIR")
        parser.add_argument(
            "--verify",
            action="store_true",
            help="write nothing: read this backup (of DIR the newest) and hold it to its digests",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["verify"]:
                path = chosen_file(options["target"])
                manifest = verify(path)
            else:
                path, manifest = write_backup(options["target"])
                record(Action.BACKUP, path.name, details={"rows": manifest.rows})
        except (BackupError, InventoryError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{path}: whole, {path.stat().st_size:,} bytes")
        self._tell(manifest)

    def _tell(self, manifest: Manifest) -> None:
        self.stdout.write(f"{manifest.role} {manifest.name} ({manifest.inventory_id}), taken {manifest.taken_at}")
        self.stdout.write(
            f"release {manifest.version}, PostgreSQL {manifest.server_version // 10000}, epoch {manifest.epoch}"
        )
        self.stdout.write(f"needs the secret key {manifest.secrets[0][:12]}, and {len(manifest.secrets) - 1} fallbacks")
        for table in manifest.tables:
            if table.rows:
                self.stdout.write(f"  {table.name}: {table.rows:,} rows")
