"""Which snapshots a schedule keeps, and what a digest says."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

import datamodel
from datamodel.snapshots.rules import (
    MOVES,
    Change,
    Entry,
    Keep,
    State,
    change_of,
    differing,
    is_name,
    kept_moments,
    stored_tree,
    total_of,
    tree_from,
    tree_of,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


CASES = {
    "nothing is kept of nothing": (Keep(hourly=1), [], []),
    "of an hour the first stays": (
        Keep(hourly=2),
        ["2026-01-01T10:05", "2026-01-01T10:00", "2026-01-01T11:30"],
        ["2026-01-01T10:00", "2026-01-01T11:30"],
    ),
    "only the latest so many hours that have any": (
        Keep(hourly=2),
        ["2026-01-01T08:00", "2026-01-01T10:00", "2026-01-01T15:00"],
        ["2026-01-01T10:00", "2026-01-01T15:00"],
    ),
    "a day begins at midnight UTC, also when clocks elsewhere are changed": (
        Keep(daily=2),
        ["2026-03-28T23:59", "2026-03-29T00:00", "2026-03-29T01:30", "2026-03-29T23:59"],
        ["2026-03-28T23:59", "2026-03-29T00:00"],
    ),
    "one snapshot may stand for its hour, day, month and year": (
        Keep(hourly=1, daily=1, monthly=1, yearly=1),
        ["2026-01-01T00:00"],
        ["2026-01-01T00:00"],
    ),
    "each period keeps its own": (
        Keep(hourly=1, daily=1, monthly=1, yearly=1),
        ["2025-07-01T00:00", "2026-01-05T00:00", "2026-02-03T00:00", "2026-02-07T01:00", "2026-02-07T09:00"],
        ["2026-01-05T00:00", "2026-02-03T00:00", "2026-02-07T01:00", "2026-02-07T09:00"],
    ),
    "a leap day is a day": (Keep(daily=1), ["2028-02-28T12:00", "2028-02-29T12:00"], ["2028-02-29T12:00"]),
    "nothing is asked to be kept": (Keep(), ["2026-01-01T00:00"], []),
}


@pytest.mark.parametrize("case", CASES)
def test_thinning_keeps_the_first_of_each_of_the_latest_periods(case: str) -> None:
    keep, given_moments, expected = CASES[case]
    assert kept_moments(map(at, given_moments), keep) == frozenset(map(at, expected))


def test_every_case_of_thinning_is_one_of_its_own() -> None:
    assert len(CASES) == 8


@given(
    hours=st.sets(st.integers(0, 24 * 800), max_size=60),
    keep=st.builds(Keep, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)),
)
def test_thinning_again_removes_nothing_and_later_snapshots_never_make_it_miss_one(hours: set[int], keep: Keep) -> None:
    moments = sorted(START + timedelta(hours=hour, minutes=7) for hour in hours)
    at_once = kept_moments(moments, keep)
    assert kept_moments(at_once, keep) == at_once
    left: frozenset[datetime] = frozenset()
    for moment in moments:
        left = kept_moments(left | {moment}, keep)
    assert left == at_once


@pytest.mark.parametrize(
    ("keep", "period"),
    [
        (Keep(hourly=1, yearly=1), "2026-11-21T05Z"),
        (Keep(daily=1, monthly=1), "2026-11-21"),
        (Keep(monthly=1), "2026-11"),
        (Keep(yearly=1), "2026"),
        (Keep(), ""),
    ],
)
def test_a_snapshot_is_due_once_in_the_shortest_period(keep: Keep, period: str) -> None:
    assert keep.period_of(at("2026-11-21T05:59")) == period


def entry(name: str, length: int = 1) -> Entry:
    return Entry(uuid.uuid5(uuid.NAMESPACE_URL, name), f"cadc:{name}", f"md5:{length}", None, length, None, None, START)


def test_a_digest_does_not_depend_on_order_and_sees_every_difference() -> None:
    entries = [entry(f"A/{number}", number) for number in range(50)]
    tree = tree_of(entries)
    assert tree_of(reversed(entries)) == tree == tree_from(stored_tree(tree))
    assert (total_of(tree).count, total_of(tree).size) == (50, sum(range(50)))
    for changed in (
        replace(entries[7], id=uuid.uuid4()),
        replace(entries[7], content_checksum="md5:x"),
        replace(entries[7], content_length=8),
    ):
        assert len(differing(tree, tree_of([*entries[:7], changed, *entries[8:]]))) == 1
    assert differing(tree, tree_of(entries[:7] + entries[8:])) != []
    assert tree_of([replace(each, content_sha256=b"x" * 32) for each in entries]) == tree


def test_what_became_of_a_uri_has_four_names() -> None:
    one, same, other = entry("A"), replace(entry("A"), id=uuid.uuid4()), entry("A", 2)
    assert [change_of(None, one), change_of(one, None), change_of(one, other), change_of(one, same)] == [
        Change.ADDED,
        Change.REMOVED,
        Change.CHANGED,
        Change.RENEWED,
    ]


@pytest.mark.parametrize(
    ("name", "good"),
    [("a", True), ("2026-01-31T12Z", True), ("", False), ("a/b", False), ("a:b", False), ("-a", False)],
)
def test_names_fit_into_a_path(name: str, *, good: bool) -> None:
    assert is_name(name) is good


def test_the_readme_tells_the_moves_between_states() -> None:
    text = (Path(datamodel.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(pinning|kept|released)` \| ([^|]*) \|", text, re.MULTILINE))
    assert {State(name): {State(word) for word in re.findall("[a-z]+", told)} for name, told in rows.items()} == MOVES
