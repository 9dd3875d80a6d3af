"""`manage.py create_token`: an API token for a person, a pipeline or another inventory."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel import auth
from datamodel.models import ApiToken
from datamodel.permissions import ALL_GRANTS, Grant


class Command(BaseCommand):
    help = "Create an API token and print its secret, which is kept nowhere. Revoke tokens in the admin."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="whose token it is; appears in logs")
        parser.add_argument(
            "--grant",
            action="append",
            required=True,
            choices=[*Grant, "all"],
            help="a right; may be given several times",
        )
        parser.add_argument("--days", type=int, help="valid for so many days (default: until it is revoked)")
        parser.add_argument(
            "--replace", action="store_true", help="the token of this name gets a new secret and these grants"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        now = datetime.now(UTC)
        name, days = options["name"], options["days"]
        if ApiToken.objects.filter(name=name).exists() and not options["replace"]:
            raise CommandError(f"there is a token named {name}: choose another name, or --replace it")
        if days is not None and days < 1:
            raise CommandError("--days must be at least 1")
        grants = ALL_GRANTS if "all" in options["grant"] else frozenset(Grant(word) for word in options["grant"])
        expires_at = now + timedelta(days=days) if days is not None else None
        self.stdout.write(auth.create_api_token(name=name, grants=grants, now=now, expires_at=expires_at))
