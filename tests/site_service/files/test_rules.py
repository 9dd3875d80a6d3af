"""Pure decisions about one request, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from site_service.files.rules import (
    MAX_PARTS,
    ReadConditions,
    ReadVerdict,
    Span,
    Unsatisfiable,
    choose_spans,
    is_active,
    judge_read,
    wanted_algorithms,
)

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
SECOND = WHEN.replace(microsecond=0)


@pytest.mark.parametrize(
    ("header", "length", "expected"),
    [
        ("bytes=3-99", 200, [(3, 97)]),
        (" bytes \t= 3 -   99 ", 200, [(3, 97)]),
        ("bytes=3-99", 50, [(3, 47)]),
        ("bytes=20-", 50, [(20, 30)]),
        ("bytes=20-50", 50, [(20, 30)]),
        ("BYTES=0-0", 50, [(0, 1)]),
        ("bytes=-2", 27, [(25, 2)]),
        ("bytes=-99", 50, [(0, 50)]),
        ("bytes=0-" + "9" * 40, 50, [(0, 50)]),
        ("bytes=2-4,6-8", 50, [(2, 3), (6, 3)]),
        ("bytes=6-8,2-4", 50, [(6, 3), (2, 3)]),
        ("bytes=2-4,,6-8,", 50, [(2, 3), (6, 3)]),
        ("bytes=0-3,2-9,-1", 50, [(0, 10), (49, 1)]),
        ("bytes=20-29,0-9,10-19", 50, [(0, 30)]),
        ("bytes=0-1,90-99", 50, [(0, 2)]),
    ],
)
def test_ranges_are_chosen(header: str, length: int, expected: list[tuple[int, int]]) -> None:
    chosen = choose_spans(header, length)
    assert isinstance(chosen, list)
    assert [(span.start, span.length) for span in chosen] == expected


@pytest.mark.parametrize(
    "header",
    [
        "nobyteunit=2-4",
        "bytes 2-4",
        "2 - 4",
        "bytes=9-7",
        "bytes=2:4",
        "bytes=",
        "bytes=a-b",
        "bytes=1-2,x",
        "bytes=--1",
    ],
)
def test_a_range_that_cannot_be_read_does_not_count(header: str) -> None:
    assert choose_spans(header, 50) is None


@pytest.mark.parametrize("header", ["bytes=30-40", "bytes=30-", "bytes=20-", "bytes=-0", "bytes=50-60,70-"])
def test_a_range_outside_is_unsatisfiable(header: str) -> None:
    assert choose_spans(header, 20) is Unsatisfiable.RANGE


def test_nothing_of_nothing_is_the_whole_for_a_suffix_only() -> None:
    assert choose_spans("bytes=-5", 0) is None
    assert choose_spans("bytes=0-", 0) is Unsatisfiable.RANGE


def test_more_than_sixteen_parts_are_answered_with_the_whole() -> None:
    many = ",".join(f"{4 * index}-{4 * index}" for index in range(MAX_PARTS))
    assert len(choose_spans(f"bytes={many}", 1000) or []) == MAX_PARTS  # type: ignore[arg-type]  # a list, if it is right
    assert choose_spans(f"bytes={many},900-", 1000) is None


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=40),
    st.integers(1, 50),
)
def test_chosen_parts_cover_what_was_asked_once_and_never_touch(pairs: list[tuple[int, int]], length: int) -> None:
    ordered = [(min(pair), max(pair)) for pair in pairs]
    chosen = choose_spans("bytes=" + ",".join(f"{a}-{b}" for a, b in ordered), length)
    asked = {place for a, b in ordered for place in range(a, min(b + 1, length))}
    if not asked:
        assert chosen is Unsatisfiable.RANGE
    elif chosen is not None:
        assert isinstance(chosen, list)
        covered = [place for span in chosen for place in range(span.start, span.stop)]
        assert sorted(covered) == sorted(asked)
        assert not {span.stop for span in chosen} & {span.start for span in chosen}


def test_span_length() -> None:
    assert Span(3, 7).length == 4


@pytest.mark.parametrize(
    ("conditions", "verdict"),
    [
        (ReadConditions(), ReadVerdict.SEND),
        (ReadConditions(if_match=('"a"',)), ReadVerdict.SEND),
        (ReadConditions(if_match=("*",)), ReadVerdict.SEND),
        (ReadConditions(if_match=('"b"',)), ReadVerdict.FAILED),
        (ReadConditions(if_match=('W/"a"',)), ReadVerdict.FAILED),
        (ReadConditions(if_unmodified_since=SECOND), ReadVerdict.SEND),
        (ReadConditions(if_unmodified_since=SECOND - timedelta(seconds=1)), ReadVerdict.FAILED),
        (ReadConditions(if_match=('"a"',), if_unmodified_since=SECOND - timedelta(days=1)), ReadVerdict.SEND),
        (ReadConditions(if_none_match=('"a"',)), ReadVerdict.NOT_MODIFIED),
        (ReadConditions(if_none_match=('W/"a"',)), ReadVerdict.NOT_MODIFIED),
        (ReadConditions(if_none_match=("*",)), ReadVerdict.NOT_MODIFIED),
        (ReadConditions(if_none_match=('"b"',), if_modified_since=SECOND), ReadVerdict.SEND),
        (ReadConditions(if_modified_since=SECOND), ReadVerdict.NOT_MODIFIED),
        (ReadConditions(if_modified_since=SECOND - timedelta(seconds=1)), ReadVerdict.SEND),
    ],
)
def test_conditional_reads(conditions: ReadConditions, verdict: ReadVerdict) -> None:
    assert judge_read(conditions, etag='"a"', last_modified=WHEN) is verdict


@pytest.mark.parametrize(
    ("wish", "chosen"),
    [
        ("", ["sha-256"]),
        ("md5=10", ["md5"]),
        ("md5=1, sha-256=9", ["sha-256", "md5"]),
        ("md5=9, sha-256=1", ["md5", "sha-256"]),
        ("sha-512=10", ["sha-256"]),
        ("sha-256=0", ["md5"]),
        ("sha-256=0, md5=0", []),
        ("nonsense", ["sha-256"]),
        ("SHA-256 = 3", ["sha-256"]),
    ],
)
def test_wanted_digests(wish: str, chosen: list[str]) -> None:
    assert wanted_algorithms(wish, ["sha-256", "md5"]) == chosen


@pytest.mark.parametrize(
    "kind",
    [
        "text/html",
        "TEXT/HTML; charset=utf-8",
        "image/svg+xml",
        "application/xhtml+xml",
        "text/xml",
        "application/pdf",
        "",
        None,
    ],
)
def test_what_could_act_in_a_browser_is_active(kind: str | None) -> None:
    assert is_active(kind)


@pytest.mark.parametrize("kind", ["text/plain", "image/png", "application/fits", "application/json", "video/mp4"])
def test_what_cannot_act_is_passive(kind: str) -> None:
    assert not is_active(kind)
