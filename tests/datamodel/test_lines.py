"""Whole listings: all of it once and in order, whatever its pages; few of them at a time, and none for who has gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from django.db import OperationalError, connection

from datamodel import lines
from datamodel.queries import PAGE_END, rows_in_ranges
from datamodel.reach import EVERYWHERE, NOWHERE, Range, Reach
from tests.factories import artifact_row, insert_artifact_row

pytestmark = pytest.mark.usefixtures("inventory")

SQL = f"SELECT a.uri, a.content_length FROM artifact a WHERE a.uri >= r.low AND a.uri < r.high {PAGE_END}"
URIS = [f"cadc:{namespace}/{number:02}" for namespace in "ABC" for number in range(9)]
MANY_RANGES = Reach.of_prefixes(uri for uri in URIS if not uri.endswith("4"))


def add(*uris: str) -> None:
    for uri in uris:
        insert_artifact_row(artifact_row(uri=uri))


def listed(*, prefix: str = "", readable: Reach = EVERYWHERE, limit: int = 2) -> list[str]:
    return uris_of(lines.json_lines(SQL, prefix, readable, limit=limit))


def uris_of(pages: Iterable[bytes]) -> list[str]:
    return [json.loads(line)["uri"] for line in b"".join(pages).splitlines()]


def is_page(sql: str) -> bool:
    return sql.startswith("SELECT p.uri")


def watched(monkeypatch: pytest.MonkeyPatch, before: Callable[[str, Sequence[Range]], None]) -> list[int]:
    """What is fetched from now on, in rows; `before` hears of it first."""
    sizes: list[int] = []

    def fetch(sql: str, ranges: Sequence[Range], **rest: Any) -> list[tuple[Any, ...]]:
        before(sql, ranges)
        rows = rows_in_ranges(sql, ranges, **rest)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(lines, "rows_in_ranges", fetch)
    return sizes


@pytest.mark.parametrize("limit", [2, 3, 4, 26, 27, 28, 1000])
def test_each_artifact_is_a_line_once_and_in_order_whatever_the_pages(limit: int) -> None:
    add(*reversed(URIS))
    assert listed(limit=limit) == URIS
    assert listed(limit=limit, prefix="cadc:B/") == URIS[9:18]
    assert listed(limit=limit, readable=MANY_RANGES) == [uri for uri in URIS if not uri.endswith("4")]
    assert listed(limit=limit, readable=MANY_RANGES, prefix="cadc:C/") == [u for u in URIS[18:] if u[-1] != "4"]
    assert listed(limit=limit, prefix="cadc:D/") == listed(limit=limit, readable=NOWHERE) == []


def test_what_came_after_its_page_was_measured_is_listed_and_no_page_is_larger_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(*URIS)
    late = [f"cadc:B/05{letter}" for letter in "abcdefghijklm"]

    def fill(sql: str, ranges: Sequence[Range]) -> None:
        if is_page(sql) and "cadc:B/05" in Reach(tuple(ranges)) and ranges[0][0] and not added:
            added.update(late)
            add(*late)
            connection.close()

    added: set[str] = set()
    sizes = watched(monkeypatch, fill)
    assert listed(limit=4) == sorted([*URIS, *late])
    assert max(sizes) == 4


def test_a_page_that_fails_ends_the_lines_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    add(*URIS)

    def fail(sql: str, ranges: Sequence[Range]) -> None:
        if is_page(sql) and "cadc:B/05" in Reach(tuple(ranges)) and ranges[0][0]:
            raise OperationalError("the database went away")

    watched(monkeypatch, fail)
    seen: list[bytes] = []
    with pytest.raises(OperationalError, match="went away"):
        seen.extend(lines.json_lines(SQL, "", EVERYWHERE, limit=3))
    assert uris_of(seen) == URIS[:13]


def test_for_who_is_slow_or_has_gone_only_a_few_pages_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    add(*URIS)
    measured: list[Sequence[Range]] = []
    watched(monkeypatch, lambda sql, ranges: None if is_page(sql) else measured.append(ranges))
    rest = lines.json_lines(SQL, "", EVERYWHERE, limit=2)
    assert uris_of([next(rest)]) == URIS[:2]
    assert not measured
    assert uris_of([next(rest)]) == URIS[2:3]
    assert len(measured) == lines._AHEAD
    rest.close()
    assert len(measured) == lines._AHEAD
