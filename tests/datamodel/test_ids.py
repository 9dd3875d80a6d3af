"""Identifiers: spread where rows are divided, together where indexes grow."""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from datetime import timedelta

import pytest

from datamodel.ids import new_id

_SECOND = 10**9


def test_an_id_is_a_uuid_of_version_8_of_which_no_two_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000 * _SECOND)
    made = [new_id() for _ in range(50_000)]
    assert len(set(made)) == len(made)
    assert {one.hex[12] for one in made} == {"8"}
    assert {one.variant for one in made} == {uuid.RFC_4122}


def test_each_of_its_bits_that_is_not_of_the_time_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    ones = [new_id().int for _ in range(200)]
    seen = zeros = 0
    for one in ones:
        seen |= one
        zeros |= ~one
    both = seen & zeros
    # 12 before the time, then 12 and 62 around the version and the variant.
    assert both == 0xFFF << 116 | 0xFFF << 64 | (1 << 62) - 1


def test_ids_are_spread_evenly_over_what_their_first_three_digits_divide() -> None:
    count = 16_384
    for digits in ((0, 2), (1, 3)):
        parts = Counter(new_id().hex[slice(*digits)] for _ in range(count))
        assert len(parts) == 256
        assert max(parts.values()) < 2 * count / 256


@pytest.mark.parametrize("later", [timedelta(milliseconds=1), timedelta(hours=1), timedelta(days=200)])
def test_of_one_part_what_is_made_later_follows(monkeypatch: pytest.MonkeyPatch, later: timedelta) -> None:
    start = _start_of_a_period()
    monkeypatch.setattr(os, "urandom", lambda length: b"\xab" * length)
    monkeypatch.setattr(time, "time_ns", lambda: start)
    first = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: start + later // timedelta(microseconds=1) * 1000)
    second = new_id()
    assert first < second
    assert first.hex[:3] == second.hex[:3] == "aba"


def test_after_a_period_ids_come_between_those_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    start = _start_of_a_period()
    monkeypatch.setattr(os, "urandom", lambda length: b"\xab" * length)
    made = []
    for moment in (start, start + 2**54 + _SECOND, start + 3600 * _SECOND):
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
        made.append(new_id())
    assert sorted(made) == made


def _start_of_a_period() -> int:
    """In nanoseconds."""
    return 1_800_000_000 * _SECOND // 2**54 * 2**54
