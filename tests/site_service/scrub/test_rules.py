"""The schedule: which rule, when, how much, in which hours."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from site_service.scrub import rules
from site_service.scrub.rules import FILE_COST, Due, Hours, Rule, Schedule

NOW = datetime(2026, 11, 21, 4, 30, tzinfo=UTC)
DAY = 24 * 3600


def test_the_longest_namespace_decides_and_without_one_the_settings() -> None:
    default, cadc, deep = Rule("", 90, 1), Rule("cadc:", 30, 1), Rule("cadc:CFHT/", 0, 1)
    schedule = Schedule(default, [cadc, deep])
    asked = ["cadc:CFHT/a.fits", "cadc:CFHTX/a.fits", "cadc:a", "mast:HST/a", "cadc:CFHT/deep/er/a"]
    assert [schedule.rule_for(uri) for uri in asked] == [deep, cadc, cadc, default, deep]
    assert schedule.rules == [default, cadc, deep]
    assert schedule.open_rules(NOW) == [default, cadc]


def test_only_what_decides_when_a_copy_is_read_makes_another_schedule() -> None:
    one = Schedule(Rule("", 90, 1), [Rule("cadc:", 30, 1)])
    assert one.digest == Schedule(Rule("", 90, 7, Hours(1, 2)), [Rule("cadc:", 30, 5)]).digest
    assert one.digest != Schedule(Rule("", 91, 1), [Rule("cadc:", 30, 1)]).digest
    assert one.digest != Schedule(Rule("", 90, 1)).digest


@pytest.mark.parametrize(
    ("text", "hour", "holds"),
    [
        ("", 4, True),
        ("22-6", 4, True),
        ("22-6", 6, False),
        ("22-6", 22, True),
        ("22-6", 12, False),
        ("2-5", 4, True),
        ("2-5", 5, False),
        ("2-5", 1, False),
        ("0-24", 23, True),
        ("20-24", 23, True),
        ("20-24", 0, False),
    ],
)
def test_hours_hold_from_the_first_until_before_the_last(text: str, hour: int, *, holds: bool) -> None:
    assert Hours.parse(text).hold(NOW.replace(hour=hour)) is holds


@pytest.mark.parametrize("text", ["22", "22-25", "a-b", "-6", "22-6h"])
def test_hours_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="22-6"):
        Hours.parse(text)


def test_a_burst_of_copies_is_read_evenly_over_the_period_and_each_at_its_own_moment_again() -> None:
    period = 100 * DAY
    ids = [uuid.UUID(int=number) for number in range(2000)]
    first = [rules.next_reading(one, verified_at=NOW, period_seconds=period) for one in ids]
    assert all(when is not None and NOW < when <= NOW + timedelta(seconds=period) for when in first)
    per_tenth = [0] * 10
    for when in first:
        assert when is not None
        per_tenth[min(9, int((when - NOW).total_seconds() / period * 10))] += 1
    assert min(per_tenth) > 150
    assert max(per_tenth) < 250
    for one, when in zip(ids, first, strict=True):
        assert when is not None
        late = when + timedelta(days=3)
        again = rules.next_reading(one, verified_at=late, period_seconds=period)
        assert again is not None
        assert abs(again - (when + timedelta(seconds=period))) < timedelta(seconds=1)


def test_without_a_period_nothing_is_read() -> None:
    assert rules.next_reading(uuid.uuid4(), verified_at=NOW, period_seconds=0) is None


def test_the_next_reading_is_later_than_the_last_even_on_the_very_moment() -> None:
    identity = uuid.uuid4()
    when = NOW
    for _ in range(50):
        following = rules.next_reading(identity, verified_at=when, period_seconds=3)
        assert following is not None
        assert when < following <= when + timedelta(seconds=3, milliseconds=1)
        when = following


def test_a_run_takes_the_head_as_far_as_the_budget_goes_and_at_least_one() -> None:
    due = [Due(uuid.uuid4(), size) for size in (1000, 10_000_000, 5, 6)]
    assert rules.plan_run(due, limit=0) == due[:1]
    assert rules.plan_run(due, limit=5000) == due[:1]
    assert rules.plan_run(due, limit=1000 + 10_000_000 + 2 * FILE_COST) == due[:2]
    assert rules.plan_run(due, limit=None) == due
    assert rules.plan_run([], limit=100) == []
    assert len(rules.plan_run([Due(uuid.uuid4(), 0)] * 5000, limit=None)) == rules.RUN_FILES


def test_tiny_files_cost_their_opening() -> None:
    due = [Due(uuid.uuid4(), 1)] * 100
    assert len(rules.plan_run(due, limit=10 * FILE_COST)) == 9


def test_a_budget_is_bandwidth_times_time() -> None:
    assert rules.budget(Rule("", 1, 1000), seconds=60) == 60_000
    assert rules.budget(Rule("", 1, 0), seconds=60) is None


def test_differing_digests_are_named() -> None:
    assert rules.differing({"md5": "aa", "sha-256": "bb"}, {"md5": "aa", "sha-256": "bb"}) == []
    assert rules.differing({"md5": "aa", "sha-256": "bb"}, {"md5": "ab", "sha-256": "bc"}) == ["md5", "sha-256"]


@pytest.mark.parametrize(
    ("reason", "hopeless"),
    [
        ("no_source", True),
        ("checksum_mismatch", True),
        ("remote_refused", True),
        ("no_digest", True),
        ("remote_unavailable", False),
        ("storage_full", False),
        ("no_free_space", False),
        ("unexpected", False),
    ],
)
def test_a_failed_repair_is_an_alarm_when_no_good_copy_is_to_be_had(reason: str, *, hopeless: bool) -> None:
    assert rules.tells_no_copy(reason) is hopeless
