"""Undelete: what was deleted or replaced lives again, one uri or a whole namespace, as it was at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from datamodel import operations, queries as model_queries, rules
from datamodel.errors import ArtifactNotFoundError, RaceLostError, StateConflictError
from datamodel.logs import unit_of_work
from datamodel.operations import Recorded
from datamodel.queries import RetiredRow
from datamodel.rules import ArtifactRow, PutMeaning
from datamodel.snapshots.queries import checked_moment, entries_page, entry_of
from datamodel.snapshots.rules import Entry
from datamodel.uris import ArtifactUri, Namespace
from site_service.retention import queries

logger = logging.getLogger(__name__)

OUTCOMES = {
    PutMeaning.CREATE: "undeleted",
    PutMeaning.REPLACE: "replaced",
    PutMeaning.ATTACH: "attached",
    PutMeaning.REAFFIRM: "unchanged",
}
REFUSED = "refused"
_NOT_HERE = "its bytes are not kept at this site; another site that held it may have them"


@dataclass(frozen=True, slots=True)
class Undeleted:
    """What became of one uri, or would; `reason` if it was refused."""

    uri: str
    size: int
    outcome: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a namespace; `next` is the uri to go on after, "" at the end."""

    items: Sequence[Undeleted]
    next: str


def undelete_uri(*, uri: ArtifactUri, as_of: datetime | None = None, replaces: bool = False) -> Recorded:
    """Let the content that this uri had at `as_of`, or had last, live again under a new id.

    Raises `ArtifactNotFoundError` when none is kept, `StateConflictError` when the uri has other content now and `replaces` is
    false, and for `as_of` what `checked_moment` raises. After a success a repeat finds nothing to undelete; as of a time, that it is
    as it was.
    """
    with unit_of_work(logger, "undelete", uri=uri.value) as work:
        entry = _entry_at(uri, as_of) if as_of is not None else None
        if entry is not None and (existing := _unchanged(entry)) is not None:
            work.note(id=existing.id, outcome=OUTCOMES[PutMeaning.REAFFIRM])
            return Recorded(existing, PutMeaning.REAFFIRM, 0)
        found = queries.latest_retained(uri, content=entry.content if entry is not None else None)
        if found is None:
            raise ArtifactNotFoundError(f"no deleted or replaced content of {uri}{_then(as_of)} is kept here")
        recorded = operations.undelete_artifact(retired_id=found.id, replaces=replaces)
        work.note(id=recorded.artifact.id, bytes=found.content_length, outcome=OUTCOMES[recorded.meaning])
        return recorded


def undelete_namespace(
    *, namespace: Namespace, as_of: datetime | None, replaces: bool, after: str, limit: int, is_preview: bool
) -> Page:
    """The next `limit` uris after `after`, each in a transaction of its own; one that is refused does not stop the others.

    As of a time they are those of the inventory as of then (`GET /artifacts?as_of=`), and told is what became of those that
    are not as they were; what came since is left alone. A preview changes nothing and tells what would become of each as
    things stand. After a crash, going on from the same `after` finishes the work. Raises for `as_of` what `checked_moment` raises.
    """
    with unit_of_work(logger, "undelete_namespace", namespace=namespace.value, preview=is_preview) as work:
        if as_of is not None:
            page = undelete_entries(
                namespace.value,
                checked_moment(as_of),
                replaces=replaces,
                after=after,
                limit=limit,
                is_preview=is_preview,
            )
        else:
            found = queries.undeletable(namespace, after=after, limit=limit)
            items = [_take(retired, replaces=replaces, is_preview=is_preview) for retired in found]
            page = Page(items, found[-1].uri if len(found) == limit else "")
        work.note(uris=len(page.items), refused=sum(item.outcome == REFUSED for item in page.items))
        return page


def undelete_entries(
    prefix: str, moment: datetime, *, replaces: bool, after: str, limit: int, is_preview: bool
) -> Page:
    """The next `limit` uris of the inventory as of a moment: what is gone or has other content gets that of then back.

    What is as it was is passed over; bytes equal to those of then will do, whichever id they had last.
    """
    entries = entries_page(prefix, moment, after=after, limit=limit)
    taken = (_bring_back(entry, replaces=replaces, is_preview=is_preview) for entry in entries)
    items = [item for item in taken if item is not None]
    return Page(items, entries[-1].uri if len(entries) == limit else "")


def _entry_at(uri: ArtifactUri, moment: datetime) -> Entry:
    entry = entry_of(uri.value, checked_moment(moment))
    if entry is None:
        raise ArtifactNotFoundError(f"no content of {uri}{_then(moment)} is known here")
    return entry


def _then(as_of: datetime | None) -> str:
    return f" that lived at {as_of.isoformat()}" if as_of else ""


def _unchanged(entry: Entry) -> ArtifactRow | None:
    """What has the uri now, if its content is that of then."""
    known = model_queries.artifact_by_uri(entry.uri)
    is_same = known is not None and (known.artifact.content_checksum, known.artifact.content_length) == entry.content
    return known.artifact if known is not None and is_same else None


def _bring_back(entry: Entry, *, replaces: bool, is_preview: bool) -> Undeleted | None:
    if _unchanged(entry) is not None:
        return None
    found = queries.latest_retained(ArtifactUri(entry.uri), content=entry.content)
    if found is None:
        return Undeleted(entry.uri, entry.content_length, REFUSED, _NOT_HERE)
    return _take(found, replaces=replaces, is_preview=is_preview)


def _take(retired: RetiredRow, *, replaces: bool, is_preview: bool) -> Undeleted:
    try:
        meaning = _foresee(retired) if is_preview else _undelete(retired, replaces=replaces)
        if meaning is PutMeaning.REPLACE and not replaces:
            raise StateConflictError("other content has this uri now; say replace if that is meant")
    except (StateConflictError, ArtifactNotFoundError, RaceLostError) as error:
        return Undeleted(retired.uri, retired.content_length, REFUSED, error.detail)
    return Undeleted(retired.uri, retired.content_length, OUTCOMES[meaning])


def _undelete(retired: RetiredRow, *, replaces: bool) -> PutMeaning:
    return operations.undelete_artifact(retired_id=retired.id, replaces=replaces).meaning


def _foresee(retired: RetiredRow) -> PutMeaning:
    known = model_queries.artifact_by_uri(retired.uri)
    return rules.decide_put(
        known.artifact if known is not None else None,
        is_stored=known is not None and known.location is not None,
        content_checksum=retired.content_checksum,
        content_length=retired.content_length,
    )
