"""The second step: every finding is looked at again before anything is done, and each act commits whole or not at all."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection, transaction

from datamodel import operations as model
from datamodel.adoption import adopt_content, move_location
from datamodel.errors import (
    ArtifactNotFoundError,
    PreconditionFailedError,
    StateConflictError,
    StorageUnavailableError,
)
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    DeletedStorageLocationEvent,
    ObsoleteStorageLocation,
    RetiredArtifact,
    StorageLocation,
    StorageLocationEvent,
)
from datamodel.queries import artifact_by_id
from datamodel.rules import Located
from datamodel.uris import ArtifactUri
from site_service.file_validate import operations
from site_service.file_validate.content import content_of
from site_service.file_validate.locks import lock_storage_id
from site_service.file_validate.models import QuarantinedObject, ValidationFinding
from site_service.file_validate.operations import apply_finding, delete_lost
from site_service.file_validate.rules import Policy
from site_service.storage.contract import ContentFacts, StoredObject
from tests.factories import artifact_row, insert_artifact_row
from tests.faults import Crash, flip_bit
from tests.site_service.file_validate.conftest import Site

DAY = timedelta(days=1)
STORAGE = Policy.STORAGE_IS_ALWAYS_RIGHT


def located(stored: StoredObject) -> Located:
    return Located(stored.storage_id, stored.storage_bucket)


def test_a_lost_object_costs_the_location_and_never_the_artifact(place: Site) -> None:
    row, stored = place.put()
    place.store.remove(stored.storage_id)
    place.run()
    assert [one.is_done for one in place.apply()] == [True]
    assert Artifact.objects.get().id == row.id
    assert not StorageLocation.objects.exists()
    assert DeletedStorageLocationEvent.objects.get().id == row.id
    assert not DeletedArtifactEvent.objects.exists()
    assert not StorageLocationEvent.objects.exists()
    assert ValidationFinding.objects.get().state == "applied"
    assert place.apply() == []
    assert place.run().counts == {"valid": 0}


def test_a_damaged_object_is_taken_out_and_its_bytes_are_kept(place: Site) -> None:
    row, stored = place.put()
    flip_bit(place.path(stored).with_suffix(".json"), 9)
    place.run()
    place.apply()
    assert DeletedStorageLocationEvent.objects.get().id == row.id
    held = QuarantinedObject.objects.get()
    assert (held.artifact_id, held.uri, held.content_length) == (row.id, row.uri, 7)
    assert (held.state, held.label, held.quarantined_by) == ("quarantined", "invalid-storageLocation", "test")
    assert place.path(stored).read_bytes() == b"content"
    assert place.run().counts == {"valid": 1}


def test_an_object_of_other_content_is_taken_out_and_kept(place: Site) -> None:
    row, stored = place.put()
    Artifact.objects.filter(id=row.id).update(content_length=8)
    place.run()
    assert place.found() == [("metadata", "clear_and_quarantine", stored.storage_id)]
    place.apply()
    assert not StorageLocation.objects.exists()
    assert QuarantinedObject.objects.get().storage_id == stored.storage_id


def test_an_orphan_goes_to_quarantine_and_is_no_finding_any_more(place: Site) -> None:
    orphan = place.write(content_type="text/plain")
    place.run()
    place.apply()
    held = QuarantinedObject.objects.get()
    assert (held.storage_id, held.artifact_id) == (orphan.storage_id, orphan.facts.artifact_id)
    assert (held.content_type, held.written_at) == ("text/plain", orphan.written_at)
    assert place.store.stat(orphan.storage_id) == orphan
    place.run()
    assert place.found() == []


def test_a_copy_of_an_unstored_artifact_is_attached(place: Site) -> None:
    row, stored = place.put()
    model.detach_location(artifact_id=row.id)
    place.run()
    assert place.found() == [("null-storageLocation", "attach_location", stored.storage_id)]
    place.apply()
    assert StorageLocation.objects.get().storage_id == stored.storage_id
    assert StorageLocationEvent.objects.get().id == row.id
    assert not DeletedStorageLocationEvent.objects.exists()
    assert not ObsoleteStorageLocation.objects.exists()


def test_attached_bytes_learn_whose_they_are(place: Site) -> None:
    row = artifact_row()
    insert_artifact_row(row)
    stored = place.write()
    place.run()
    place.apply()
    found = place.store.stat(stored.storage_id)
    assert isinstance(found, StoredObject)
    assert found.facts == ContentFacts(row.id, row.uri)
    assert place.run().counts == {"valid": 1}


def test_facts_follow_their_row(place: Site) -> None:
    row, stored = place.put()
    model.update_artifact(uri=ArtifactUri(row.uri), content_type="text/plain", content_encoding=None)
    place.run()
    assert place.found() == [("stale-facts", "follow_facts", stored.storage_id)]
    place.apply()
    found = place.store.stat(stored.storage_id)
    assert isinstance(found, StoredObject)
    assert found.facts.content_type == "text/plain"


def test_an_object_of_the_time_of_its_artifact_is_preferred(place: Site) -> None:
    row, stored = place.put()
    better = place.write()
    Artifact.objects.filter(id=row.id).update(content_last_modified=better.written_at)
    place.run()
    assert place.found() == [("improve-contentLastModified", "move_location", better.storage_id)]
    place.apply()
    assert StorageLocation.objects.get().storage_id == better.storage_id
    place.run()
    assert place.found() == [("old-storageLocation", "quarantine_object", stored.storage_id)]


# What changed between the report and the second look


def put_it_back(place: Site, stored: StoredObject) -> None:
    place.record(stored)


def remove_it(place: Site, stored: StoredObject) -> None:
    place.store.remove(stored.storage_id)


def retire_it(place: Site, stored: StoredObject) -> None:
    model.delete_artifact(uri=ArtifactUri(place.record(stored).uri))


def make_it_obsolete(place: Site, stored: StoredObject) -> None:
    model.mark_obsolete(located=located(stored))


@pytest.mark.parametrize("change", [put_it_back, remove_it, retire_it, make_it_obsolete])
def test_an_orphan_that_is_none_any_more_is_left_alone(
    place: Site, change: Callable[[Site, StoredObject], None]
) -> None:
    orphan = place.write()
    place.run()
    change(place, orphan)
    (applied,) = place.apply()
    assert (applied.is_done, applied.reason) == (False, "it is valid by now")
    assert not QuarantinedObject.objects.exists()
    assert ValidationFinding.objects.get().state == "changed"


def test_an_orphan_is_young_again_if_the_grace_time_is_longer_when_it_is_applied(place: Site) -> None:
    place.write()
    place.run()
    (applied,) = place.apply(grace=DAY)
    assert (applied.is_done, applied.reason) == (False, "it is delay by now")
    assert not QuarantinedObject.objects.exists()


def test_a_location_that_is_another_one_by_now_stays(place: Site) -> None:
    row, stored = place.put()
    place.store.remove(stored.storage_id)
    place.run()
    model.detach_location(artifact_id=row.id)
    repaired = place.write()
    model.attach_location(artifact_id=row.id, located=located(repaired))
    (applied,) = place.apply()
    assert not applied.is_done
    assert StorageLocation.objects.get().storage_id == repaired.storage_id
    assert not DeletedStorageLocationEvent.objects.exists()


def test_nothing_is_applied_while_the_store_does_not_answer(place: Site) -> None:
    _, stored = place.put()
    place.store.remove(stored.storage_id)
    place.run()
    (place.root / "store.json").unlink()
    with pytest.raises(StorageUnavailableError):
        place.apply()
    assert StorageLocation.objects.exists()
    assert ValidationFinding.objects.get().state == "open"


def test_a_put_that_ends_while_its_object_is_judged_wins_or_waits(place: Site) -> None:
    """The storage id's lock is held by another decision: applying waits for it, and then sees what it did."""
    orphan = place.write()
    place.run()
    (finding,) = ValidationFinding.objects.all()
    outcome: list[operations.Applied] = []

    def apply() -> None:
        outcome.append(
            apply_finding(store=place.store, finding_id=finding.id, decided_by="test", grace=timedelta(seconds=-1))
        )
        connection.close()

    with transaction.atomic():
        lock_storage_id(orphan.storage_id)
        other = threading.Thread(target=apply)
        other.start()
        while not _is_waiting():
            pass
        place.record(orphan)
    other.join(30)
    assert [one.reason for one in outcome] == ["it is valid by now"]
    assert not QuarantinedObject.objects.exists()


def _is_waiting() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(cursor.fetchone()[0])


# Crash points: everything of a decision commits together


@pytest.mark.parametrize("step", ["clear_location", "quarantine", "_close"])
def test_a_decision_that_died_at_any_step_left_nothing_and_is_repeated(
    place: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    _, stored = place.put()
    flip_bit(place.path(stored).with_suffix(".json"), 9)
    place.run()
    owner = model if step == "clear_location" else operations
    real = getattr(owner, step)

    def dying(*arguments: object, **named: object) -> None:
        real(*arguments, **named)
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, dying)
        with pytest.raises(Crash):
            place.apply()
    assert StorageLocation.objects.exists()
    assert not DeletedStorageLocationEvent.objects.exists()
    assert not QuarantinedObject.objects.exists()
    assert ValidationFinding.objects.get().state == "open"
    assert [one.is_done for one in place.apply()] == [True]


def test_facts_that_could_not_follow_are_found_by_the_next_run(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    insert_artifact_row(artifact_row())
    stored = place.write()
    place.run()
    with monkeypatch.context() as patched:
        patched.setattr(operations, "_follow", lambda *_: None)
        place.apply()
    place.run()
    assert place.found() == [("stale-facts", "follow_facts", stored.storage_id)]
    place.apply()
    assert place.run().counts == {"valid": 1}


# StorageIsAlwaysRight


def test_what_only_the_store_has_becomes_an_artifact(place: Site) -> None:
    stored = place.write(content_type="text/plain")
    place.run(STORAGE)
    assert place.found() == [("no-matching-artifact", "create_artifact", stored.storage_id)]
    place.apply()
    row = Artifact.objects.get()
    assert (row.id, row.uri, row.content_type) == (stored.facts.artifact_id, stored.facts.uri, "text/plain")
    assert place.run(STORAGE).counts == {"valid": 1}


def test_newer_bytes_replace_an_artifact_and_the_older_ones_are_retired(place: Site) -> None:
    old, _ = place.put()
    Artifact.objects.update(content_last_modified="2020-01-01T00:00:00Z")
    newer = place.write(content=b"newer")
    place.run(STORAGE)
    assert place.found() == [("metadata", "replace_artifact", newer.storage_id)]
    place.apply()
    assert Artifact.objects.get().id == newer.facts.artifact_id
    assert DeletedArtifactEvent.objects.get().id == old.id
    assert RetiredArtifact.objects.get().id == old.id
    assert place.run(STORAGE).counts == {"valid": 2}


def test_content_that_changed_in_its_place_is_a_new_artifact_at_that_place(place: Site) -> None:
    row, stored = place.put()
    Artifact.objects.filter(id=row.id).update(content_length=8)
    place.run(STORAGE)
    place.apply()
    new = Artifact.objects.get()
    assert new.id != row.id
    assert new.content_length == 7
    assert StorageLocation.objects.get().storage_id == stored.storage_id
    assert DeletedArtifactEvent.objects.get().id == row.id
    assert place.run(STORAGE).counts == {"valid": 1}


def test_a_deleted_artifact_does_not_return_by_itself(place: Site) -> None:
    row, stored = place.put()
    model.delete_artifact(uri=ArtifactUri(row.uri))
    RetiredArtifact.objects.all().delete()
    place.run(STORAGE)
    assert place.found() == [("deleted-artifact", "none", stored.storage_id)]
    assert place.apply() == []
    (finding,) = ValidationFinding.objects.all()
    applied = apply_finding(store=place.store, finding_id=finding.id, decided_by="test")
    assert (applied.is_done, applied.reason) == (False, "nothing to apply")


# Operations of the model that this room brought


def test_only_an_operator_turns_a_loss_into_a_deletion(place: Site) -> None:
    row, stored = place.put()
    with pytest.raises(StateConflictError):
        delete_lost(artifact_id=row.id, decided_by="me", reason="gone for good")
    place.store.remove(stored.storage_id)
    place.run()
    place.apply()
    delete_lost(artifact_id=row.id, decided_by="me", reason="gone for good")
    assert DeletedArtifactEvent.objects.get().id == row.id
    with pytest.raises(ArtifactNotFoundError):
        delete_lost(artifact_id=row.id, decided_by="me", reason="again")


def test_a_location_is_cleared_only_from_where_it_was_expected(place: Site) -> None:
    row, stored = place.put()
    assert not model.clear_location(artifact_id=row.id, expected=Located("0" * 32, "000"))
    assert not model.clear_location(artifact_id=uuid.uuid4(), expected=located(stored))
    assert not DeletedStorageLocationEvent.objects.exists()
    assert model.clear_location(artifact_id=row.id, expected=located(stored))
    assert not model.clear_location(artifact_id=row.id, expected=located(stored))
    assert DeletedStorageLocationEvent.objects.get().id == row.id


def test_a_location_is_moved_only_from_where_it_was_expected(place: Site) -> None:
    row, stored = place.put()
    other = Located("0" * 32, "000")
    assert not move_location(artifact_id=row.id, expected=other, to=located(stored))
    assert move_location(artifact_id=row.id, expected=located(stored), to=other)
    assert StorageLocation.objects.get().storage_id == other.storage_id


def test_adopting_is_refused_when_the_uri_names_something_else(place: Site) -> None:
    row, _ = place.put()
    orphan = place.write(content=b"other")
    uri, content = ArtifactUri(row.uri), content_of(orphan)
    assert adopt_content(uri=uri, content=content, written_at=orphan.written_at) is None
    assert adopt_content(uri=uri, content=content, written_at=orphan.written_at, replaces=uuid.uuid4()) is None
    assert Artifact.objects.get().id == row.id
    adopted = adopt_content(uri=uri, content=content, written_at=orphan.written_at, replaces=row.id)
    assert adopted is not None
    assert adopted.content_last_modified > row.content_last_modified
    assert Artifact.objects.get().id == adopted.id == orphan.facts.artifact_id


def test_deleting_what_was_replaced_meanwhile_is_refused(place: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = artifact_row()
    insert_artifact_row(row)
    known = artifact_by_id(row.id)
    place.put(content=b"something else")
    monkeypatch.setattr(operations, "artifact_by_id", lambda _: known)
    with pytest.raises(PreconditionFailedError):
        delete_lost(artifact_id=row.id, decided_by="me", reason="late")
