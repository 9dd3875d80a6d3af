"""Taking, settling, comparing and deleting snapshots; schedules."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest
from django.db import connection, connections, transaction
from pytest_django import Settings

from datamodel import operations as model_operations
from datamodel.content import NewContent
from datamodel.errors import InvalidRequestError, StateConflictError
from datamodel.models import RetiredArtifact
from datamodel.rows import database_now
from datamodel.snapshots import operations, queries, rules
from datamodel.snapshots.models import Snapshot, SnapshotMark, SnapshotSchedule
from datamodel.snapshots.rules import Change, State
from datamodel.snapshots.tasks import advance_snapshots, forget_history
from datamodel.snapshots.views import differences
from datamodel.uris import ArtifactUri, Namespace
from tests.datamodel.snapshots.moments import tick
from tests.factories import new_content

NAMESPACE = Namespace.parse("cadc:A/")

pytestmark = pytest.mark.usefixtures("inventory")


def put(name: str, data: bytes = b"one") -> NewContent:
    content = new_content(data)
    model_operations.record_stored(uri=ArtifactUri.parse(name), content=content)
    return content


def delete(name: str) -> None:
    model_operations.delete_artifact(uri=ArtifactUri.parse(name))


def take(name: str = "one", namespace: Namespace = NAMESPACE) -> Snapshot:
    snapshot = operations.create_snapshot(name=name, namespace=namespace, created_by="test")
    assert operations.settle_soon(snapshot=snapshot, seconds=10)
    return snapshot


def names_of(snapshot: Snapshot) -> list[str]:
    return [entry.uri for entry in queries.all_entries(snapshot.namespace, snapshot.moment)]


def test_a_snapshot_names_what_lived_then_and_its_digest_holds_whatever_happens() -> None:
    put("cadc:A/1")
    put("cadc:A/2")
    put("cadc:B/1")
    snapshot = take()
    assert (snapshot.state, snapshot.artifacts, snapshot.size) == (State.KEPT, 2, 6)
    delete("cadc:A/1")
    put("cadc:A/2", b"other")
    put("cadc:A/3")
    assert names_of(snapshot) == ["cadc:A/1", "cadc:A/2"]
    assert operations.verify_snapshot(snapshot=snapshot).holds
    RetiredArtifact.objects.filter(uri="cadc:A/1").delete()
    assert not operations.verify_snapshot(snapshot=snapshot).holds


def test_a_snapshot_waits_for_a_writer_that_began_before_its_moment() -> None:
    """The writer has looked at the clock already, and commits after the moment."""
    looked, may_commit = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            put("cadc:A/late")
            looked.set()
            assert may_commit.wait(30)
        connections.close_all()

    writer = threading.Thread(target=write)
    writer.start()
    assert looked.wait(30)
    snapshot = operations.create_snapshot(name="one", namespace=NAMESPACE, created_by="test")
    assert not operations.settle_soon(snapshot=snapshot, seconds=0.1)
    assert snapshot.state == State.PINNING
    may_commit.set()
    writer.join()
    assert operations.settle_soon(snapshot=snapshot, seconds=10)
    assert names_of(snapshot) == ["cadc:A/late"]
    assert snapshot.artifacts == 1


def test_settling_twice_at_once_makes_one_digest() -> None:
    put("cadc:A/1")
    snapshot = operations.create_snapshot(name="one", namespace=NAMESPACE, created_by="test")
    same = Snapshot.objects.get(id=snapshot.id)
    assert operations.settle_soon(snapshot=snapshot, seconds=10)
    kept_at = snapshot.kept_at
    assert operations.settle_snapshot(snapshot=same)
    same.refresh_from_db()
    assert same.kept_at == kept_at


def test_a_crash_before_the_digest_is_recorded_is_mended_by_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    put("cadc:A/1")
    snapshot = operations.create_snapshot(name="one", namespace=NAMESPACE, created_by="test")
    tick()

    class Crash(BaseException):
        pass

    def die(**_: object) -> bool:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(operations, "advance", die)
        with pytest.raises(Crash):
            operations.settle_snapshot(snapshot=snapshot)
    snapshot.refresh_from_db()
    assert snapshot.state == State.PINNING
    advance_snapshots()
    snapshot.refresh_from_db()
    assert (snapshot.state, snapshot.artifacts) == (State.KEPT, 1)


def test_differences_are_added_removed_changed_and_renewed() -> None:
    for name in ("same", "gone", "changed", "renewed"):
        put(f"cadc:A/{name}")
    first = take("first")
    put("cadc:A/new")
    delete("cadc:A/gone")
    put("cadc:A/changed", b"other")
    delete("cadc:A/renewed")
    put("cadc:A/renewed")
    second = take("second")
    expected = {
        "cadc:A/new": Change.ADDED,
        "cadc:A/gone": Change.REMOVED,
        "cadc:A/changed": Change.CHANGED,
        "cadc:A/renewed": Change.RENEWED,
    }
    assert {found.uri: found.change for found in differences(first, second)} == expected
    assert {found.uri: found.change for found in differences(first, None)} == expected
    assert {found.change for found in differences(second, first) if found.uri == "cadc:A/new"} == {Change.REMOVED}
    assert list(differences(second, None)) == []
    buckets = rules.differing(rules.tree_from(first.tree), rules.tree_from(second.tree))
    assert set(buckets) == {rules.bucket_of(uri) for uri in expected}


def test_only_differing_buckets_are_listed() -> None:
    put("cadc:A/1")
    first, second = take("first"), take("second")
    # What would differ if anybody looked.
    RetiredArtifact.objects.create(
        id="00000000-0000-0000-0000-000000000001",
        uri="cadc:A/2",
        content_checksum="md5:0",
        content_length=1,
        born_at=first.moment,
        died_at=second.moment,
        ended_at=second.moment,
        storage_id="",
        storage_bucket="",
        state="purged",
        state_at=second.moment,
    )
    assert list(differences(first, second)) == []
    assert [found.uri for found in queries.changes(NAMESPACE.value, first.moment, second.moment)] == ["cadc:A/2"]


def test_snapshots_of_two_namespaces_are_not_compared() -> None:
    with pytest.raises(InvalidRequestError, match="compare two of one"):
        differences(take("one"), take("two", Namespace.parse("cadc:B/")))


def test_a_name_is_given_once_and_is_free_again_after_deletion(settings: Settings) -> None:
    take("one")
    with pytest.raises(StateConflictError, match="already"):
        operations.create_snapshot(name="one", namespace=NAMESPACE, created_by="test")
    with pytest.raises(InvalidRequestError, match="invalid name"):
        operations.create_snapshot(name="a/b", namespace=NAMESPACE, created_by="test")
    operations.release_snapshot(snapshot=queries.find("one"))
    assert not Snapshot.objects.exists()
    settings.INVENTORY_ROLE = "global"
    operations.release_snapshot(snapshot=take("one"))
    assert take("one").name == "one"
    assert sorted(Snapshot.objects.values_list("state", flat=True)) == ["kept", "released"]


def test_a_released_snapshot_never_comes_back() -> None:
    snapshot = take()
    assert operations.advance(snapshot=snapshot, to=State.RELEASED, facts={})
    assert not operations.advance(snapshot=snapshot, to=State.KEPT, facts={})
    assert not operations.advance(snapshot=snapshot, to=State.RELEASED, facts={})


def test_the_clock_that_was_set_back_makes_no_snapshot_earlier_than_what_sites_were_told() -> None:
    ahead = database_now() + timedelta(milliseconds=300)
    SnapshotMark.objects.create(id=1, told_until=ahead)
    snapshot = operations.create_snapshot(name="one", namespace=NAMESPACE, created_by="test")
    assert snapshot.moment == ahead
    assert not operations.settle_snapshot(snapshot=snapshot)
    assert operations.settle_soon(snapshot=snapshot, seconds=10)


def test_a_schedule_takes_one_snapshot_in_each_period_also_when_two_look_at_once() -> None:
    SnapshotSchedule.objects.create(name="hourly", namespace="cadc:A/", hourly=24)
    ready = threading.Barrier(2)
    taken: list[int] = []

    def look() -> None:
        ready.wait(30)
        taken.append(len(operations.take_due_snapshots()))
        connections.close_all()

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    assert sorted(taken) == [0, 1]
    snapshot = Snapshot.objects.get()
    assert snapshot.name == f"hourly-{snapshot.moment:%Y-%m-%dT%HZ}"
    assert operations.take_due_snapshots() == []


def scheduled(*moments: datetime) -> SnapshotSchedule:
    schedule = SnapshotSchedule.objects.create(name="daily", namespace="cadc:A/", daily=2, last_period="x")
    for number, moment in enumerate(moments):
        Snapshot.objects.create(
            name=f"daily-{number}",
            namespace="cadc:A/",
            moment=moment,
            state=State.PINNING,
            schedule=schedule,
            created_at=moment,
        )
    return schedule


def test_thinning_releases_what_the_schedule_does_not_keep_and_a_repeat_nothing_more() -> None:
    now = database_now().replace(hour=12)
    scheduled(*(now - timedelta(hours=hours) for hours in (1, 2, 24, 48, 72)))
    Snapshot.objects.create(
        name="by-hand", namespace="cadc:A/", moment=now - timedelta(days=9), state=State.PINNING, created_at=now
    )
    assert operations.thin_snapshots() == 3
    assert set(Snapshot.objects.values_list("name", flat=True)) == {"daily-1", "daily-2", "by-hand"}
    assert operations.thin_snapshots() == 0


def test_a_schedule_that_is_switched_off_takes_and_removes_nothing() -> None:
    now = database_now()
    schedule = scheduled(*(now - timedelta(days=days) for days in range(5)))
    SnapshotSchedule.objects.filter(id=schedule.id).update(enabled=False)
    advance_snapshots()
    assert Snapshot.objects.count() == 5


def age(days: int) -> None:
    """Everything that happened did so earlier."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE retired_artifact SET born_at = born_at - d, died_at = died_at - d, ended_at = ended_at - d "
            "FROM make_interval(days => %s) AS d",
            [days],
        )
    for snapshot in Snapshot.objects.all():
        Snapshot.objects.filter(id=snapshot.id).update(moment=snapshot.moment - timedelta(days=days))


def test_old_history_is_forgotten_but_what_a_snapshot_names(settings: Settings) -> None:
    settings.INVENTORY_HISTORY_SECONDS = 24 * 3600
    put("cadc:A/1")
    put("cadc:B/1")
    snapshot = take()
    delete("cadc:A/1")
    delete("cadc:B/1")
    age(2)
    snapshot.refresh_from_db()
    put("cadc:A/2")
    delete("cadc:A/2")
    RetiredArtifact.objects.update(state="purged")
    forget_history()
    assert set(RetiredArtifact.objects.values_list("uri", flat=True)) == {"cadc:A/1", "cadc:A/2"}
    assert names_of(snapshot) == ["cadc:A/1"]
    begins_at = queries.history_begins_at()
    assert begins_at is not None
    assert abs(database_now() - timedelta(days=1) - begins_at) < timedelta(minutes=1)


def test_history_whose_bytes_are_kept_is_not_forgotten(settings: Settings) -> None:
    settings.INVENTORY_HISTORY_SECONDS = 0
    put("cadc:A/1")
    delete("cadc:A/1")
    tick()
    assert operations.prune_history() == 0
    assert queries.history_begins_at() is None
    RetiredArtifact.objects.update(state="purged")
    assert operations.prune_history() == 1
