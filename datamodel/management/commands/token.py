"""`manage.py token`: API tokens of persons, pipelines and other inventories."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel import tokens
from datamodel.errors import InventoryError
from datamodel.grants import ALL_GRANTS, Grant
from datamodel.models import ApiToken
from datamodel.tokens import METHODS, TokenLimits


class Command(BaseCommand):
    help = "Create, list, rotate and revoke API tokens. A secret is printed once and kept nowhere."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="a new token; prints its secret")
        create.add_argument("name", help="whose token it is; appears in logs, and in grants as token:NAME")
        create.add_argument(
            "--grant",
            action="append",
            default=[],
            choices=[*Grant, "all"],
            help="a right of the token itself; without any it has what is granted to token:NAME",
        )
        create.add_argument("--prefix", action="append", default=[], help="only below this namespace; repeatable")
        create.add_argument(
            "--method",
            action="append",
            default=[],
            type=str.upper,
            choices=METHODS,
            help="only by this method; repeatable",
        )
        create.add_argument("--days", type=int, help="valid for so many days (default: until it is revoked)")
        create.add_argument(
            "--replace", action="store_true", help="the token of this name gets a new secret and these rights"
        )
        rotate = actions.add_parser("rotate", help="a new secret with the same rights; the old one is good for a while")
        rotate.add_argument("name")
        rotate.add_argument("--overlap-hours", type=float, default=24.0, help="how long the old secret is good (24)")
        revoke = actions.add_parser("revoke", help="these tokens open nothing any more, at once")
        revoke.add_argument("names", nargs="+", metavar="name")
        actions.add_parser("list", help="every token with its rights, limits and last use")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['action']}")(datetime.now(UTC), options)
        except InventoryError as error:
            raise CommandError(error.detail) from error

    def _create(self, now: datetime, options: dict[str, Any]) -> None:
        name, days = options["name"], options["days"]
        if ApiToken.objects.filter(name=name).exists() and not options["replace"]:
            raise CommandError(f"there is a token named {name}: choose another name, rotate it, or --replace it")
        if days is not None and days < 1:
            raise CommandError("--days must be at least 1")
        grants = ALL_GRANTS if "all" in options["grant"] else frozenset(Grant(word) for word in options["grant"])
        secret = tokens.create_api_token(
            name=name,
            grants=grants,
            now=now,
            expires_at=now + timedelta(days=days) if days is not None else None,
            limits=TokenLimits.parse(options["prefix"], options["method"]),
        )
        self.stdout.write(secret)

    def _rotate(self, now: datetime, options: dict[str, Any]) -> None:
        if options["overlap_hours"] < 0:
            raise CommandError("--overlap-hours must not be negative")
        overlap = timedelta(hours=options["overlap_hours"])
        self.stdout.write(tokens.rotate_api_token(name=options["name"], now=now, overlap=overlap))

    def _revoke(self, now: datetime, options: dict[str, Any]) -> None:
        chosen = ApiToken.objects.filter(name__in=options["names"])
        if unknown := sorted(set(options["names"]) - set(chosen.values_list("name", flat=True))):
            raise CommandError(f"there is no token named {unknown[0]}; nothing was revoked")
        self.stdout.write(f"{tokens.revoke_api_tokens(tokens=chosen, now=now)} revoked")

    def _list(self, now: datetime, options: dict[str, Any]) -> None:
        del options
        for token in ApiToken.objects.order_by("name"):
            self.stdout.write(tokens.description(token, now=now))
