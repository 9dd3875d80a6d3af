"""`manage.py cross_match FILE`: somebody else's list of files against the inventory; report only."""

from __future__ import annotations

import argparse
import csv
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError

from datamodel.errors import InventoryError
from datamodel.uris import Namespace, namespace_filter
from site_service.file_validate.cross_match import Tally, cross_match
from site_service.file_validate.lists import read_list


class Command(BaseCommand):
    help = "Compare a list (CSV or VOTable of uri[, digest, length]) with the inventory: missing, extra, different, as CSV."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", help="the list; - is standard input")
        parser.add_argument(
            "--namespace", action="append", default=[], help="what is not listed is extra only in these"
        )
        parser.add_argument("--stored", action="store_true", help="what is known but not stored here is missing")
        parser.add_argument("--output", type=Path, help="where the differences go (standard output)")

    def handle(self, *args: Any, **options: Any) -> None:
        tally = Tally()
        try:
            namespaces = namespace_filter([Namespace.parse(text) for text in options["namespace"]])
            with ExitStack() as stack:
                stream: BinaryIO = (
                    sys.stdin.buffer
                    if options["file"] == "-"
                    else stack.enter_context(Path(options["file"]).open("rb"))
                )
                out: Any = (
                    stack.enter_context(options["output"].open("w", encoding="utf-8", newline=""))
                    if options["output"]
                    else self.stdout
                )
                writer = csv.writer(out, lineterminator="\n")
                writer.writerow(["kind", "uri", "detail"])
                found = cross_match(read_list(stream), tally, namespaces=namespaces, stored_only=options["stored"])
                for one in found:
                    writer.writerow([one.kind.value, one.uri, one.detail])
        except InventoryError as error:
            raise CommandError(error.detail) from error
        except OSError as error:
            raise CommandError(f"{options['file']}: {error.strerror}") from error
        counts = ", ".join(f"{count:,} {kind.value}" for kind, count in tally.mismatches.items())
        self.stderr.write(
            f"{tally.listed:,} listed, {tally.matched:,} match ({tally.unverified:,} of them by name or length only), {counts}"
        )
