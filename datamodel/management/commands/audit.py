"""`manage.py audit`: check the chain, find who did something, sign the head, archive."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from datamodel.archive import BackupError
from datamodel.audit import archiving, chain, queries, verification
from datamodel.audit.archiving import SUFFIX
from datamodel.audit.models import AuditEntry
from datamodel.audit.rules import Action
from datamodel.audit.verification import DamagedFileError, Report
from datamodel.errors import InventoryError
from datamodel.rows import database_now
from datamodel.wire import time_text


class Command(BaseCommand):
    help = "The audit: verify the chain, find entries, sign the head, move old entries into files."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verify = verbs.add_parser(
            "verify", help="check chain and signatures; exit 1 and the first wrong entry otherwise"
        )
        verify.add_argument(
            "archives", nargs="*", type=Path, help="archive files, or a directory of them, to check too"
        )
        verify.add_argument("--json", action="store_true")
        find = verbs.add_parser("find", help="who did what, newest first")
        find.add_argument(
            "--uri", default="", help="a uri, or what somebody did it to; a namespace: everything below it"
        )
        find.add_argument("--who", default="", help="by this name")
        find.add_argument("--action", default="", choices=["", *(action.value for action in Action)])
        find.add_argument("--since", type=_moment, help="a time (2026-01-31T12:00:00Z), or so long ago: 90m, 12h, 7d")
        find.add_argument("--limit", type=int, default=100, help="at most so many (100)")
        find.add_argument("--json", action="store_true", help="one JSON object per line")
        verbs.add_parser("seal", help="seal what is ready now")
        verbs.add_parser("head", help="sign the head of the chain now and print the statement")
        archive = verbs.add_parser("archive", help="move what was sealed before so many days into a file now")
        archive.add_argument("--days", type=int, default=settings.INVENTORY_AUDIT_KEEP_DAYS or None, required=False)
        archive.add_argument("--directory", type=Path, default=settings.INVENTORY_AUDIT_ARCHIVE_DIR or None)

    def handle(self, *, verb: str, **options: Any) -> None:
        try:
            match verb:
                case "verify":
                    self._verify(options["archives"], as_json=options["json"])
                case "find":
                    self._find(options)
                case "seal":
                    self.stdout.write(f"{chain.seal_ready()} entries sealed")
                case "head":
                    self._sign()
                case "archive":
                    self._archive(options["days"], options["directory"])
        except (InventoryError, BackupError, DamagedFileError) as error:
            raise CommandError(str(error)) from error

    def _verify(self, paths: list[Path], *, as_json: bool) -> None:
        files = [
            file for path in paths for file in (sorted(path.glob(f"*-audit-*{SUFFIX}")) if path.is_dir() else [path])
        ]
        if paths and not files:
            raise CommandError(f"there is no archive file in {paths[0]}")
        report = verification.verify(files)
        if as_json:
            self.stdout.write(json.dumps(_facts(report)))
        else:
            self.stdout.write(
                f"{report.entries} entries under {report.seals} seals ({report.files} files), {report.heads} signed heads "
                f"({report.retired_keys} by keys that are unknown here), {report.unsealed} entries not sealed yet"
            )
            self.stdout.write(f"the chain ends at seal {report.last_seal}: {report.digest}")
        if report.wrong is not None:
            raise CommandError(f"WRONG at seal {report.wrong.seal}: {report.wrong.text}", returncode=1)

    def _find(self, options: dict[str, Any]) -> None:
        if not any(options[name] for name in ("uri", "who", "action", "since")):
            raise CommandError("say what to find: --uri, --who, --action or --since")
        uri, limit = options["uri"], max(options["limit"], 1)
        rows = list(
            queries.found(
                subject=uri, who=options["who"], action=options["action"], since=options["since"], limit=limit
            )
        )
        if uri and not options["who"] and not options["action"]:
            known = {row.pk for row in rows}
            rows += [row for row in queries.deleted_by_news(uri, limit) if row.pk not in known]
            rows.sort(key=lambda row: -row.pk)
        for row in rows:
            self.stdout.write(queries.entry_of(row).line if options["json"] else _described(row))
        if not rows and not options["json"]:
            self.stdout.write("nothing is recorded of that (what is archived is in its files)")

    def _sign(self) -> None:
        chain.seal_ready()
        head = chain.sign_head()
        if head is None:
            raise CommandError("nothing was signed: nothing is sealed yet, or this inventory has no signing key")
        self.stdout.write(head.statement)

    def _archive(self, days: int | None, directory: Path | None) -> None:
        if days is None or directory is None:
            raise CommandError(
                "say --days and --directory, or set INVENTORY_AUDIT_KEEP_DAYS and INVENTORY_AUDIT_ARCHIVE_DIR"
            )
        before = database_now() - timedelta(days=days)
        count = 0
        while (archived := archiving.archive(before=before, directory=Path(directory))) is not None:
            self.stdout.write(
                f"{archived.name}: {archived.entries} entries, seals {archived.from_seal} to {archived.to_seal}"
            )
            count += 1
        if not count:
            self.stdout.write(f"nothing was sealed before {time_text(before)}")


def _moment(text: str) -> datetime:
    units = {"m": "minutes", "h": "hours", "d": "days"}
    if text[:-1].isdigit() and text[-1:] in units:
        return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 2026-01-31T12:00:00Z, or 90m, 12h, 7d") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _described(row: AuditEntry) -> str:
    times = f" x{row.count}" if row.count > 1 else ""
    reason = f" ({row.reason})" if row.reason else ""
    origin = f" from {row.address}" if row.address else ""
    return f"{time_text(row.at)} {row.outcome}{times} {row.action} {row.subject} by {row.who} [{row.method}]{origin}{reason}"


def _facts(report: Report) -> dict[str, object]:
    wrong = report.wrong
    return {
        "ok": wrong is None,
        "entries": report.entries,
        "seals": report.seals,
        "files": report.files,
        "heads": report.heads,
        "retiredKeys": report.retired_keys,
        "unsealed": report.unsealed,
        "lastSeal": report.last_seal,
        "digest": report.digest,
        "wrong": None if wrong is None else {"seal": wrong.seal, "entry": wrong.entry, "text": wrong.text},
    }
