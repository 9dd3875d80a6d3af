"""Every store × every promise about put transactions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from datamodel.errors import (
    ChecksumMismatchError,
    ShortBodyError,
    StateConflictError,
    TransactionNotFoundError,
)
from site_service.storage.contract import (
    ArtifactStore,
    ContentSource,
    ExpectedContent,
)
from tests.conformance.conftest import StoreUnderTest
from tests.conformance.contents import (
    CONTENT,
    FUTURE,
    MIB,
    NAMES,
    REFUSED,
    UNKNOWN,
    blocks,
    digests,
    facts,
    listed,
    read,
    source,
)
from tests.faults import BreakingSource, GeneratedSource, HeldSource


def test_a_new_put_transaction_holds_nothing(store: ArtifactStore) -> None:
    begun = store.begin(facts())
    assert (begun.length, begun.checksums, begun.uri) == (0, digests(b""), "cadc:TEST/a.fits")
    assert store.status(begun.transaction_id) == begun
    assert listed(store) == []


def test_checksums_of_a_put_transaction_speak_of_all_bytes_so_far(store: ArtifactStore) -> None:
    key = store.begin(facts()).transaction_id
    for number in range(1, 5):
        status = store.append(key, source(CONTENT))
        assert (status.length, status.checksums) == (number * len(CONTENT), digests(CONTENT * number))
        assert store.status(key) == status
    assert listed(store) == []


def test_a_put_transaction_survives_a_restart_between_all_its_steps(under_test: StoreUnderTest) -> None:
    key = under_test.store.begin(facts()).transaction_id
    under_test.reopen().append(key, source(CONTENT))
    assert under_test.reopen().append(key, source(b"gone")).checksums == digests(CONTENT + b"gone")
    assert under_test.reopen().revert(key).checksums == digests(CONTENT)
    assert under_test.reopen().append(key, source(b"kept")).checksums == digests(CONTENT + b"kept")
    stored = under_test.reopen().commit(key, facts())
    assert read(under_test.reopen(), stored) == CONTENT + b"kept"


def test_checksums_are_right_when_another_process_changed_as_many_bytes(under_test: StoreUnderTest) -> None:
    key = under_test.store.begin(facts()).transaction_id
    under_test.store.append(key, source(b"aaaa"))
    other = under_test.reopen()
    other.revert(key)
    other.append(key, source(b"bbbb"))
    assert under_test.store.append(key, source(b"c")).checksums == digests(b"bbbbc")


def test_appends_are_reverted_one_by_one_until_none_is_left(store: ArtifactStore) -> None:
    key = store.begin(facts()).transaction_id
    store.append(key, source(b"one"))
    store.append(key, source(b"two"))
    assert store.revert(key).checksums == digests(b"one")
    assert store.revert(key).checksums == digests(b"")
    with pytest.raises(StateConflictError):
        store.revert(key)
    assert store.status(key).length == 0


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_refused_append_leaves_the_put_transaction_as_it_was(store: ArtifactStore, case: str) -> None:
    content, expected, error = REFUSED[case]
    key = store.begin(facts()).transaction_id
    before = store.append(key, source(b"before"))
    with pytest.raises(error):
        store.append(key, source(content), expected)
    assert store.status(key) == before
    assert store.append(key, source(b" after")).checksums == digests(b"before after")


@pytest.mark.parametrize("length", [10, 6 * MIB, 20 * MIB])
def test_a_broken_append_leaves_the_put_transaction_as_it_was(store: ArtifactStore, length: int) -> None:
    key = store.begin(facts()).transaction_id
    before = store.append(key, source(b"before"))
    error = ShortBodyError("cut")
    with pytest.raises(ShortBodyError) as caught:
        store.append(key, BreakingSource(b"".join(blocks(length)), error))
    assert caught.value is error
    assert store.status(key) == before
    assert read(store, store.commit(key, facts())) == b"before"


@pytest.mark.parametrize("algorithm", list(NAMES))
def test_declared_checksums_of_an_append_speak_of_all_bytes(store: ArtifactStore, algorithm: str) -> None:
    key = store.begin(facts()).transaction_id
    store.append(key, source(b"one"))
    with pytest.raises(ChecksumMismatchError):
        store.append(key, source(b"two"), ExpectedContent(checksums=digests(b"two", algorithm)))
    expected = ExpectedContent(3, digests(b"onetwo", algorithm))
    assert store.append(key, source(b"two"), expected).checksums == digests(b"onetwo")


def test_a_commit_makes_an_object_with_the_facts_it_is_given(under_test: StoreUnderTest) -> None:
    store, final = under_test.store, facts("final.fits")
    key = store.begin(facts("first.fits")).transaction_id
    store.append(key, source(b"one"))
    store.append(key, source(b"two"))
    stored = store.commit(key, final)
    assert (stored.length, stored.checksums, stored.facts) == (6, digests(b"onetwo"), final)
    assert list(under_test.reopen().iterate()) == [stored]
    assert read(store, stored) == b"onetwo"


def test_long_segments_are_committed_whole(store: ArtifactStore) -> None:
    lengths = (6 * MIB, 5 * MIB, 17 * MIB, 3)
    key = store.begin(facts()).transaction_id
    for length in lengths:
        store.append(key, GeneratedSource(length))
    content = b"".join(block for length in lengths for block in blocks(length))
    stored = store.commit(key, facts())
    assert stored.checksums == digests(content)
    assert read(store, stored) == content


def test_short_segments_before_long_ones_are_committed_whole(store: ArtifactStore) -> None:
    lengths = (3, 6 * MIB, 1, 0, 17)
    key = store.begin(facts()).transaction_id
    for length in lengths:
        store.append(key, GeneratedSource(length))
    content = b"".join(block for length in lengths for block in blocks(length))
    stored = store.commit(key, facts())
    assert stored.checksums == digests(content)
    assert read(store, stored) == content


def test_a_put_transaction_without_bytes_becomes_an_empty_object(store: ArtifactStore) -> None:
    stored = store.commit(store.begin(facts()).transaction_id, facts())
    assert (stored.length, stored.checksums, read(store, stored)) == (0, digests(b""), b"")


FINISHES: dict[str, Callable[[ArtifactStore, str], object]] = {
    "commit": lambda store, key: store.commit(key, facts()),
    "abort": lambda store, key: store.abort(key),
}
USES: dict[str, Callable[[ArtifactStore, str], object]] = {
    "append": lambda store, key: store.append(key, source(b"late")),
    "revert": lambda store, key: store.revert(key),
    "status": lambda store, key: store.status(key),
    "commit": lambda store, key: store.commit(key, facts()),
}


@pytest.mark.parametrize("use", list(USES))
@pytest.mark.parametrize("finish", list(FINISHES))
def test_a_finished_put_transaction_is_not_found(store: ArtifactStore, finish: str, use: str) -> None:
    key = store.begin(facts()).transaction_id
    store.append(key, source(CONTENT))
    FINISHES[finish](store, key)
    with pytest.raises(TransactionNotFoundError):
        USES[use](store, key)
    store.abort(key)
    assert len(listed(store)) == (1 if finish == "commit" else 0)


@pytest.mark.parametrize("key", UNKNOWN)
@pytest.mark.parametrize("use", list(USES))
def test_an_unknown_put_transaction_is_not_found(store: ArtifactStore, use: str, key: str) -> None:
    with pytest.raises(TransactionNotFoundError):
        USES[use](store, key)
    store.abort(key)


def test_of_two_appends_at_once_exactly_one_counts(under_test: StoreUnderTest) -> None:
    key = under_test.store.begin(facts()).transaction_id
    held, other = HeldSource(b"first"), under_test.reopen()
    outcomes: dict[str, str] = {}

    def attempt(name: str, store: ArtifactStore, content: ContentSource) -> None:
        try:
            store.append(key, content)
            outcomes[name] = "done"
        except StateConflictError:
            outcomes[name] = "conflict"

    thread = threading.Thread(target=attempt, args=("first", under_test.store, held))
    thread.start()
    assert held.reached.wait(30)
    attempt("second", other, source(b"second"))
    held.released.set()
    thread.join()
    assert sorted(outcomes.values()) == ["conflict", "done"]
    winner = next(name for name, outcome in outcomes.items() if outcome == "done")
    assert under_test.reopen().status(key).checksums == digests(winner.encode())


def test_put_transactions_grow_stale_when_nobody_touches_them(store: ArtifactStore) -> None:
    key = store.begin(facts()).transaction_id
    store.append(key, source(CONTENT))
    assert store.stale_transactions(datetime.now(UTC) - timedelta(minutes=1)) == []
    assert store.stale_transactions(datetime.now(UTC) + FUTURE) == [key]


def test_a_sweep_leaves_objects_and_put_transactions_alone(store: ArtifactStore) -> None:
    stored = store.write(source(CONTENT), facts())
    key = store.begin(facts()).transaction_id
    store.append(key, GeneratedSource(6 * MIB))
    assert store.sweep_temporary(datetime.now(UTC) + FUTURE) == 0
    assert listed(store) == [stored]
    assert store.commit(key, facts()).length == 6 * MIB
