"""`manage.py pair`: other inventories that this one knows by their keys."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel.errors import InventoryError
from datamodel.models import RemoteInventory
from datamodel.pairing import client, operations, queries


class Command(BaseCommand):
    help = "Pair this inventory with another by a one-time code, list the pairs, or revoke one. Codes are printed once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        invite = actions.add_parser("invite", help="a code for another inventory, which accepts it with `pair accept`")
        invite.add_argument("name", help="what the other one shall be called here")
        invite.add_argument("--role", choices=RemoteInventory.Role.values, help="of the other one (default: not ours)")
        hours = operations.LIFETIME.total_seconds() / 3600
        invite.add_argument("--lifetime", type=float, default=hours, metavar="HOURS", help=f"({hours:g})")
        accept = actions.add_parser("accept", help="be paired with the inventory that made this code; repeatable")
        accept.add_argument("code")
        accept.add_argument("--name", required=True, help="what the other one shall be called here")
        revoke = actions.add_parser("revoke", help="this one loses everything at once; a new code undoes it")
        revoke.add_argument("name")
        revoke.add_argument("--reason", required=True, help="why; kept in the log")
        actions.add_parser("list", help="every other inventory, and open codes")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['action']}")(options)
        except InventoryError as error:
            raise CommandError(error.detail) from error

    def _invite(self, options: dict[str, Any]) -> None:
        role = options["role"] or operations.other_role()
        invited = operations.invite(name=options["name"], role=role, lifetime=timedelta(hours=options["lifetime"]))
        self.stdout.write(invited.code)
        self.stderr.write(f"good until {invited.expires_at:%Y-%m-%d %H:%M} UTC, once")

    def _accept(self, options: dict[str, Any]) -> None:
        remote = client.accept(code=options["code"], name=options["name"])
        self.stdout.write(f"paired with the {remote.role} {remote.name} at {remote.url} ({remote.inventory_id})")

    def _revoke(self, options: dict[str, Any]) -> None:
        remote = operations.revoke(name=options["name"], reason=options["reason"])
        self.stdout.write(f"the {remote.role} {remote.name} is revoked")

    def _list(self, options: dict[str, Any]) -> None:
        del options
        for one in queries.standings():
            since = f" since {one.since:%Y-%m-%d %H:%M} UTC" if one.since is not None else ""
            where = f"; {one.keys} keys; {one.inventory_id or 'id unknown'}; {one.url}" if one.url else ""
            self.stdout.write(f"{one.name}: {one.role}, {one.state}{since}{where}")
