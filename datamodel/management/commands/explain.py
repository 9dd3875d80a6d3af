"""`manage.py explain`: why somebody may, or may not, do something with a uri; the same answer as `/permissions/explain`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel.errors import InventoryError
from datamodel.explanations import explain
from datamodel.grants import NAMESPACE_GRANTS, Grant
from datamodel.permissions import ANONYMOUS, grant_for
from datamodel.tokens import METHODS
from datamodel.uris import ArtifactUri

_GRANTS = [grant.value for grant in NAMESPACE_GRANTS]


class Command(BaseCommand):
    help = "Why somebody may, or may not, do something with a uri."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.usage = "manage.py explain [--json] [--as WHO …] METHOD|GRANT URI"
        parser.add_argument(
            "--as",
            dest="names",
            nargs="+",
            action="extend",
            default=[],
            metavar="WHO",
            help="the principals of one caller: user:NAME, group:NAME, token:NAME, issuer:NAME, dn:DN (default: anonymous)",
        )
        parser.add_argument("words", nargs="*", metavar="METHOD|GRANT URI", help="as GET or read, and a uri")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        # What follows --as takes whatever comes: the last two words are what is asked, wherever they stand.
        words = [*options["names"], *options["words"]]
        if len(words) < 2:
            raise CommandError("say what is asked, and of which uri: explain --as user:alice write cadc:CFHT/x.fits")
        *names, operation, uri = words
        try:
            found = explain(names=names or [ANONYMOUS], grant=_grant(operation), uri=ArtifactUri.parse(uri))
        except InventoryError as error:
            raise CommandError(error.detail) from error
        if options["json"]:
            self.stdout.write(json.dumps(found))
            return
        verb = "may" if found["permitted"] else "may NOT"
        self.stdout.write(f"{', '.join(found['caller'])} {verb} {found['operation']} {found['uri']}")
        for step in found["because"]:
            self.stdout.write(f"  - {step}")


def _grant(word: str) -> Grant:
    if word.upper() in METHODS:
        return grant_for(word.upper())
    if word in _GRANTS:
        return Grant(word)
    raise CommandError(f"{word!r} is neither one of {', '.join(METHODS)} nor one of {', '.join(_GRANTS)}")
