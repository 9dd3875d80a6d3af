"""The decisions as a table; that the set-based statements decide the same; and the arithmetic of namespaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from datamodel.models import Artifact, DeletedArtifactEvent, HarvestRejection, RemoteInventory
from datamodel.queries import artifact_by_id
from datamodel.rows import insert_artifact, insert_tombstone
from datamodel.rules import ArtifactRow, meta_checksum_of
from datamodel.uris import Namespace, namespace_filter
from harvest import exchange
from harvest.rules import Known, Verdict, contradicts, narrowed, outlives, uncovered, verdict_at_global, verdict_at_site
from tests.factories import WHEN, artifact_row
from tests.fakes.feed import FakeInventory
from tests.harvest.selections import Wishes

SECOND = timedelta(seconds=1)


def updated(row: ArtifactRow, **changes: Any) -> ArtifactRow:
    changed = replace(row, **changes)
    return replace(changed, meta_checksum=meta_checksum_of(changed))


@dataclass(frozen=True)
class Case:
    """What is known before, made from the incoming row, and the verdict of each role."""

    name: str
    known: Callable[[ArtifactRow], Known]
    at_global: Verdict
    at_site: Verdict
    is_wanted: bool = True


def same_id(**changes: Any) -> Callable[[ArtifactRow], Known]:
    return lambda row: Known(same_id=updated(row, **changes))


def other_id(data: bytes, seconds: int, reaffirmed: int | None = None) -> Callable[[ArtifactRow], Known]:
    def known(row: ArtifactRow) -> Known:
        local = artifact_row(row.uri, data, content_last_modified=WHEN + seconds * SECOND)
        return Known(same_uri=local, reaffirmed_at=None if reaffirmed is None else WHEN + reaffirmed * SECOND)

    return known


CASES = (
    Case("new", lambda _: Known(), Verdict.INSERT, Verdict.INSERT),
    Case("unwanted", lambda _: Known(), Verdict.INSERT, Verdict.IGNORE, is_wanted=False),
    Case("equal", same_id(), Verdict.KEEP, Verdict.KEEP),
    Case("equal_unwanted", same_id(), Verdict.KEEP, Verdict.KEEP, is_wanted=False),
    Case("newer", same_id(meta_modified_at=WHEN - SECOND, content_type="a/b"), Verdict.UPDATE, Verdict.UPDATE),
    Case("older", same_id(meta_modified_at=WHEN + SECOND, content_type="a/b"), Verdict.OFFER, Verdict.KEEP),
    Case("later_but_equal", same_id(meta_modified_at=WHEN + SECOND), Verdict.KEEP, Verdict.KEEP),
    Case("tombstoned", lambda _: Known(is_tombstoned=True), Verdict.SKIP, Verdict.SKIP),
    Case("wins", other_id(b"other", -1), Verdict.REPLACE, Verdict.REPLACE),
    Case("wins_same", other_id(b"content", -1), Verdict.REPLACE, Verdict.REPLACE),
    Case("loses", other_id(b"other", 1), Verdict.REFUSE, Verdict.REFUSE),
    Case("loses_same", other_id(b"content", 1), Verdict.REFUSE, Verdict.REFUSE),
    Case("other_length", same_id(content_length=99), Verdict.REJECT, Verdict.REJECT),
    Case("other_sha", same_id(content_sha256=b"x" * 32), Verdict.REJECT, Verdict.REJECT),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_verdict_of_each_role(case: Case) -> None:
    incoming = artifact_row()
    known = case.known(incoming)
    assert verdict_at_global(incoming, known) is case.at_global
    assert verdict_at_site(incoming, known, is_kept=case.is_wanted) is case.at_site


def test_a_tie_of_updates_is_broken_by_the_checksum_alike_on_both_sides() -> None:
    one, other = artifact_row(content_type="a/b"), artifact_row()
    other = updated(one, content_type="c/d")
    verdicts = [verdict_at_site(a, Known(same_id=b), is_kept=True) for a, b in ((one, other), (other, one))]
    assert sorted(verdict.name for verdict in verdicts) == ["KEEP", "UPDATE"]


@pytest.mark.parametrize(
    ("reaffirmed", "verdict"),
    [(None, Verdict.REPLACE), (-1, Verdict.REPLACE), (0, Verdict.REPLACE), (1, Verdict.RENEW)],
)
def test_a_winner_older_than_the_last_put_here_does_not_replace_it(reaffirmed: int | None, verdict: Verdict) -> None:
    known = other_id(b"other", -1, reaffirmed)(artifact_row())
    assert verdict_at_site(artifact_row(), known, is_kept=True) is verdict


def test_every_verdict_is_in_the_table() -> None:
    assert len(CASES) == 14
    assert {case.at_global for case in CASES} | {case.at_site for case in CASES} | {Verdict.RENEW} == set(Verdict)


def test_a_missing_sha256_contradicts_nothing() -> None:
    row = artifact_row()
    assert not contradicts(row, replace(row, content_sha256=None))
    assert contradicts(row, replace(row, content_sha256=b"x" * 32))


def test_only_a_later_put_outlives_a_deletion() -> None:
    now = datetime.now(UTC)
    assert [outlives(at, now) for at in (None, now - SECOND, now, now + SECOND)] == [False, False, False, True]


def prepare(peer: FakeInventory) -> dict[str, tuple[ArtifactRow, Known, int]]:
    """Every case under a uri of its own, all of them in one page."""
    prepared = {}
    for case in CASES:
        incoming = artifact_row(f"{'cadc' if case.is_wanted else 'other'}:{case.name}")
        known = case.known(incoming)
        local = known.same_id or known.same_uri
        if local is not None:
            insert_artifact(local, None)
        if known.is_tombstoned:
            insert_tombstone(incoming.id, incoming.uri, deleted_at=WHEN)
        peer.add_artifact(incoming, holder=str(peer.inventory_id))
        prepared[case.name] = (incoming, known, Artifact.objects.get(id=local.id).txid if local else 0)
    return prepared


def effect(incoming: ArtifactRow, known: Known, txid: int) -> Verdict | None:
    """What has become of a row, told from the tables alone."""
    ids = {row.id for row in (incoming, known.same_id, known.same_uri) if row is not None}
    present = {artifact.id: artifact for artifact in Artifact.objects.filter(id__in=ids)}
    dead = set(DeletedArtifactEvent.objects.filter(id__in=ids).values_list("id", flat=True))
    if HarvestRejection.objects.filter(row_id=incoming.id).exists():
        return Verdict.REJECT
    if known.same_uri is not None:
        replaced = (set(present), dead) == ({incoming.id}, {known.same_uri.id})
        refused = (set(present), dead) == ({known.same_uri.id}, {incoming.id})
        return Verdict.REPLACE if replaced else Verdict.REFUSE if refused else None
    if incoming.id not in present:
        return Verdict.SKIP if dead else Verdict.IGNORE
    if known.same_id is None:
        return Verdict.INSERT
    found = artifact_by_id(incoming.id)
    assert found is not None
    if found.artifact == replace(known.same_id, last_modified=found.artifact.last_modified):
        return Verdict.KEEP if present[incoming.id].txid == txid else Verdict.OFFER
    return Verdict.UPDATE if found.artifact.meta_checksum == incoming.meta_checksum else None


def test_the_statements_of_a_global_decide_as_the_rules_say(from_site: RemoteInventory, peer: FakeInventory) -> None:
    prepared = prepare(peer)
    assert exchange.harvest(from_site.name).is_complete
    assert {name: effect(row, known, txid) for name, (row, known, txid) in prepared.items()} == {
        case.name: case.at_global for case in CASES
    }


def test_the_statements_of_a_site_decide_as_the_rules_say(
    from_global: RemoteInventory, peer: FakeInventory, policy: Wishes
) -> None:
    prepared = prepare(peer)
    peer._is_asked_for = lambda stream, row, query: True  # type: ignore[method-assign]
    assert exchange.harvest(from_global.name).is_complete
    assert {name: effect(row, known, txid) for name, (row, known, txid) in prepared.items()} == {
        case.name: case.at_site for case in CASES
    }


paths = st.lists(st.sampled_from(["a/", "b/", "c/"]), max_size=3).map("".join)
namespaces = st.lists(paths.map(lambda path: Namespace.parse(f"cadc:{path}")), max_size=4)
names = paths.map(lambda path: f"cadc:{path}file")


@given(covers=namespaces, wanted=namespaces, name=names)
def test_narrowed_is_the_overlap_and_uncovered_the_rest(
    covers: list[Namespace], wanted: list[Namespace], name: str
) -> None:
    def within(candidates: list[Namespace]) -> bool:
        return any(name.startswith(candidate.value) for candidate in candidates)

    kept = narrowed(covers, wanted)
    assert within(kept) == (within(covers) and within(wanted))
    assert kept == namespace_filter(kept)
    missing = uncovered(wanted, kept)
    assert within([*kept, *missing]) == within(wanted)
