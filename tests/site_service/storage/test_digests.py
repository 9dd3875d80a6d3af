"""Hashing with and without a helper thread, and what is remembered of open put transactions."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing

import pytest

from datamodel.errors import InvalidChecksumError
from site_service.storage import digests
from site_service.storage.contract import ContentFacts
from site_service.storage.digests import DigestPlan, MeasuredContent, MultiHasher, RunningDigests
from site_service.storage.records import Segment, TransactionState
from tests.faults import BreakingSource

MIB = 1024 * 1024
KEPT = ("md5", "sha-256")


@pytest.fixture(params=["helper", "no helper"])
def slots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Helper slots of our own: one, or none at all."""
    free = 1 if request.param == "helper" else 0
    own = threading.Semaphore(free)
    monkeypatch.setattr(digests, "_helper_slots", own)
    yield own
    assert own._value == free
    assert not [thread for thread in threading.enumerate() if thread.name == "digest-helper"]


def test_long_content_is_hashed_alike_with_and_without_a_helper(slots: threading.Semaphore) -> None:
    block = bytes(range(256)) * 4096
    with closing(MultiHasher(KEPT)) as hasher:
        for _ in range(20):
            hasher.update(block)
        middle = hasher.copy()
        hasher.update(b"end")
        whole = block * 20 + b"end"
        expected = {"md5": hashlib.md5(whole).hexdigest(), "sha-256": hashlib.sha256(whole).hexdigest()}
        assert hasher.hexdigests() == expected
    with closing(middle):
        middle.update(b"end")
        assert middle.hexdigests() == expected
        assert middle.length == len(whole)


def test_a_broken_source_gives_the_helper_back(slots: threading.Semaphore) -> None:
    with pytest.raises(ValueError, match="broken"), closing(MultiHasher(KEPT)) as hasher:
        list(MeasuredContent(BreakingSource(b"x" * 20 * MIB, ValueError("broken")), None, hasher))


def test_the_result_is_there_only_after_the_end() -> None:
    measured = MeasuredContent(BreakingSource(b"", ValueError()), None, MultiHasher(KEPT))
    with pytest.raises(RuntimeError):
        _ = measured.result


PLANS = [
    (DigestPlan(), ("md5", "sha-256")),
    (DigestPlan(sha256=False), ("md5",)),
    (DigestPlan("sha-256"), ("sha-256",)),
    (DigestPlan("sha-512"), ("sha-512", "sha-256")),
]


@pytest.mark.parametrize(("plan", "kept"), PLANS)
def test_a_plan_keeps_the_content_algorithm_first_and_sha_256_beside_it(
    plan: DigestPlan, kept: tuple[str, ...]
) -> None:
    assert plan.kept == kept


def test_a_plan_of_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InvalidChecksumError):
        DigestPlan("crc32")


def _state(content: bytes) -> TransactionState:
    checksums = {"md5": hashlib.md5(content).hexdigest()}
    return TransactionState(ContentFacts(uuid.UUID(int=0), "a:b"), {}, (Segment(len(content), checksums),))


def _kept(content: bytes) -> RunningDigests:
    running, hasher = RunningDigests(), MultiHasher(KEPT)
    hasher.update(content)
    running.keep("key", hasher)
    return running


def test_a_remembered_hasher_is_resumed_as_a_copy() -> None:
    running = _kept(b"abc")
    for _ in range(2):
        resumed = running.resume("key", _state(b"abc"), MultiHasher(KEPT))
        assert resumed.length == 3
        resumed.update(b"more")


FORGOTTEN = {
    "another length": ("key", b"abcd", KEPT),
    "as many other bytes": ("key", b"xyz", KEPT),
    "another transaction": ("other", b"abc", KEPT),
    "one more algorithm": ("key", b"abc", (*KEPT, "sha-512")),
}


@pytest.mark.parametrize("case", list(FORGOTTEN))
def test_a_hasher_of_other_bytes_is_not_resumed(case: str) -> None:
    key, content, algorithms = FORGOTTEN[case]
    fresh = MultiHasher(algorithms)
    assert _kept(b"abc").resume(key, _state(content), fresh) is fresh


def test_only_so_many_transactions_are_remembered() -> None:
    running = RunningDigests()
    for number in range(300):
        running.keep(str(number), MultiHasher(KEPT))
    assert len(running._hashers) == 256
