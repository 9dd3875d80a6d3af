"""Bytes are read as slowly as asked, from the device, and judged for what they are."""

from __future__ import annotations

import hashlib
import os
import uuid
from io import BytesIO
from pathlib import Path

import pytest

from datamodel.errors import StorageUnavailableError
from site_service.scrub import reading
from site_service.scrub.reading import Expected, Pace, Verdict, examine
from site_service.scrub.rules import FILE_COST, Finding
from site_service.storage.contract import ArtifactStore, ContentFacts
from site_service.storage.filesystem import FilesystemStore
from site_service.storage.memory import MemoryStore
from tests.faults import flip_bit
from tests.site_service.scrub.conftest import no_beat

MEBIBYTE = 1024 * 1024


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def written(store: ArtifactStore, content: bytes) -> Expected:
    stored = store.write(BytesIO(content), ContentFacts(uuid.uuid4(), "cadc:TEST/file"))
    digests = {"md5": hashlib.md5(content).hexdigest(), "sha-256": hashlib.sha256(content).hexdigest()}
    return Expected(stored.storage_id, len(content), digests)


def judge(store: ArtifactStore, expected: Expected) -> Verdict:
    return examine(store, expected, pace=Pace(beat=no_beat), bytes_per_second=0)


@pytest.fixture
def disk(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore.create(tmp_path / "store")


def path_of(disk_root: Path, expected: Expected) -> Path:
    return disk_root / "store" / "objects" / expected.storage_id[:3] / expected.storage_id


@pytest.mark.parametrize("size", [0, 1, MEBIBYTE, 20 * MEBIBYTE + 3])
def test_good_bytes_are_good(disk: FilesystemStore, size: int) -> None:
    assert judge(disk, written(disk, os.urandom(size))) == Verdict(None)


def test_a_store_without_files_is_read_as_well() -> None:
    store = MemoryStore()
    expected = written(store, b"content")
    assert judge(store, expected).finding is None
    store.damage(expected.storage_id, b"cOntent")
    assert judge(store, expected).finding is Finding.DIGEST
    store.damage(expected.storage_id, b"short")
    assert judge(store, expected).finding is Finding.LENGTH


@pytest.mark.parametrize("offset", [0, 5 * MEBIBYTE, 10 * MEBIBYTE - 1])
def test_one_bit_is_enough(disk: FilesystemStore, tmp_path: Path, offset: int) -> None:
    expected = written(disk, os.urandom(10 * MEBIBYTE))
    flip_bit(path_of(tmp_path, expected), offset)
    verdict = judge(disk, expected)
    assert verdict.finding is Finding.DIGEST
    assert expected.checksums["md5"] in verdict.detail


def test_missing_and_short_are_told_apart(disk: FilesystemStore, tmp_path: Path) -> None:
    expected = written(disk, b"content")
    os.truncate(path_of(tmp_path, expected), 3)
    assert judge(disk, expected).finding is Finding.LENGTH
    assert reading.look(disk, expected).finding is Finding.LENGTH
    path_of(tmp_path, expected).unlink()
    assert judge(disk, expected).finding is Finding.MISSING
    assert reading.look(disk, expected).finding is Finding.MISSING


def test_a_store_that_is_not_there_is_no_finding(disk: FilesystemStore, tmp_path: Path) -> None:
    expected = written(disk, b"content")
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(StorageUnavailableError):
        judge(disk, expected)


def test_what_is_cached_of_a_file_is_dropped_before_and_after(
    disk: FilesystemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = written(disk, os.urandom(20 * MEBIBYTE))
    advices: list[tuple[int, int]] = []

    def advise(descriptor: int, start: int, length: int, advice: int) -> None:
        assert os.fstat(descriptor).st_size == 20 * MEBIBYTE
        assert advice == os.POSIX_FADV_DONTNEED
        advices.append((start, length))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    assert judge(disk, expected).finding is None
    assert advices == [(0, 0), (0, 8 * MEBIBYTE), (8 * MEBIBYTE, 8 * MEBIBYTE), (16 * MEBIBYTE, 4 * MEBIBYTE)]


def test_reading_keeps_to_its_bandwidth(disk: FilesystemStore) -> None:
    expected, time = written(disk, os.urandom(10 * MEBIBYTE)), FakeTime()
    pace = Pace(beat=no_beat, clock=time.clock, sleep=time.sleep)
    examine(disk, expected, pace=pace, bytes_per_second=MEBIBYTE)
    assert time.now - 100.0 == pytest.approx(10 + FILE_COST / MEBIBYTE)
    assert max(time.naps) <= 0.5


def test_idle_time_is_not_made_up_for() -> None:
    time = FakeTime()
    pace = Pace(beat=no_beat, clock=time.clock, sleep=time.sleep)
    time.now += 3600
    pace.spend(1000, 1000)
    assert time.now == pytest.approx(3701.0)


def test_no_limit_sleeps_never_and_the_heart_beats_with_every_block(disk: FilesystemStore) -> None:
    beats: list[None] = []
    time = FakeTime()
    pace = Pace(beat=lambda: beats.append(None), clock=time.clock, sleep=time.sleep)
    examine(disk, written(disk, os.urandom(3 * MEBIBYTE)), pace=pace, bytes_per_second=0)
    assert time.naps == []
    assert len(beats) == 4
