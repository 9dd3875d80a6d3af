"""Decisions of file sync as tables."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from site_service.file_sync.rules import (
    Due,
    Source,
    has_room,
    is_due,
    order_sources,
    plan_batches,
    retry_seconds,
    share,
    verifiable,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_sources_keep_the_globals_order_without_this_site_and_with_failing_sites_last() -> None:
    urls = ["http://a/files/x", "http://me/files/x", "http://b/files/x", "http://a/files/x", "http://meme/files/x"]
    ranked = order_sources([Source(url, url[7:].partition("/")[0]) for url in urls], own_url="http://me", failing={"a"})
    assert [source.site for source in ranked] == ["b", "meme", "a"]


@pytest.mark.parametrize(
    ("due", "among", "files"),
    [(0, 8, 50), (49, 1, 50), (51, 1, 51), (400, 8, 50), (401, 8, 51), (1600, 8, 200), (200, 1, 200), (9999, 2, 200)],
)
def test_a_batch_is_a_share_of_what_is_due_neither_a_crumb_nor_everything(due: int, among: int, files: int) -> None:
    assert share(due, among=among, least=50, most=200) == files


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [
        ([], []),
        ([1, 1, 1], [[1, 1, 1]]),
        ([1, 1, 1, 1], [[1, 1, 1], [1]]),
        ([6, 4, 1], [[6, 4], [1]]),
        ([6, 5], [[6], [5]]),
        ([99, 1, 99], [[99], [1], [99]]),
        ([0, 0, 0, 0], [[0, 0, 0], [0]]),
    ],
)
def test_batches_are_bounded_in_files_and_bytes(sizes: list[int], batches: list[list[int]]) -> None:
    due = [Due(uuid.uuid4(), size) for size in sizes]
    planned = list(plan_batches(due, max_files=3, max_bytes=10))
    assert [[row.content_length for row in batch] for batch in planned] == batches


@given(st.lists(st.integers(0, 30)))
def test_batches_keep_the_order_and_lose_nothing(sizes: list[int]) -> None:
    due = [Due(uuid.uuid4(), size) for size in sizes]
    planned = list(plan_batches(due, max_files=4, max_bytes=20))
    assert [row for batch in planned for row in batch] == due
    assert all(len(batch) <= 4 and (len(batch) == 1 or sum(r.content_length for r in batch) <= 20) for batch in planned)


@pytest.mark.parametrize(
    ("attempts", "is_retryable", "chance", "seconds"),
    [
        (1, True, 0.0, 1.0),
        (1, True, 0.999999, 2.0),
        (4, True, 0.0, 8.0),
        (40, True, 0.999999, 900.0),
        (1, False, 0.0, 5.0),
        (3, False, 0.0, 20.0),
        (10**9, False, 0.999999, 3600.0),
        (0, True, 0.0, 1.0),
    ],
)
def test_the_wait_doubles_with_jitter_up_to_a_cap(
    attempts: int, is_retryable: bool, chance: float, seconds: float
) -> None:
    assert retry_seconds(attempts, is_retryable=is_retryable, chance=chance) == pytest.approx(seconds, rel=1e-4)


@pytest.mark.parametrize(
    ("free", "mark", "length", "room"),
    [(None, 100, 10**18, True), (100, 100, 0, True), (99, 100, 0, False), (150, 100, 50, True), (150, 100, 51, False)],
)
def test_room_is_what_is_free_above_the_mark(free: int | None, mark: int, length: int, room: bool) -> None:
    assert has_room(free, mark=mark, length=length) is room


@pytest.mark.parametrize(
    ("next_try", "lease", "due"),
    [
        (NOW, None, True),
        (NOW + SECOND, None, False),
        (NOW - SECOND, NOW + SECOND, False),
        (NOW - SECOND, NOW, True),
        (NOW + SECOND, NOW - SECOND, False),
    ],
)
def test_a_row_is_due_at_its_time_unless_leased(next_try: datetime, lease: datetime | None, due: bool) -> None:
    assert is_due(next_try, lease, NOW) is due


def test_digests_that_can_be_verified() -> None:
    sha256 = hashlib.sha256(b"x").digest()
    md5 = "md5:" + hashlib.md5(b"x").hexdigest()
    assert [str(one) for one in verifiable(md5, None)] == [md5]
    assert [one.algorithm for one in verifiable(md5, sha256)] == ["md5", "sha-256"]
    assert [one.algorithm for one in verifiable(f"sha-256:{sha256.hex()}", sha256)] == ["sha-256"]
    assert [one.algorithm for one in verifiable("adler:1234", sha256)] == ["sha-256"]
    assert verifiable("adler:1234", None) == ()
