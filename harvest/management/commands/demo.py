"""`manage.py demo`: a federation on this machine, and real files through it; needs no settings."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from datamodel.clusters import EmbeddedError
from harvest.demo.demonstration import Demonstration, Options
from harvest.demo.records import DemoError

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def port(text: str) -> int:
    """The first of three ports."""
    if not text.isdigit() or not 1 <= int(text) <= 65533:
        raise ArgumentTypeError(f"{text} is not a port between 1 and 65533")
    return int(text)


class Command(BaseCommand):
    help = (
        "Start a global inventory and two sites, send real files through them, check every step, and keep running until "
        "Ctrl-C or SIGTERM. Everything is kept in one directory, so the next start goes on with its data."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dir", type=Path, default=Path(".demo"), dest="directory", help="of all state (.demo)")
        parser.add_argument(
            "--port", type=port, default=8700, help="of the global; alpha and beta have the next two (8700)"
        )
        parser.add_argument("--files", type=Path, help="a directory to take files from (what git tracks here)")
        parser.add_argument(
            "--exit",
            action="store_true",
            dest="stop_afterwards",
            help="stop afterwards; the exit code says whether every check held",
        )
        parser.add_argument(
            "--chaos",
            action="store_true",
            help="afterwards kill every process in turn, silence services, flip bits in stored files, and see it heal each time",
        )
        parser.add_argument("--no-ingest", action="store_true", help="only start the services, send no files")
        parser.add_argument(
            "--json",
            action="store_true",
            dest="tell_json",
            help="say on stdout where everything is, progress on stderr",
        )

    def handle(
        self,
        *args: Any,
        directory: Path,
        port: int,
        files: Path | None,
        stop_afterwards: bool,
        no_ingest: bool,
        tell_json: bool,
        chaos: bool,
        **rest: Any,
    ) -> None:
        del args, rest
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a terminal may know fewer letters
        options = Options(
            directory.resolve(),
            port,
            files,
            stop_afterwards=stop_afterwards,
            ingest=not no_ingest,
            tell_json=tell_json,
            chaos=chaos,
        )
        demonstration = Demonstration(options)

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            demonstration.stopping.set()

        for number in _SIGNALS:
            signal.signal(number, stop)
        try:
            all_held = demonstration.run()
        except (DemoError, EmbeddedError, TimeoutError) as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{error.filename or directory}: {error.strerror or error}") from error
        if stop_afterwards and not all_held:
            raise SystemExit(1)
