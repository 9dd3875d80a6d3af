"""Undelete: what was deleted or replaced lives again, one uri or a whole namespace, as it was at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from datamodel import operations, queries as model_queries, rules
from datamodel.errors import ArtifactNotFoundError, StateConflictError
from datamodel.logs import unit_of_work
from datamodel.operations import Recorded
from datamodel.queries import RetiredRow
from datamodel.rules import PutMeaning
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
    false. After a success a repeat finds nothing to undelete.
    """
    with unit_of_work(logger, "undelete", uri=uri.value) as work:
        found = queries.latest_retained(uri, as_of=as_of)
        if found is None:
            when = f" that lived at {as_of.isoformat()}" if as_of else ""
            raise ArtifactNotFoundError(f"no deleted or replaced content of {uri}{when} is kept here")
        recorded = operations.undelete_artifact(retired_id=found.id, replaces=replaces)
        work.note(id=recorded.artifact.id, bytes=found.content_length, outcome=OUTCOMES[recorded.meaning])
        return recorded


def undelete_namespace(
    *, namespace: Namespace, as_of: datetime | None, replaces: bool, after: str, limit: int, is_preview: bool
) -> Page:
    """The next `limit` uris after `after`, each in a transaction of its own; one that is refused does not stop the others.

    A preview changes nothing and tells what would become of each as things stand. After a crash, going on from the same
    `after` finishes the work.
    """
    with unit_of_work(logger, "undelete_namespace", namespace=namespace.value, preview=is_preview) as work:
        found = queries.undeletable(namespace, as_of=as_of, after=after, limit=limit)
        items = [_take(retired, replaces=replaces, is_preview=is_preview) for retired in found]
        work.note(uris=len(items), refused=sum(item.outcome == REFUSED for item in items))
        return Page(items, found[-1].uri if len(found) == limit else "")


def _take(retired: RetiredRow, *, replaces: bool, is_preview: bool) -> Undeleted:
    try:
        meaning = _foresee(retired) if is_preview else _undelete(retired, replaces=replaces)
        if meaning is PutMeaning.REPLACE and not replaces:
            raise StateConflictError("other content has this uri now; say replace if that is meant")
    except (StateConflictError, ArtifactNotFoundError) as error:
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
