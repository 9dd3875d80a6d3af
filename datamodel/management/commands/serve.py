"""`manage.py serve`: become the web server of this role."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = (
        "Check the settings, then become gunicorn for this role (configured by INVENTORY_BIND, INVENTORY_WORKERS, "
        "INVENTORY_THREADS, INVENTORY_GRACEFUL_SECONDS). Further arguments go to gunicorn."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("gunicorn", nargs=argparse.REMAINDER, help="arguments for gunicorn, after --")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.INVENTORY_SECRET_KEY_IS_TEMPORARY:
            raise CommandError("set INVENTORY_SECRET_KEY, the one that manage.py provision had")
        given = options["gunicorn"][1:] if options["gunicorn"][:1] == ["--"] else options["gunicorn"]
        argv = [sys.executable, "-m", "gunicorn", "-c", "python:datamodel.webserver", "--pythonpath"]
        argv += [str(settings.BASE_DIR), *given, settings.WSGI_APPLICATION.replace(".application", ":application")]
        sys.stdout.flush()
        os.execv(argv[0], argv)  # noqa: S606  # the point: the same process, so that signals reach the server
