"""`manage.py role`: operators, and what for."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel import access
from datamodel.errors import InventoryError
from datamodel.grants import ROLE_GRANTS, Role
from datamodel.management.tables import table_of
from datamodel.models import RoleAssignment


class Command(BaseCommand):
    help = "Assign, withdraw and list roles of operators; every process knows at once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        for name, text in (("assign", "make somebody an operator"), ("withdraw", "nobody's operator any more")):
            change = actions.add_parser(name, help=text)
            change.add_argument("principal", help="user:NAME, group:NAME, token:NAME, issuer:NAME or dn:DN")
            change.add_argument("role", choices=[role.value for role in Role])
            if name == "assign":
                change.add_argument("--note", default="")
        listing = actions.add_parser("list", help="every operator by role")
        listing.add_argument("--json", action="store_true", help="one JSON object per line")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['action']}")(options)
        except InventoryError as error:
            raise CommandError(error.detail) from error

    def _assign(self, options: dict[str, Any]) -> None:
        access.assign_role(principal=options["principal"], role=Role(options["role"]), note=options["note"])

    def _withdraw(self, options: dict[str, Any]) -> None:
        if not access.withdraw_role(principal=options["principal"], role=Role(options["role"])):
            raise CommandError(f"{options['principal']} is not {options['role']}")

    def _list(self, options: dict[str, Any]) -> None:
        found = RoleAssignment.objects.order_by("principal", "role")
        if options["json"]:
            for row in found:
                item = {"principal": row.principal, "role": row.role, "note": row.note}
                self.stdout.write(json.dumps({**item, "changedAt": row.changed_at.isoformat()}))
        else:
            rows = [
                [row.principal, row.role, ", ".join(sorted(ROLE_GRANTS[Role(row.role)])), row.note] for row in found
            ]
            self.stdout.write(table_of(["who", "role", "may", "note"], rows), ending="")
