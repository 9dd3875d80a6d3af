"""Bring back what a snapshot names: content that is gone or was replaced since lives again, under new ids."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from datamodel import operations as model_operations, queries as model_queries
from datamodel.errors import ArtifactNotFoundError, RaceLostError, StateConflictError
from datamodel.logs import unit_of_work
from datamodel.rules import PutMeaning
from datamodel.snapshots import queries as snapshot_queries
from datamodel.snapshots.models import Snapshot
from datamodel.snapshots.rules import Entry
from datamodel.uris import ArtifactUri
from site_service.retention import queries as retention_queries
from site_service.retention.undelete import OUTCOMES, REFUSED, Page, Undeleted

logger = logging.getLogger(__name__)

_NOT_HERE = "its bytes are not kept at this site; another site that held it may have them"


def restore_snapshot(*, snapshot: Snapshot, after: str, limit: int, is_preview: bool) -> Page:
    """The next `limit` uris of the snapshot after `after`: those that are gone or have other content, each in a transaction of its own.

    What is as it was is passed over, what came since is left alone, and one that is refused does not stop the others. A
    preview changes nothing. After a crash, going on from the same `after`, or from the start, finishes the work. Other sites
    attach bytes that they retain to the new ids by themselves.
    """
    with unit_of_work(logger, "restore_snapshot", name=str(snapshot), preview=is_preview) as work:
        entries = snapshot_queries.entries_page(snapshot.namespace, snapshot.moment, after=after, limit=limit)
        items = [item for entry in entries if (item := _bring_back(entry, is_preview=is_preview)) is not None]
        work.note(uris=len(entries), restored=_count(items, refused=False), refused=_count(items, refused=True))
        return Page(items, entries[-1].uri if len(entries) == limit else "")


def _bring_back(entry: Entry, *, is_preview: bool) -> Undeleted | None:
    known = model_queries.artifact_by_uri(entry.uri)
    if known is not None and (known.artifact.content_checksum, known.artifact.content_length) == entry.content:
        return None
    found = retention_queries.latest_retained(ArtifactUri(entry.uri), as_of=None, content=entry.content)
    if found is None:
        return Undeleted(entry.uri, entry.content_length, REFUSED, _NOT_HERE)
    meaning = PutMeaning.REPLACE if known is not None else PutMeaning.CREATE
    if not is_preview:
        try:
            meaning = model_operations.undelete_artifact(retired_id=found.id, replaces=True).meaning
        except (StateConflictError, ArtifactNotFoundError, RaceLostError) as error:
            return Undeleted(entry.uri, entry.content_length, REFUSED, error.detail)
    return Undeleted(entry.uri, entry.content_length, OUTCOMES[meaning])


def _count(items: Sequence[Undeleted], *, refused: bool) -> int:
    return sum((item.outcome == REFUSED) is refused for item in items)
