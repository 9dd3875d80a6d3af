"""Copies go only when every global has said so; silence, refusal and crashes keep them. The globals are fakes that speak HTTP."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest
from django.db import connection
from pytest_django import Settings

from datamodel import attachment, operations, transactions
from datamodel.attachment import Arrival
from datamodel.audit.models import AuditEntry
from datamodel.errors import StateConflictError
from datamodel.models import (
    Artifact,
    DeletedStorageLocationEvent,
    InventoryIdentity,
    ObsoleteStorageLocation,
    RemoteInventory,
    RetiredArtifact,
    StorageLocation,
    StorageLocationEvent,
)
from datamodel.rules import Located
from datamodel.uris import ArtifactUri, Namespace
from site_service.file_sync import scan
from site_service.file_sync.models import SyncAttempt
from site_service.policy.operations import remove_policy, set_policy
from site_service.retention import dropping, metrics, retire, rules, tasks
from site_service.retention.models import CopyRelease, RetireRun
from site_service.retention.rules import RELEASE_MOVES, Answer, Decision, ReleaseState
from site_service.scrub.queries import verified_copies
from tests.factories import new_content
from tests.fakes.releasing import FakeReleasing
from tests.harvest import selections
from tests.harvest.crashes import crash_at, dies
from tests.harvest.selections import Wishes
from tests.site_service.retention.conftest import (
    NAMESPACE,
    Copies,
    advance_to_the_end,
    begin,
    let_time_pass,
    meet,
    outcomes,
    retired,
)

YES, NO, SILENCE = Answer(is_granted=True), Answer(False, "too_few_copies", "none"), Answer(None, "", "it is away")


@pytest.mark.parametrize(
    ("answers", "is_first_try", "state", "reason"),
    [
        pytest.param([], True, "refused", "no_global", id="nobody could allow it"),
        pytest.param([YES], True, "granted", "", id="the only one allows it"),
        pytest.param([YES, YES], False, "granted", "", id="both allow it"),
        pytest.param([NO], True, "refused", "too_few_copies", id="the only one refuses at once"),
        pytest.param([NO], False, "returning", "too_few_copies", id="it may have allowed it before"),
        pytest.param([YES, NO], True, "returning", "too_few_copies", id="the other one allowed it"),
        pytest.param([SILENCE, NO], True, "returning", "too_few_copies", id="the other one may have allowed it"),
        pytest.param([SILENCE], True, "asked", "unanswered", id="silence is no answer"),
        pytest.param([YES, SILENCE], True, "asked", "unanswered", id="nor is half of one"),
    ],
)
def test_the_rule(answers: list[Answer], is_first_try: bool, state: str, reason: str) -> None:
    decision = rules.decide_release(answers, is_first_try=is_first_try)
    assert (decision.state, decision.reason) == (ReleaseState(state), reason)


def test_what_was_never_asked_for_needs_no_return() -> None:
    assert rules.decide_unasked("wanted", "", is_first_try=True) == Decision(ReleaseState.REFUSED, "wanted")
    assert rules.decide_unasked("wanted", "", is_first_try=False) == Decision(ReleaseState.RETURNING, "wanted")


def test_nothing_leaves_an_end_and_only_what_was_granted_is_dropped() -> None:
    ends = set(ReleaseState) - set(RELEASE_MOVES)
    assert ends == {ReleaseState.DROPPED, ReleaseState.REFUSED, ReleaseState.GONE}
    assert rules.sources_of(ReleaseState.DROPPED) == [ReleaseState.GRANTED]
    assert rules.sources_of(ReleaseState.ASKED) == []


def test_pauses_grow_to_an_hour() -> None:
    assert [rules.release_pause(tries) for tries in (1, 2, 3, 100_000)] == [10, 20, 40, 3600]


def test_granted_copies_go_with_an_event_and_their_bytes_become_obsolete(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    row, other = copies.store(), copies.store("cadc:OTHER/1")
    located = StorageLocation.objects.get(artifact_id=row.id)
    run = retired()
    assert (run.state, run.files, run.dropped_files, run.dropped_bytes) == ("finished", 1, 1, row.content_length)
    assert outcomes(run) == {row.uri: "dropped"}
    assert StorageLocation.objects.get().artifact_id == other.id
    assert Artifact.objects.filter(id=row.id).exists()
    assert DeletedStorageLocationEvent.objects.get().id == row.id
    assert ObsoleteStorageLocation.objects.get().storage_id == located.storage_id
    assert not RetiredArtifact.objects.exists()


def test_what_was_dropped_is_not_pulled_back_unless_the_policy_wants_it_later(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    dropped, lost = copies.fill(2)
    inventory_of_all.refusals[lost.uri] = "too_few_copies"
    retired()
    operations.detach_location(artifact_id=lost.id)
    scan.note_missing()
    assert set(SyncAttempt.objects.values_list("artifact_id", flat=True)) == {lost.id}
    set_policy(namespace=Namespace(NAMESPACE), wanted=True, priority=0, note=None)
    scan.note_missing()
    assert set(SyncAttempt.objects.values_list("artifact_id", flat=True)) == {dropped.id, lost.id}
    change = remove_policy(namespace=Namespace(NAMESPACE))
    # The lost copy is repaired whatever the policy says.
    assert change.dropped == 1
    assert Artifact.objects.get().id == lost.id


def test_what_a_site_sends_names_the_copy_and_the_site(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    row = copies.store()
    located = StorageLocation.objects.get()
    retired()
    ((file,),) = inventory_of_all.asked
    assert (file["id"], file["uri"], file["digest"]) == (str(row.id), row.uri, row.content_checksum)
    assert file["release"] == str(CopyRelease.objects.get().id)
    assert file["storedAt"].startswith(located.stored_at.isoformat(timespec="milliseconds")[:23])
    assert set(inventory_of_all.tokens) == {"Bearer for-global"}


def test_a_copy_that_came_by_file_sync_is_named_by_the_later_of_its_times(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    row = copies.store()
    located = operations.detach_location(artifact_id=row.id)
    assert located is not None
    operations.attach_location(artifact_id=row.id, located=located)
    later = StorageLocation.objects.get().stored_at + timedelta(seconds=5)
    StorageLocationEvent.objects.update(last_modified=later)
    retired()
    ((file,),) = inventory_of_all.asked
    assert file["storedAt"].startswith(later.isoformat(timespec="milliseconds")[:23])


def test_refused_copies_stay_with_the_reason(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    one, two = copies.fill(2)
    inventory_of_all.refusals[one.uri] = "too_few_copies"
    run = retired()
    assert outcomes(run) == {one.uri: "refused too_few_copies", two.uri: "dropped"}
    assert (run.state, run.refused_files, run.dropped_files) == ("finished", 1, 1)
    assert StorageLocation.objects.get().artifact_id == one.id
    assert inventory_of_all.returned == []
    began, refused, went = AuditEntry.objects.filter(action="retire").order_by("id")
    assert (began.outcome, went.details["uris"]) == ("done", [two.uri])
    assert (refused.subject, refused.outcome, refused.count) == (NAMESPACE, "refused", 1)
    assert (refused.reason.partition(":")[0], refused.details["uris"]) == ("too_few_copies", [one.uri])


@pytest.mark.parametrize("fault", ["away", "failing", "nonsense", "for another site", "left out", "answers lost"])
def test_without_an_answer_nothing_goes_and_the_question_is_asked_again(
    copies: Copies, inventory_of_all: FakeReleasing, fault: str
) -> None:
    row = copies.store()
    url = inventory_of_all.url
    match fault:
        case "away":
            RemoteInventory.objects.update(url="http://127.0.0.1:1")
        case "failing":
            inventory_of_all.status = 503
        case "nonsense":
            inventory_of_all.body = b'{"files": [{"release": 7}]}'
        case "for another site":
            inventory_of_all.answers_for = str(uuid.uuid4())
        case "left out":
            inventory_of_all.leaves_out.add(row.uri)
        case "answers lost":
            inventory_of_all.loses_answers = True
    for tries in (1, 2):
        run = retired()
        assert outcomes(run) == {row.uri: "asked unanswered"}
        assert (run.state, CopyRelease.objects.get().tries) == ("running", tries)
        assert StorageLocation.objects.filter(artifact_id=row.id).exists()
        let_time_pass()
    RemoteInventory.objects.update(url=url)
    inventory_of_all.status, inventory_of_all.body, inventory_of_all.answers_for = 200, None, ""
    inventory_of_all.leaves_out.clear()
    inventory_of_all.loses_answers = False
    assert outcomes(retired()) == {row.uri: "dropped"}
    # Under the same name each time: what was granted unheard was granted again.
    assert len({file["release"] for files in inventory_of_all.asked for file in files}) == 1


def test_a_question_is_not_repeated_before_its_time(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    copies.store()
    inventory_of_all.status = 503
    retired()
    asked = len(inventory_of_all.tokens)
    retired()
    assert len(inventory_of_all.tokens) == asked == 1


def test_a_global_that_does_not_let_us_ask_has_refused(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    row = copies.store()
    inventory_of_all.status = 403
    assert outcomes(retired()) == {row.uri: "refused not_permitted"}


@pytest.mark.parametrize("is_disabled", [False, True])
def test_without_a_global_nothing_goes(copies: Copies, inventory_of_all: FakeReleasing, is_disabled: bool) -> None:
    row = copies.store()
    known = RemoteInventory.objects.all()
    _ = known.update(enabled=False) if is_disabled else known.delete()
    assert outcomes(retired()) == {row.uri: "refused no_global"}
    assert inventory_of_all.asked == []


def test_every_global_must_allow_it_and_those_that_did_are_told_that_it_stays(
    copies: Copies, inventory_of_all: FakeReleasing, second_global: FakeReleasing
) -> None:
    meet(second_global, "second")
    one, two = copies.fill(2)
    second_global.refusals[one.uri] = "copy_unknown"
    run = retired()
    assert outcomes(run) == {one.uri: "refused copy_unknown", two.uri: "dropped"}
    assert set(inventory_of_all.marked) == set(second_global.marked) == {str(two.id)}
    assert [file["id"] for file in inventory_of_all.returned] == [str(one.id)]


def test_a_return_is_repeated_until_all_have_heard_it(
    copies: Copies, inventory_of_all: FakeReleasing, second_global: FakeReleasing
) -> None:
    meet(second_global, "second")
    row = copies.store()
    second_global.refusals[row.uri] = "copy_unknown"
    RemoteInventory.objects.filter(name="global").update(url="http://127.0.0.1:1")
    run = retired()
    assert outcomes(run) == {row.uri: "returning copy_unknown"}
    assert run.state == "running"
    RemoteInventory.objects.filter(name="global").update(url=inventory_of_all.url)
    let_time_pass()
    run = retired()
    assert (outcomes(run), run.state) == ({row.uri: "refused copy_unknown"}, "finished")
    assert [file["id"] for file in inventory_of_all.returned] == [str(row.id)]


def test_what_the_policy_wants_stays_and_no_global_is_asked(
    copies: Copies, inventory_of_all: FakeReleasing, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HARVEST_SELECTION = "tests.harvest.selections.wished"
    monkeypatch.setattr(selections, "wishes", Wishes([f"{NAMESPACE}kept/"], []))
    kept, gone = copies.store(f"{NAMESPACE}kept/1"), copies.store(f"{NAMESPACE}other/1")
    found = retire.preview(Namespace(NAMESPACE))
    assert (found.files, found.wanted_files) == (2, 1)
    assert (found.bytes, found.wanted_bytes) == (kept.content_length + gone.content_length, kept.content_length)
    assert outcomes(retired()) == {kept.uri: "refused wanted", gone.uri: "dropped"}
    assert [[file["uri"] for file in files] for files in inventory_of_all.asked] == [[gone.uri]]


def test_a_preview_counts_by_the_longest_rule(
    copies: Copies, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HARVEST_SELECTION = "tests.harvest.selections.wished"
    monkeypatch.setattr(selections, "wishes", Wishes(["cadc:"], [f"{NAMESPACE}out/"]))
    copies.fill(3)
    copies.fill(2, f"{NAMESPACE}out/")
    copies.fill(1, "cadc:TESTING/")
    found = retire.preview(Namespace(NAMESPACE))
    assert (found.files, found.wanted_files) == (5, 3)


def test_a_copy_deleted_or_found_bad_meanwhile_is_gone_by_itself(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    deleted, bad = copies.fill(2)
    inventory_of_all.status = 503
    retired()
    operations.delete_artifact(uri=ArtifactUri(deleted.uri))
    operations.detach_location(artifact_id=bad.id)
    inventory_of_all.status = 200
    let_time_pass()
    run = retired()
    assert outcomes(run) == {deleted.uri: "gone", bad.uri: "gone"}
    assert (run.state, run.gone_files) == ("finished", 2)
    assert not ObsoleteStorageLocation.objects.exists()


def granted_but_not_dropped() -> None:
    """As after a crash between the two."""
    begin()
    retire._list_next()
    dropping.ask_due()
    assert set(CopyRelease.objects.values_list("state", flat=True)) == {"granted"}


def test_a_copy_stored_anew_at_the_same_place_after_the_grant_stays(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    row = copies.store()
    granted_but_not_dropped()
    located = operations.detach_location(artifact_id=row.id)
    assert located is not None
    assert operations.attach_location(artifact_id=row.id, located=located) is not None
    assert outcomes(retired()) == {row.uri: "gone"}
    assert StorageLocation.objects.get().storage_id == located.storage_id
    assert not ObsoleteStorageLocation.objects.exists()


def test_a_copy_attached_by_file_sync_after_the_grant_stays(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    row = copies.store()
    granted_but_not_dropped()
    operations.detach_location(artifact_id=row.id)
    located = new_content().located
    assert transactions.serialized(lambda: attachment.attach_locations([Arrival(row.id, located)])) == {row.id}
    assert outcomes(retired()) == {row.uri: "gone"}
    assert Located(*StorageLocation.objects.values_list("storage_id", "storage_bucket").get()) == located


def test_other_content_put_after_the_grant_stays(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    row = copies.store()
    granted_but_not_dropped()
    new = copies.store(data=b"other")
    assert outcomes(retired()) == {row.uri: "gone"}
    assert StorageLocation.objects.get().artifact_id == new.id


def test_what_may_go_is_confirmed_to_nobody(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    one = copies.store()
    assert [copy.artifact_id for copy in verified_copies([one.uri])] == [one.id]
    granted_but_not_dropped()
    two = copies.store("cadc:OTHER/1")
    assert [copy.artifact_id for copy in verified_copies([one.uri, two.uri])] == [two.id]


def test_a_cancelled_run_drops_nothing_more_and_gives_back_what_was_granted(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    row = copies.store()
    granted_but_not_dropped()
    run = retire.cancel_run(run_id=RetireRun.objects.get().id)
    assert retire.cancel_run(run_id=run.id).state == "cancelled"
    assert dropping.drop_granted() == 0
    let_time_pass()
    retire.advance(seconds=30)
    assert outcomes(run) == {row.uri: "refused cancelled"}
    assert inventory_of_all.marked == {}
    assert StorageLocation.objects.filter(artifact_id=row.id).exists()


def test_cancelling_while_a_question_is_out_gives_back_only_after_it_has_ended(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    copies.fill(2)
    inventory_of_all.status = 503
    begin()
    retire._list_next()
    dropping.ask_due()
    retire.cancel_run(run_id=RetireRun.objects.get().id)
    inventory_of_all.status = 200
    retire.advance(seconds=30)
    assert inventory_of_all.returned == []
    let_time_pass()
    retire.advance(seconds=30)
    assert len(inventory_of_all.returned) == 2


def test_a_run_that_was_cancelled_before_anything_was_asked_tells_nobody(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    row = copies.store()
    run = begin()
    retire._list_next()
    retire.cancel_run(run_id=run.id)
    assert outcomes(run) == {row.uri: "refused cancelled"}
    assert (inventory_of_all.asked, inventory_of_all.returned) == ([], [])


def test_a_finished_run_cannot_be_cancelled_and_a_new_one_takes_what_is_left(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    row = copies.store()
    inventory_of_all.refusals[row.uri] = "too_few_copies"
    first = retired()
    with pytest.raises(StateConflictError):
        retire.cancel_run(run_id=first.id)
    inventory_of_all.refusals.clear()
    second = retired()
    assert second.id != first.id
    assert outcomes(second) == {row.uri: "dropped"}


def test_a_namespace_has_one_run_at_a_time_and_overlapping_runs_take_each_copy_once(
    copies: Copies, inventory_of_all: FakeReleasing
) -> None:
    copies.fill(3, f"{NAMESPACE}deep/")
    assert begin().id == begin().id
    wide, deep = begin(), begin(f"{NAMESPACE}deep/")
    advance_to_the_end()
    wide.refresh_from_db()
    deep.refresh_from_db()
    assert (wide.state, deep.state, wide.dropped_files + deep.dropped_files) == ("finished", "finished", 3)
    assert sum(len(files) for files in inventory_of_all.asked) == 3


def test_a_run_goes_slice_by_slice_and_stops_in_time(
    copies: Copies, inventory_of_all: FakeReleasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retire, "_SLICE", 4)
    copies.fill(10)
    run = begin()
    slices = 0
    while retire.advance(seconds=0):
        slices += 1
        assert CopyRelease.objects.exclude(state="dropped").count() <= 8
    run.refresh_from_db()
    assert (run.state, run.dropped_files) == ("finished", 10)
    assert slices > 3


def test_two_workers_drop_each_copy_once(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    copies.fill(300)
    run = begin()

    def work() -> None:
        try:
            while retire.advance(seconds=30):
                pass
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    let_time_pass()
    retire.advance(seconds=30)
    run.refresh_from_db()
    assert (run.state, run.files, run.dropped_files) == ("finished", 300, 300)
    assert ObsoleteStorageLocation.objects.count() == DeletedStorageLocationEvent.objects.count() == 300


def crash_in_turn(copies: Copies, stride: int, prepare: Callable[[], None], check: Callable[[int], None]) -> int:
    """A run over files of its own for every `stride`th statement of it, which is where the process ends; about how many there were."""
    for number in count(0, stride):
        namespace = f"{NAMESPACE}{number}/"
        copies.fill(2, namespace)
        begin(namespace)
        prepare()
        if not dies(advance_to_the_end, crash_at(number)):
            return number
        check(number)
    raise AssertionError


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long), 7])
def test_after_a_crash_at_any_statement_nothing_is_lost_and_the_run_goes_on(
    copies: Copies, inventory_of_all: FakeReleasing, stride: int
) -> None:
    def check(number: int) -> None:
        for artifact in Artifact.objects.filter(uri__startswith=f"{NAMESPACE}{number}/"):
            is_stored = StorageLocation.objects.filter(artifact_id=artifact.id).exists()
            is_told = DeletedStorageLocationEvent.objects.filter(id=artifact.id).exists()
            assert is_stored != is_told
            assert is_stored or str(artifact.id) in inventory_of_all.marked
        dropped = CopyRelease.objects.filter(state="dropped").count()
        assert dropped == ObsoleteStorageLocation.objects.count() == DeletedStorageLocationEvent.objects.count()
        assert dropped == sum(RetireRun.objects.values_list("dropped_files", flat=True))
        let_time_pass()
        assert set(outcomes(retired(f"{NAMESPACE}{number}/")).values()) <= {"dropped"}
        assert not StorageLocation.objects.exists()

    assert crash_in_turn(copies, stride, lambda: None, check) > 30
    assert not RetireRun.objects.exclude(state="finished").exists()


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long), 7])
def test_after_a_crash_at_any_statement_of_a_return_no_global_is_left_with_a_mark(
    copies: Copies, inventory_of_all: FakeReleasing, second_global: FakeReleasing, stride: int
) -> None:
    meet(second_global, "second")

    def refuse() -> None:
        second_global.refusals = dict.fromkeys(Artifact.objects.values_list("uri", flat=True), "copy_unknown")

    def check(number: int) -> None:
        let_time_pass()
        run = retired(f"{NAMESPACE}{number}/")
        assert set(outcomes(run).values()) == {"refused copy_unknown"}
        assert inventory_of_all.marked == {}
        assert not DeletedStorageLocationEvent.objects.exists()

    assert crash_in_turn(copies, stride, refuse, check) > 20


def test_outcomes_and_progress_are_metrics(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    one, two, three = copies.fill(3)
    inventory_of_all.refusals[one.uri] = "too_few_copies"
    inventory_of_all.leaves_out.add(two.uri)
    retired()
    samples = {(s.name, *s.labels.values()): s.value for metric in metrics.collect() for s in metric.samples}
    assert samples[("inventory_copy_releases_total", "dropped")] == 1
    assert samples[("inventory_copy_releases_bytes_total", "dropped")] == three.content_length
    assert samples[("inventory_copy_releases_total", "too_few_copies")] == 1
    assert samples[("inventory_copy_releases_open", "asked")] == 1
    assert samples[("inventory_copy_releases_open", "granted")] == 0
    assert samples[("inventory_retire_files", NAMESPACE, "listed")] == 3
    assert samples[("inventory_retire_files", NAMESPACE, "dropped")] == 1


def test_the_oldest_runs_are_forgotten_with_their_copies_but_not_what_waits(
    copies: Copies, inventory_of_all: FakeReleasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retire, "_RUNS_KEPT", 1)
    copies.fill(2)
    first = retired()
    second = retired()
    waiting = copies.store()
    inventory_of_all.status = 503
    third = retired()
    assert retire.prune() == 3
    assert set(RetireRun.objects.values_list("id", flat=True)) == {second.id, third.id}
    assert not CopyRelease.objects.filter(run_id=first.id).exists()
    assert outcomes(third) == {waiting.uri: "asked unanswered"}


def test_marks_that_no_release_is_behind_are_given_back(
    copies: Copies, inventory_of_all: FakeReleasing, second_global: FakeReleasing
) -> None:
    meet(second_global, "second")
    second_global.status = 503
    waiting = copies.fill(2)
    dropped = copies.store("cadc:OTHER/1")
    retired()
    second_global.status = 200
    assert outcomes(retired("cadc:OTHER/")) == {dropped.uri: "dropped"}
    known = dict(inventory_of_all.marked)
    assert set(known) == {str(row.id) for row in (*waiting, dropped)}
    # As after a restored database, or a question that was under way for long.
    for inventory in (inventory_of_all, second_global):
        inventory.marked |= {str(uuid.uuid4()): str(uuid.uuid4()) for _ in range(5)}
        inventory.page = 2
    tasks.give_back_unknown()
    assert inventory_of_all.marked == known
    assert set(second_global.marked) == {str(dropped.id)}
    second_global.status = 503
    assert dropping.give_back_unknown() == 0


def test_the_site_speaks_for_itself(copies: Copies, inventory_of_all: FakeReleasing) -> None:
    assert dropping._own_id() == InventoryIdentity.objects.get().inventory_id
