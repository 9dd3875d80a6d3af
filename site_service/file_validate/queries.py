"""What the inventory says of places in the store, and how far validation is; never writes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet

from datamodel.errors import DatabaseUnavailableError
from datamodel.queries import ARTIFACT_COLUMNS, artifact_from
from datamodel.rules import ArtifactRow, Located
from datamodel.uris import prefix_upper_bound
from site_service.file_validate.merge import Placed
from site_service.file_validate.models import QuarantinedObject, ValidationFinding, ValidationRun
from site_service.file_validate.rules import Known, Policy
from site_service.policy.queries import current_policy
from site_service.storage.contract import ListingEnd
from site_service.storage.listings import Place

PAGE = 2000
_PLACED_ARTIFACT = Placed._fields.index("artifact_id")
_COLUMNS = 12
# In the order of `Placed`, and nothing that Python would have to make an object of. The page is cut before its artifacts are looked
# for: else PostgreSQL looks for those of the whole bucket, by several processes, and sorts them, for each page anew.
_PLACED_SQL = """
    SELECT l.storage_bucket, l.storage_id, a.content_checksum, a.content_length, a.id::text, a.uri, a.content_type,
        a.content_encoding, a.content_sha256
    FROM (SELECT storage_bucket, storage_id, artifact_id FROM storage_location
          WHERE (storage_bucket, storage_id) > (%(bucket)s, %(id)s) AND storage_bucket >= %(low)s AND storage_bucket < %(high)s
          ORDER BY storage_bucket, storage_id LIMIT %(limit)s) l
    LEFT JOIN artifact a ON a.id = l.artifact_id ORDER BY l.storage_bucket, l.storage_id
"""
_STANDING_SQL = f"""
    SELECT {ARTIFACT_COLUMNS}, p.bucket, p.id,
        {{kept}},
        (SELECT f.first_seen_at FROM validation_finding f WHERE f.policy = %(policy)s AND f.storage_bucket = p.bucket
            AND f.storage_id = p.id AND f.state = 'open')
    FROM unnest(%(buckets)s::text[], %(ids)s::text[]) AS p(bucket, id)
    LEFT JOIN storage_location l ON l.storage_bucket = p.bucket AND l.storage_id = p.id
    LEFT JOIN artifact a ON a.id = l.artifact_id
"""
_NAMED_SQL = f"""
    SELECT {ARTIFACT_COLUMNS}, l.storage_id, l.storage_bucket
    FROM artifact a LEFT JOIN storage_location l ON l.artifact_id = a.id WHERE a.id = ANY(%(ids)s)
    UNION ALL
    SELECT {ARTIFACT_COLUMNS}, l.storage_id, l.storage_bucket
    FROM artifact a LEFT JOIN storage_location l ON l.artifact_id = a.id WHERE a.uri = ANY(%(uris)s)
"""
_UNSTORED_SQL = """
    SELECT a.id, a.uri FROM artifact a WHERE a.id > %(after)s
        AND NOT EXISTS (SELECT FROM storage_location l WHERE l.artifact_id = a.id)
        AND NOT EXISTS (SELECT FROM deleted_storage_location_event e WHERE e.id = a.id) ORDER BY a.id LIMIT %(limit)s
"""
_ENDS_SQL = "SELECT uri, max(deleted_at) FROM deleted_artifact_event WHERE uri = ANY(%(uris)s) GROUP BY uri"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the inventory says of one place now; `is_kept`: bytes without artifact that are accounted for."""

    here: ArtifactRow | None
    is_kept: bool
    first_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Names:
    """Artifacts and tombstones that objects name by their facts; `ends`: when something of that uri was last deleted."""

    by_id: dict[uuid.UUID, Known]
    by_uri: dict[str, Known]
    deleted: frozenset[uuid.UUID]
    ends: dict[str, datetime]

    def of(self, artifact_id: uuid.UUID, uri: str) -> Known | None:
        return self.by_id.get(artifact_id) or self.by_uri.get(uri)


def placed_artifacts(bucket_prefix: str) -> Iterator[Placed | ListingEnd]:
    """Artifacts stored in these buckets in order of their places, page by page, and the proof of the end.

    Raises `DatabaseUnavailableError` when a page did not arrive whole.
    """
    values = {"low": bucket_prefix, "high": prefix_upper_bound(bucket_prefix or "\x7e"), "limit": PAGE}
    # The scan begins where the cursor says, not at the lower bound: an empty cursor would read all before it.
    count, bucket, storage_id = 0, bucket_prefix, ""
    while True:
        page = _whole_page(_PLACED_SQL, values | {"bucket": bucket, "id": storage_id})
        # A location that a damaged database has without artifact says nothing; a page is as long as its locations all the same.
        placed = [Placed._make(row) for row in page if row[_PLACED_ARTIFACT] is not None]
        yield from placed
        count += len(placed)
        if len(page) < PAGE:
            yield ListingEnd(count)
            return
        bucket, storage_id = page[-1][:2]


def standings(policy: Policy, places: Sequence[Place]) -> dict[Place, Standing]:
    """What the inventory says of these places at this moment: one statement."""
    values = {"policy": policy.value, "buckets": [bucket for bucket, _ in places], "ids": [name for _, name in places]}
    found = {}
    for row in _whole_page(_STANDING_SQL.format(kept=_kept_sql()), values):
        here = artifact_from(row) if row[0] is not None else None
        found[row[_COLUMNS], row[_COLUMNS + 1]] = Standing(here, row[_COLUMNS + 2], row[_COLUMNS + 3])
    return found


def names(artifact_ids: Sequence[uuid.UUID], uris: Sequence[str]) -> Names:
    """The artifacts of these ids and uris, and which ids are tombstoned."""
    by_id: dict[uuid.UUID, Known] = {}
    by_uri: dict[str, Known] = {}
    for row in _whole_page(_NAMED_SQL, {"ids": list(artifact_ids), "uris": list(uris)}):
        location = Located(row[_COLUMNS], row[_COLUMNS + 1]) if row[_COLUMNS] is not None else None
        known = Known(artifact_from(row), location)
        by_id[known.artifact.id] = by_uri[known.artifact.uri] = known
    sql = "SELECT id FROM deleted_artifact_event WHERE id = ANY(%(ids)s)"
    deleted = frozenset(row[0] for row in _whole_page(sql, {"ids": list(artifact_ids)}))
    return Names(by_id, by_uri, deleted, dict(_whole_page(_ENDS_SQL, {"uris": list(uris)})))


def findings(
    *, state: str = "open", label: str = "", policy: str = "", bucket_prefix: str = "", after: int = 0
) -> QuerySet[ValidationFinding]:
    """In order of their numbers, behind `after`."""
    rows = ValidationFinding.objects.filter(state=state, id__gt=after).order_by("id")
    if label:
        rows = rows.filter(label=label)
    if policy:
        rows = rows.filter(policy=policy)
    return rows.filter(storage_bucket__startswith=bucket_prefix) if bucket_prefix else rows


def last_complete(policy: Policy) -> ValidationRun | None:
    """The last run over all buckets that reached its end."""
    complete = ValidationRun.objects.filter(policy=policy.value, bucket_prefix="", state=ValidationRun.State.COMPLETE)
    return complete.order_by("-finished_at").first()


def unstored_without_event(after: uuid.UUID) -> list[tuple[uuid.UUID, str]]:
    """A page of artifacts that are known and not stored here, and of which nothing says that they ever were, in order of ids."""
    return [(row[0], row[1]) for row in _whole_page(_UNSTORED_SQL, {"after": after, "limit": PAGE})]


def is_wanted_here() -> Callable[[str], bool]:
    """What the policy of this site says of a uri."""
    return current_policy().is_wanted


def removals_to_finish() -> list[uuid.UUID]:
    """Quarantined objects whose removal was decided and is not done."""
    removing = QuarantinedObject.objects.filter(state=QuarantinedObject.State.REMOVING).order_by("state_at")
    return list(removing.values_list("id", flat=True)[:PAGE])


def _kept_sql() -> str:
    """Whether one of the tables that may keep bytes without an artifact names the place."""
    return " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} k WHERE k.storage_bucket = p.bucket AND k.storage_id = p.id AND ({condition}))"
        for table, condition in settings.INVENTORY_BYTES_KEPT_BY
    )


def _whole_page(sql: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        if len(rows) != cursor.rowcount:
            raise DatabaseUnavailableError(f"the database sent {len(rows)} of {cursor.rowcount} rows")
    return rows
