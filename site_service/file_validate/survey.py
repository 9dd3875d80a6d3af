"""One bucket looked at twice: the merge says what might differ, then each place is asked again, on both sides.

Both sides move while they are read. An artifact without object is believed only when the store itself says that this very id is
missing, and the inventory still says that it is there; an object without artifact only when no row of any kind names it now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from django.conf import settings
from django.db import connection

from datamodel.errors import StoredObjectMissingError
from datamodel.rows import database_now
from site_service.file_validate import queries
from site_service.file_validate.merge import Compared, Found, Pair, Placed, compare
from site_service.file_validate.queries import Names, Standing
from site_service.file_validate.rules import Case, Label, Policy, Verdict, judge
from site_service.storage.contract import ArtifactStore, ListingEnd, StoredObject
from site_service.storage.listings import Place

_AT_ONCE = 500

Rows = Callable[[str], Iterable[Placed | ListingEnd]]


@dataclass(frozen=True, slots=True)
class Difference:
    """One finding before it is recorded."""

    place: Place
    verdict: Verdict
    case: Case

    @property
    def detail(self) -> str:
        """What differs, in words for the operator."""
        found, here = self.case.found, self.case.here
        if found is None:
            return "the store has no such object"
        if not isinstance(found, StoredObject):
            return found.reason
        if here is not None:
            return f"inventory: {here.content_length} bytes {here.content_checksum}; object: {_content(found)}"
        known = self.case.named
        if known is None:
            deleted = "; its id is tombstoned" if self.case.is_deleted else ""
            return f"no artifact of its id or uri; object: {_content(found)}, {found.written_at.isoformat()}{deleted}"
        where = f"stored at {known.location.storage_id}" if known.location is not None else "not stored"
        return f"artifact {known.artifact.id} {known.artifact.content_checksum} is {where}; object: {_content(found)}"


@dataclass(frozen=True, slots=True)
class Survey:
    """What a bucket held and what differs; counts are by label, valid ones included."""

    compared: Compared
    counts: dict[str, int]
    differences: list[Difference]


def survey_bucket(
    *, store: ArtifactStore, policy: Policy, bucket: str, grace: timedelta, rows: Rows = queries.placed_artifacts
) -> Survey:
    """Compare one bucket; changes nothing. Raises `StorageError`, `DatabaseUnavailableError`: then nothing is concluded."""
    compared = compare(rows(bucket), store.listing(bucket))
    differences = list(_judged(store, policy, compared.suspects, grace))
    counts = Counter(difference.verdict.label.value for difference in differences)
    counts[Label.VALID.value] = compared.objects - sum(one.case.found is not None for one in differences)
    return Survey(compared, dict(counts), differences)


def case_of(found: Found | None, standing: Standing, names: Names, *, older_than: datetime) -> Case | None:
    """One place as both sides see it; None when it is accounted for without an artifact."""
    if standing.here is not None:
        return Case(standing.here, found)
    if standing.is_kept or found is None:
        return None
    if not isinstance(found, StoredObject):
        return Case(None, found, is_young=standing.first_seen_at is None or standing.first_seen_at > older_than)
    facts = found.facts
    return Case(
        None,
        found,
        named=names.of(facts.artifact_id, facts.uri),
        is_young=found.written_at > older_than,
        is_deleted=facts.artifact_id in names.deleted,
        is_outlived=facts.uri in names.ends and names.ends[facts.uri] >= found.written_at,
    )


def look(store: ArtifactStore, storage_id: str) -> Found | None:
    """What the store has under this very id; None only if it says that there is none. Raises `StorageUnavailableError`."""
    try:
        return store.stat(storage_id)
    except StoredObjectMissingError:
        return None


def names_of(found: Iterable[Found | None]) -> Names:
    """What the inventory has under the ids and uris that objects carry."""
    facts = [one.facts for one in found if isinstance(one, StoredObject)]
    return queries.names([one.artifact_id for one in facts], [one.uri for one in facts])


def grace_configured() -> timedelta:
    """How long an object may be without a row."""
    return timedelta(seconds=settings.INVENTORY_VALIDATE_GRACE_SECONDS)


def _judged(store: ArtifactStore, policy: Policy, suspects: Sequence[Pair], grace: timedelta) -> Iterator[Difference]:
    waiting = iter(suspects)
    while batch := list(islice(waiting, _AT_ONCE)):
        kept = _accounted_for(policy, [pair.place for pair in batch if pair.here is None])
        connection.close()
        objects = {pair.place: look(store, pair.place[1]) for pair in batch if pair.place not in kept}
        standing = queries.standings(policy, list(objects))
        names = names_of(objects.values())
        older_than = database_now() - grace
        for place, found in objects.items():
            case = case_of(found, standing[place], names, older_than=older_than)
            verdict = judge(policy, case) if case is not None else None
            if case is not None and verdict is not None and verdict.label is not Label.VALID:
                yield Difference(place, verdict, case)


def _accounted_for(policy: Policy, places: Sequence[Place]) -> set[Place]:
    """Objects without artifact that other rows keep, most of them retired: they need no second look."""
    return {place for place, standing in queries.standings(policy, places).items() if standing.is_kept}


def _content(found: StoredObject) -> str:
    checksums = ", ".join(f"{name}:{digits}" for name, digits in sorted(found.checksums.items()))
    return f"{found.length} bytes {checksums}"
