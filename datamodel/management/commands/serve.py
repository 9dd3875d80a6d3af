"""`manage.py serve`: become the web server of this role. Needs no Django itself: the server's workers load it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel import env

PACKAGES = {"site": "site_service", "global": "global_inventory"}
_PROJECT = Path(__file__).resolve().parents[3]


class Command(BaseCommand):
    help = (
        "Check the settings, then become gunicorn for this role (configured by INVENTORY_BIND, INVENTORY_WORKERS, "
        "INVENTORY_THREADS, INVENTORY_GRACEFUL_SECONDS). Further arguments go to gunicorn."
    )

    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("gunicorn", nargs=argparse.REMAINDER, help="arguments for gunicorn, after --")

    def handle(self, *args: Any, **options: Any) -> None:
        if not env.text("INVENTORY_SECRET_KEY", ""):
            raise CommandError("set INVENTORY_SECRET_KEY, the one that manage.py provision had")
        given = options["gunicorn"][1:] if options["gunicorn"][:1] == ["--"] else options["gunicorn"]
        argv = [sys.executable, "-m", "gunicorn", "-c", "python:datamodel.webserver", "--pythonpath"]
        argv += [str(_PROJECT), *given, f"{PACKAGES[env.text('INVENTORY_ROLE')]}.wsgi:application"]
        sys.stdout.flush()
        os.execv(argv[0], argv)  # noqa: S606  # the point: the same process, so that signals reach the server
