"""`manage.py snapshot`: take, list, compare, export, verify and delete snapshots of namespaces; schedules of them."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel.errors import InventoryError, StateConflictError
from datamodel.snapshots import operations, queries, rules, wire
from datamodel.snapshots.models import Snapshot, SnapshotSchedule
from datamodel.snapshots.rules import Keep
from datamodel.snapshots.views import differences
from datamodel.uris import Namespace

_LINE = "{:<40} {:<26} {:<9} {:>12} {:>18}  {}"


class Command(BaseCommand):
    help = "Snapshots of namespaces: what lived at a moment stays readable, whatever becomes of it later."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(act=None)
        acts = parser.add_subparsers(dest="what", required=True, metavar="ACT")
        self.add_acts(acts)

    def add_acts(self, acts: Any) -> None:
        """A role may add its own."""
        create = self._act(acts, "create", self._create, "fix this moment of a namespace")
        create.add_argument("name")
        create.add_argument("namespace", help="ends with : or /")
        create.add_argument("--wait", type=float, default=10, help="seconds to wait until it is kept")
        listing = self._act(acts, "list", self._list, "the latest snapshots, and for whom they wait")
        listing.add_argument("--namespace", default="")
        listing.add_argument("--json", action="store_true", help="one JSON object per line")
        compare = self._act(acts, "diff", self._diff, "what became of its uris until another one, or until now")
        compare.add_argument("name")
        compare.add_argument("to", nargs="?", help="another snapshot; without it: now")
        compare.add_argument("--json", action="store_true", help="one JSON object per line, with digests")
        manifest = self._act(acts, "manifest", self._manifest, "everything that it names")
        manifest.add_argument("name")
        manifest.add_argument("--format", choices=("ndjson", "csv"), default="ndjson")
        self._act(acts, "verify", self._verify, "compute its digest anew").add_argument("name")
        self._act(acts, "delete", self._delete, "let go what only it keeps").add_argument("name")
        schedule = self._act(acts, "schedule", self._schedule, "take snapshots by themselves, and thin them")
        schedule.add_argument("name")
        schedule.add_argument("namespace", help="ends with : or /")
        for period in ("hourly", "daily", "monthly", "yearly"):
            schedule.add_argument(f"--{period}", type=int, default=0, metavar="N", help="of so many one each")

    def handle(self, *_: Any, **options: Any) -> None:
        act: Callable[[dict[str, Any]], None] = options["act"]
        try:
            act(options)
        except InventoryError as error:
            raise CommandError(error.detail) from error

    def _act(self, acts: Any, name: str, act: Callable[[dict[str, Any]], None], text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = acts.add_parser(name, help=text)
        parser.set_defaults(act=act)
        return parser

    def _create(self, options: dict[str, Any]) -> None:
        namespace = Namespace.parse(options["namespace"])
        created = operations.create_snapshot(name=options["name"], namespace=namespace, created_by="manage.py")
        operations.settle_soon(snapshot=created, seconds=options["wait"])
        self._print(created)

    def _list(self, options: dict[str, Any]) -> None:
        namespace = Namespace.parse(options["namespace"]).value if options["namespace"] else ""
        found = queries.listed(namespace=namespace)
        if options["json"]:
            for line in wire.json_lines(wire.snapshot_item(each, awaited=queries.awaited(each)) for each in found):
                self.stdout.write(line, ending="")
            return
        self.stdout.write(_LINE.format("name", "moment", "state", "artifacts", "bytes", "namespace"))
        for each in found:
            self._print(each)

    def _print(self, found: Snapshot) -> None:
        found.refresh_from_db()
        when = found.moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
        self.stdout.write(_LINE.format(str(found), when, found.state, found.artifacts, found.size, found.namespace))
        if waiting := queries.awaited(found):
            self.stdout.write(f"    waits for: {', '.join(waiting)}")
        if found.is_orphan:
            self.stdout.write(f"    {found.source} does not know it any more; delete it here if that is meant")

    def _diff(self, options: dict[str, Any]) -> None:
        other = queries.find(options["to"]) if options["to"] else None
        counts = Counter[str]()
        for changed in differences(queries.find(options["name"]), other):
            counts[changed.change.value] += 1
            line = (
                json.dumps(wire.change_item(changed)) if options["json"] else f"{changed.change.value:<8} {changed.uri}"
            )
            self.stdout.write(line)
        if not options["json"]:
            told = ", ".join(f"{count} {change}" for change, count in sorted(counts.items()))
            self.stdout.write(told or "no difference")

    def _manifest(self, options: dict[str, Any]) -> None:
        found = queries.find(options["name"])
        entries = queries.all_entries(found.namespace, found.moment)
        is_csv = options["format"] == "csv"
        for line in wire.csv_lines(entries) if is_csv else wire.json_lines(map(wire.entry_item, entries)):
            self.stdout.write(line, ending="")

    def _verify(self, options: dict[str, Any]) -> None:
        found = operations.verify_snapshot(snapshot=queries.find(options["name"]))
        self.stdout.write(json.dumps(wire.verification_item(found)))
        if not found.holds:
            raise CommandError("what is known of that moment now is not what the snapshot promised")

    def _delete(self, options: dict[str, Any]) -> None:
        operations.release_snapshot(snapshot=queries.find(options["name"]))

    def _schedule(self, options: dict[str, Any]) -> None:
        counts = {period: options[period] for period in ("hourly", "daily", "monthly", "yearly")}
        if min(counts.values()) < 0 or not Keep(**counts).periods:
            raise StateConflictError("a schedule keeps some snapshots: say for example --hourly 24 --daily 31")
        if not rules.is_name(options["name"]):
            raise StateConflictError(
                f"invalid name {options['name']!r}: use letters, digits, dots, hyphens, underscores"
            )
        namespace = Namespace.parse(options["namespace"]).value
        SnapshotSchedule.objects.update_or_create(
            name=options["name"], defaults={"namespace": namespace, "enabled": True, **counts}
        )
