"""`manage.py grant`: what namespaces are open to whom."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel import access
from datamodel.errors import InventoryError
from datamodel.grants import NAMESPACE_GRANTS
from datamodel.management.tables import table_of
from datamodel.models import NamespaceGrant

_EVERYTHING = "everything"
_LISTS = ("readers", "writers", "deleters", "harvesters")


class Command(BaseCommand):
    help = "Set, remove and list grants of namespaces; every process knows at once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        change = actions.add_parser("set", help="what a prefix is open to, instead of what it was")
        change.add_argument("prefix", help=f"a namespace, as cadc:CFHT/, or {_EVERYTHING!r}")
        change.add_argument("--anonymous", action="store_true", help="anyone reads, without credentials")
        for grant in NAMESPACE_GRANTS:
            change.add_argument(
                f"--{grant}",
                nargs="+",
                action="extend",
                default=[],
                metavar="WHO",
                help=f"may {grant}: user:NAME, group:NAME, token:NAME, issuer:NAME, dn:DN, or * for anybody known",
            )
        change.add_argument("--replaces", action="store_true", help="grants of shorter prefixes do not hold below it")
        change.add_argument("--note", default="")
        remove = actions.add_parser("remove", help="what it says holds no longer")
        remove.add_argument("prefix")
        listing = actions.add_parser("list", help="every grant")
        listing.add_argument("--json", action="store_true", help="one JSON object per line")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['action']}")(options)
        except InventoryError as error:
            raise CommandError(error.detail) from error

    def _set(self, options: dict[str, Any]) -> None:
        access.save_grant(
            prefix=_prefix(options),
            anonymous_read=options["anonymous"],
            allowed={grant: options[grant.value] for grant in NAMESPACE_GRANTS},
            replaces=options["replaces"],
            note=options["note"],
        )

    def _remove(self, options: dict[str, Any]) -> None:
        if not access.remove_grant(prefix=_prefix(options)):
            raise CommandError(f"there is no grant of {options['prefix']}")

    def _list(self, options: dict[str, Any]) -> None:
        found = NamespaceGrant.objects.order_by("prefix")
        if options["json"]:
            for row in found:
                self.stdout.write(json.dumps(_item(row)))
        else:
            columns = ["prefix", "anyone reads", *_LISTS, "replaces", "note"]
            self.stdout.write(table_of(columns, map(_cells, found)), ending="")


def _prefix(options: dict[str, Any]) -> str:
    return "" if options["prefix"] == _EVERYTHING else str(options["prefix"])


def _cells(row: NamespaceGrant) -> list[str]:
    lists = ["\n".join(getattr(row, name)) for name in _LISTS]
    return [str(row), "yes" if row.anonymous_read else "", *lists, "yes" if row.replaces else "", row.note]


def _item(row: NamespaceGrant) -> dict[str, object]:
    return {
        "prefix": row.prefix,
        "anonymousRead": row.anonymous_read,
        **{name: getattr(row, name) for name in _LISTS},
        "replaces": row.replaces,
        "note": row.note,
        "changedAt": row.changed_at.isoformat(),
    }
