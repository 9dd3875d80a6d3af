"""Bring back what a snapshot names: content that is gone or was replaced since lives again, under new ids."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from datamodel.logs import unit_of_work
from datamodel.snapshots.models import Snapshot
from site_service.retention.undelete import REFUSED, Page, Undeleted, undelete_entries

logger = logging.getLogger(__name__)


def restore_snapshot(*, snapshot: Snapshot, after: str, limit: int, is_preview: bool) -> Page:
    """The next `limit` uris of the snapshot after `after`: those that are gone or have other content, each in a transaction of its own.

    What is as it was is passed over, what came since is left alone, and one that is refused does not stop the others. A
    preview changes nothing. After a crash, going on from the same `after`, or from the start, finishes the work. Other sites
    attach bytes that they retain to the new ids by themselves.
    """
    with unit_of_work(logger, "restore_snapshot", name=str(snapshot), preview=is_preview) as work:
        page = undelete_entries(
            snapshot.namespace, snapshot.moment, replaces=True, after=after, limit=limit, is_preview=is_preview
        )
        work.note(restored=_count(page.items, refused=False), refused=_count(page.items, refused=True))
        return page


def _count(items: Sequence[Undeleted], *, refused: bool) -> int:
    return sum((item.outcome == REFUSED) is refused for item in items)
