"""`manage.py retire`: drop the local copies under a namespace, as far as the globals allow; previews unless told to act."""

from __future__ import annotations

import argparse
import uuid
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from datamodel.errors import InventoryError
from datamodel.uris import Namespace
from site_service.retention import queries, retire
from site_service.retention.models import RetireRun
from site_service.retention.rules import ReleaseState

_SECONDS = 5.0
_SHOWN = 20


class Command(BaseCommand):
    help = (
        "Drop the local copies of all artifacts under a namespace (ends with : or /), each when every global allows it. Only counts "
        "unless --apply is given. What cannot be done now is gone on with by the workers, or by a repeat."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("namespace", nargs="?", help="a namespace")
        parser.add_argument("--apply", action="store_true", help="do it")
        parser.add_argument("--reason", default="", help="why; needed with --apply")
        parser.add_argument("--cancel", type=uuid.UUID, metavar="RUN", help="end this run: nothing more goes")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["cancel"] is not None:
                self._cancel(options["cancel"])
            elif options["namespace"] is None:
                raise CommandError("name a namespace, or a run to --cancel")
            elif options["apply"]:
                self._retire(Namespace.parse(options["namespace"]), options["reason"])
            else:
                self._preview(Namespace.parse(options["namespace"]))
        except InventoryError as error:
            raise CommandError(error.detail) from error

    def _preview(self, namespace: Namespace) -> None:
        found = retire.preview(namespace)
        self.stdout.write(f"stored here under {namespace}: {found.files} files, {found.bytes} bytes")
        self.stdout.write(
            f"wanted by this site's policy, so they stay: {found.wanted_files} files, {found.wanted_bytes} bytes"
        )
        if found.brake:
            self.stdout.write(f"The brake would stop this: {found.brake}")
        self.stdout.write("This was a preview; --apply --reason WHY does it. The globals are asked only then.")

    def _retire(self, namespace: Namespace, reason: str) -> None:
        if not reason:
            raise CommandError("say why: --reason")
        run = retire.begin_run(namespace=namespace, reason=reason, started_by="manage.py retire")
        while retire.advance(seconds=_SECONDS):
            run.refresh_from_db()
            self.stdout.write(f"{run.dropped_files} of {run.files} dropped, {run.refused_files} refused")
        run.refresh_from_db()
        self._report(run)

    def _cancel(self, run_id: uuid.UUID) -> None:
        if queries.run_by_id(run_id) is None:
            raise CommandError(f"no run has the id {run_id}")
        run = retire.cancel_run(run_id=run_id)
        retire.advance(seconds=_SECONDS)
        run.refresh_from_db()
        self._report(run)

    def _report(self, run: RetireRun) -> None:
        self.stdout.write(
            f"run {run.id} over {run.namespace}: {run.state}; {run.files} files listed, {run.dropped_files} dropped "
            f"({run.dropped_bytes} bytes), {run.refused_files} refused, {run.gone_files} gone by themselves"
        )
        for refused in queries.releases_of(run.id, state=ReleaseState.REFUSED, after="", limit=_SHOWN):
            self.stderr.write(f"{refused.uri}: {refused.reason} ({refused.detail})")
        for reason in queries.stopped_by_brake():
            self.stderr.write(f"stopped by the brake: {reason}")
        for state, detail, count in queries.waiting_reasons(run.id):
            self.stderr.write(f"{count} wait, {state}: {detail}")
