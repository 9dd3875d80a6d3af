"""`manage.py snapshot` at a site: also brings back what a snapshot names."""

from __future__ import annotations

from collections import Counter
from typing import Any

from datamodel.management.commands import snapshot
from datamodel.snapshots import queries
from site_service.retention.undelete import REFUSED
from site_service.snapshots.restore import restore_snapshot

_PAGE = 1000


class Command(snapshot.Command):
    def add_acts(self, acts: Any) -> None:
        super().add_acts(acts)
        restore = self._act(acts, "restore", self._restore, "bring back what is gone or was replaced since")
        restore.add_argument("name")
        restore.add_argument("--apply", action="store_true", help="do it; without this it is only previewed")

    def _restore(self, options: dict[str, Any]) -> None:
        found = queries.find(options["name"])
        counts, sizes, after, is_over = Counter[str](), Counter[str](), "", False
        while not is_over:
            page = restore_snapshot(snapshot=found, after=after, limit=_PAGE, is_preview=not options["apply"])
            for item in page.items:
                counts[item.outcome] += 1
                sizes[item.outcome] += item.size
                if item.outcome == REFUSED:
                    self.stderr.write(f"{item.uri}: {item.reason}")
            after, is_over = page.next, not page.next
        for outcome, count in sorted(counts.items()):
            self.stdout.write(f"{outcome}: {count} files, {sizes[outcome]} bytes")
        if not counts:
            self.stdout.write(f"everything that {found} names is as it was")
        elif not options["apply"]:
            self.stdout.write("This was a preview; --apply does it.")
