"""`manage.py undelete`: what was deleted or replaced lives again, one uri or a namespace; previews a namespace unless told to act."""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime

from datamodel.errors import InventoryError
from datamodel.uris import ArtifactUri, Namespace
from site_service.retention import undelete
from site_service.retention.undelete import OUTCOMES, REFUSED

_PAGE = 1000


def moment(text: str) -> datetime:
    """A time with its zone."""
    try:
        when = parse_datetime(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: write it as 2026-01-31T12:00:00Z")
    return when


class Command(BaseCommand):
    help = (
        "Let deleted or replaced content live again under new ids: of one uri, or of a namespace (ends with : or /). A namespace is "
        "only previewed unless --apply is given."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("what", help="an artifact uri, or a namespace")
        parser.add_argument("--as-of", type=moment, help="the content that lived then; without it, what ended last")
        parser.add_argument("--replace", action="store_true", help="also replace other content that has a uri now")
        parser.add_argument("--apply", action="store_true", help="of a namespace: do it")

    def handle(self, *args: Any, **options: Any) -> None:
        what = options["what"]
        try:
            if what.endswith((":", "/")):
                self._namespace(Namespace.parse(what), options)
            else:
                self._uri(ArtifactUri.parse(what), options)
        except InventoryError as error:
            raise CommandError(error.detail) from error

    def _uri(self, uri: ArtifactUri, options: dict[str, Any]) -> None:
        recorded = undelete.undelete_uri(uri=uri, as_of=options["as_of"], replaces=options["replace"])
        self.stdout.write(f"{uri}: {OUTCOMES[recorded.meaning]}, id {recorded.artifact.id}")

    def _namespace(self, namespace: Namespace, options: dict[str, Any]) -> None:
        counts, sizes, after = Counter[str](), Counter[str](), ""
        while True:
            page = undelete.undelete_namespace(
                namespace=namespace,
                as_of=options["as_of"],
                replaces=options["replace"],
                after=after,
                limit=_PAGE,
                is_preview=not options["apply"],
            )
            for item in page.items:
                counts[item.outcome] += 1
                sizes[item.outcome] += item.size
                if item.outcome == REFUSED:
                    self.stderr.write(f"{item.uri}: {item.reason}")
            after = page.next
            if not after:
                break
        for outcome, count in sorted(counts.items()):
            self.stdout.write(f"{outcome}: {count} files, {sizes[outcome]} bytes")
        if not counts:
            self.stdout.write(f"nothing that was deleted or replaced under {namespace} is kept here")
        elif not options["apply"]:
            self.stdout.write("This was a preview; --apply does it.")
