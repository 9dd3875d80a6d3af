"""`manage.py add_remote`: another inventory to harvest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel.errors import InvalidRequestError
from datamodel.models import RemoteInventory
from datamodel.remotes import save_remote


class Command(BaseCommand):
    help = "Name another inventory that this one harvests (a global names sites, a site its globals), or change it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("url", help="its base URL, with base path")
        parser.add_argument("--role", required=True, choices=RemoteInventory.Role.values)
        parser.add_argument("--token-file", help="file with the API token it gave us ('-': standard input)")

    def handle(self, *args: Any, **options: Any) -> None:
        token = _token(options["token_file"]) if options["token_file"] else None
        try:
            remote = save_remote(name=options["name"], role=options["role"], url=options["url"], token=token)
        except InvalidRequestError as error:
            raise CommandError(error.detail) from error
        self.stdout.write(f"{remote.role} {remote.name} at {remote.url}")


def _token(path: str) -> str:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    if not text.strip():
        raise CommandError(f"{path} holds no token")
    return text.strip()
