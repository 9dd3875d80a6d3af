"""`manage.py migrate`: Django's own, but an empty database gets its schema in one step."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.commands import migrate
from django.db import DEFAULT_DB_ALIAS

from datamodel import baseline

# Whoever names one of these wants less than the whole schema, or not the schema at all.
_PARTS = ("app_label", "fake", "fake_initial", "plan", "check_unapplied", "prune")


class Command(migrate.Command):
    help = f"{migrate.Command.help} A new inventory gets its schema in one step."

    def handle(self, *args: Any, **options: Any) -> None:
        is_whole = options["database"] == DEFAULT_DB_ALIAS and not any(options[part] for part in _PARTS)
        if is_whole and baseline.make_schema(settings.SCHEMA_BASELINE) and options["verbosity"] >= 1:
            self.stdout.write("The database was empty: it has its schema now, by one step for most migrations.")
        super().handle(*args, **options)
