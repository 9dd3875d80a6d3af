"""Quarantine: kept, listed, given back or removed, and never against an artifact that needs the bytes."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from datamodel import operations as model
from datamodel.alarms.models import Alarm
from datamodel.errors import (
    ChecksumMismatchError,
    InvalidRequestError,
    RaceLostError,
    StateConflictError,
    StorageUnavailableError,
)
from datamodel.models import Artifact, DeletedArtifactEvent, RetiredArtifact, StorageLocation
from datamodel.uris import ArtifactUri
from site_service.file_validate import queries
from site_service.file_validate.models import QuarantinedObject
from site_service.file_validate.quarantine import decide_purge, purge_quarantined, restore_quarantined
from site_service.storage.contract import StoredObject
from tests.factories import artifact_row, insert_artifact_row
from tests.faults import Crash, flip_bit
from tests.site_service.file_validate.conftest import Site


def hold(place: Site) -> QuarantinedObject:
    """Everything that is found goes to quarantine; the last object there."""
    place.run()
    place.apply()
    return QuarantinedObject.objects.latest("quarantined_at")


def purge(place: Site, held: QuarantinedObject) -> bool:
    return decide_purge(object_id=held.id, decided_by="me", reason="junk") and purge_quarantined(
        store=place.store, object_id=held.id
    )


def restore(place: Site, held: QuarantinedObject) -> Any:
    return restore_quarantined(store=place.store, object_id=held.id, decided_by="me")


def test_an_object_is_given_back_as_an_artifact_of_its_own(place: Site) -> None:
    orphan = place.write(content_type="text/plain", content_encoding="gzip")
    held = hold(place)
    assert "quarantined_object" in Alarm.objects.values_list("kind", flat=True)
    row = restore(place, held)
    stored = Artifact.objects.get()
    assert (stored.id, stored.uri) == (orphan.facts.artifact_id, orphan.facts.uri)
    assert (stored.content_type, stored.content_encoding, stored.content_length) == ("text/plain", "gzip", 7)
    assert row.id == stored.id
    held.refresh_from_db()
    assert (held.state, held.decided_by) == ("restored", "me")
    assert place.run().counts == {"valid": 1}
    with pytest.raises(StateConflictError, match="not in quarantine"):
        restore(place, held)


def test_an_object_is_given_back_to_the_artifact_that_misses_it(place: Site) -> None:
    orphan = place.write()
    held = hold(place)
    row = artifact_row()
    insert_artifact_row(row)
    assert restore(place, held).id == row.id
    assert StorageLocation.objects.get().artifact_id == row.id
    found = place.store.stat(orphan.storage_id)
    assert isinstance(found, StoredObject)
    assert found.facts.artifact_id == row.id
    assert place.run().counts == {"valid": 1}


def test_a_deleted_id_does_not_return_its_bytes_get_a_new_one(place: Site) -> None:
    row, stored = place.put()
    model.delete_artifact(uri=ArtifactUri(row.uri))
    RetiredArtifact.objects.all().delete()
    restored = restore(place, hold(place))
    assert restored.id != row.id
    assert DeletedArtifactEvent.objects.get().id == row.id
    found = place.store.stat(stored.storage_id)
    assert isinstance(found, StoredObject)
    assert found.facts.artifact_id == restored.id


def test_an_object_is_not_given_back_over_other_content(place: Site) -> None:
    place.write()
    held = hold(place)
    place.put(content=b"other")
    with pytest.raises(StateConflictError, match="other content"):
        restore(place, held)
    held.refresh_from_db()
    assert held.state == "quarantined"


def test_bytes_whose_facts_were_lost_are_read_and_copied_if_they_are_what_the_row_says(place: Site) -> None:
    row, stored = place.put()
    place.path(stored).with_suffix(".json").unlink()
    held = hold(place)
    assert restore(place, held).id == row.id
    location = StorageLocation.objects.get()
    assert location.artifact_id == row.id
    assert location.storage_id != stored.storage_id
    with place.store.open(location.storage_id, expected_length=7) as content:  # type: ignore[attr-defined]  # a real file
        assert content.read() == b"content"
    held.refresh_from_db()
    assert held.state == "quarantined"
    with pytest.raises(StateConflictError, match="nobody knows"):
        restore(place, held)


def test_rotten_bytes_are_not_given_back(place: Site) -> None:
    _, stored = place.put()
    place.path(stored).with_suffix(".json").unlink()
    held = hold(place)
    flip_bit(place.path(stored), 0)
    with pytest.raises(ChecksumMismatchError):
        restore(place, held)
    assert not StorageLocation.objects.exists()


def test_a_purge_removes_the_bytes_after_it_was_decided_and_not_before(place: Site) -> None:
    orphan = place.write()
    held = hold(place)
    assert not purge_quarantined(store=place.store, object_id=held.id)
    assert place.path(orphan).exists()
    assert purge(place, held)
    assert not place.path(orphan).exists()
    held.refresh_from_db()
    assert (held.state, held.decided_by, held.reason) == ("purged", "me", "junk")
    assert not purge(place, held)


def test_a_purge_needs_a_reason(place: Site) -> None:
    place.write()
    held = hold(place)
    with pytest.raises(InvalidRequestError, match="say why"):
        decide_purge(object_id=held.id, decided_by="me", reason=" ")


class Dying:
    """A store whose process dies at the removal, before or after the bytes are gone."""

    def __init__(self, place: Site, *, after: bool) -> None:
        self._place = place
        self._after = after

    def remove(self, storage_id: str) -> None:
        assert QuarantinedObject.objects.get(storage_id=storage_id).state == "removing"
        if self._after:
            self._place.store.remove(storage_id)
        raise Crash


@pytest.mark.parametrize("after", [False, True])
def test_a_purge_that_died_is_finished_by_a_repeat_and_cannot_be_taken_back(place: Site, *, after: bool) -> None:
    place.write()
    held = hold(place)
    assert decide_purge(object_id=held.id, decided_by="me", reason="junk")
    dying: Any = Dying(place, after=after)
    with pytest.raises(Crash):
        purge_quarantined(store=dying, object_id=held.id)
    with pytest.raises(StateConflictError):
        restore(place, held)
    assert queries.removals_to_finish() == [held.id]
    assert decide_purge(object_id=held.id, decided_by="me", reason="junk")
    assert purge_quarantined(store=place.store, object_id=held.id)
    assert queries.removals_to_finish() == []


def test_bytes_that_an_artifact_needs_by_now_are_not_purged(place: Site) -> None:
    orphan = place.write()
    held = hold(place)
    place.record(orphan)
    assert not purge(place, held)
    assert place.path(orphan).exists()
    held.refresh_from_db()
    assert held.state == "restored"
    assert place.run().counts == {"valid": 1}


def test_bytes_whose_removal_has_begun_get_no_location(place: Site) -> None:
    orphan = place.write()
    held = hold(place)
    decide_purge(object_id=held.id, decided_by="me", reason="junk")
    with pytest.raises(RaceLostError):
        place.record(orphan)
    assert not StorageLocation.objects.exists()
    row, _ = place.put("cadc:TEST/other")
    with (
        pytest.raises(IntegrityError, match="removed from quarantine"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "UPDATE storage_location SET storage_id = %s, storage_bucket = %s",
            [orphan.storage_id, orphan.storage_bucket],
        )
    assert row.id == StorageLocation.objects.get().artifact_id


def test_a_restored_object_that_lost_its_row_again_is_quarantined_again(place: Site) -> None:
    place.write()
    held = hold(place)
    row = restore(place, held)
    model.delete_artifact(uri=ArtifactUri(row.uri))
    RetiredArtifact.objects.all().delete()
    assert hold(place).id == held.id
    held.refresh_from_db()
    assert held.state == "quarantined"


def test_a_store_that_fails_leaves_the_decision_standing(place: Site) -> None:
    orphan = place.write()
    held = hold(place)
    assert decide_purge(object_id=held.id, decided_by="me", reason="junk")

    class Failing:
        def remove(self, storage_id: str) -> None:
            raise StorageUnavailableError(f"cannot remove {storage_id}")

    failing: Any = Failing()
    with pytest.raises(StorageUnavailableError):
        purge_quarantined(store=failing, object_id=held.id)
    assert queries.removals_to_finish() == [held.id]
    assert place.path(orphan).exists()
