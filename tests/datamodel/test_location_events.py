"""News of a copy are later than what they are about, wherever the clock has jumped: a global tells by that of which copy they are."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest

from datamodel import attachment, operations, transactions
from datamodel.attachment import Arrival
from datamodel.models import DeletedStorageLocationEvent, StorageLocation, StorageLocationEvent
from datamodel.rows import database_now
from datamodel.rules import Located
from datamodel.uris import ArtifactUri
from tests.factories import new_content

pytestmark = pytest.mark.usefixtures("site")


def detach(identity: uuid.UUID) -> None:
    operations.detach_location(artifact_id=identity)


def drop(identity: uuid.UUID) -> None:
    transactions.serialized(lambda: attachment.drop_locations([identity]))


def attach_one(identity: uuid.UUID, located: Located) -> None:
    operations.attach_location(artifact_id=identity, located=located)


def attach_some(identity: uuid.UUID, located: Located) -> None:
    transactions.serialized(lambda: attachment.attach_locations([Arrival(identity, located)]))


@pytest.mark.parametrize("end", [detach, drop])
@pytest.mark.parametrize("attach", [attach_one, attach_some])
def test_each_is_later_than_the_one_before_though_the_clock_went_back_an_hour_in_between(
    end: Callable[[uuid.UUID], None], attach: Callable[[uuid.UUID, Located], None]
) -> None:
    artifact = operations.record_stored(uri=ArtifactUri.parse("cadc:TEST/1"), content=new_content()).artifact
    ahead = database_now() + timedelta(hours=1)
    StorageLocation.objects.update(stored_at=ahead)
    end(artifact.id)
    gone = DeletedStorageLocationEvent.objects.get()
    assert gone.last_modified > ahead
    attach(artifact.id, new_content().located)
    here = StorageLocationEvent.objects.get()
    assert here.last_modified > gone.last_modified
    end(artifact.id)
    assert DeletedStorageLocationEvent.objects.get().last_modified > here.last_modified
    assert not StorageLocationEvent.objects.exists()
