"""`manage.py embedded`: the private PostgreSQL and Redis of one directory; needs no settings."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from datamodel import embedded
from datamodel.clusters import EmbeddedError
from datamodel.embedded import EmbeddedServers

NOT_RUNNING = 3  # as of systemctl status


class Command(BaseCommand):
    help = "Start, stop, show, dump or restore the embedded PostgreSQL and Redis of a directory."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(required=True, metavar="start|stop|status|dump|restore")
        for perform, text in (
            (self.start, "start both servers, or show them if they run"),
            (self.stop, "stop both"),
            (self.status, "show the running pair"),
            (self.dump, "write the database of the running pair to a file"),
            (self.restore, "replace what the file holds in the running pair"),
        ):
            action = actions.add_parser(perform.__name__, help=text)
            action.set_defaults(perform=perform)
            add_options(action, perform.__name__)

    def handle(self, *, perform: Callable[[Path, dict[str, Any]], None], directory: Path, **options: Any) -> None:
        try:
            perform(directory, options)
        except EmbeddedError as error:
            raise CommandError(str(error)) from error

    def start(self, directory: Path, options: dict[str, Any]) -> None:
        self.show(embedded.start(directory, postgres_major=options["major"]))

    def stop(self, directory: Path, _options: dict[str, Any]) -> None:
        self.stdout.write(
            f"Stopped {directory}." if embedded.stop(directory) else f"Nothing was running in {directory}."
        )

    def status(self, directory: Path, _options: dict[str, Any]) -> None:
        self.show(running(directory))

    def dump(self, directory: Path, options: dict[str, Any]) -> None:
        embedded.dump_database(running(directory), options["file"])

    def restore(self, directory: Path, options: dict[str, Any]) -> None:
        embedded.restore_database(running(directory), options["file"])

    def show(self, servers: EmbeddedServers) -> None:
        """Lines that a shell or an env file takes."""
        for name, value in servers.environment.items():
            self.stdout.write(f"{name}={value}")


def add_options(parser: ArgumentParser, action: str) -> None:
    directory = Path(os.environ.get("INVENTORY_EMBEDDED_DIR") or ".embedded")
    text = "of the servers' files (INVENTORY_EMBEDDED_DIR, .embedded)"
    parser.add_argument("--dir", type=Path, default=directory, dest="directory", help=text)
    if action == "start":
        parser.add_argument("--major", type=int, help="of PostgreSQL: 16 or 18 (INVENTORY_POSTGRES_MAJOR, 18)")
    if action in {"dump", "restore"}:
        parser.add_argument("file", type=Path)


def running(directory: Path) -> EmbeddedServers:
    """The running pair. Raises CommandError without one."""
    servers = embedded.status(directory)
    if servers is None:
        raise CommandError(f"Nothing runs in {directory}: `manage.py embedded start`.", returncode=NOT_RUNNING)
    return servers
