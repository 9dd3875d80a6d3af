"""The step of a restore in which the peers are asked: repeated after a crash anywhere it ends in the same state."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from django.db import connection

from datamodel import operations
from datamodel.models import InventoryIdentity, RemoteInventory
from datamodel.restoration import StepOptions
from datamodel.uris import ArtifactUri
from harvest.restoring import reconcile_with_peers
from tests.factories import artifact_row, new_content
from tests.fakes.feed import FakeInventory
from tests.harvest.crashes import crash_at_write, dies
from tests.harvest.selections import Wishes

pytestmark = pytest.mark.usefixtures("from_global", "policy")
STATE_SQL = """
    SELECT coalesce(a.uri, t.uri, r.uri), a.content_length, l.storage_id IS NOT NULL, t.id IS NOT NULL, r.state
    FROM artifact a FULL JOIN deleted_artifact_event t ON t.id = a.id FULL JOIN retired_artifact r ON r.id = coalesce(a.id, t.id)
        LEFT JOIN storage_location l ON l.artifact_id = a.id
    WHERE starts_with(coalesce(a.uri, t.uri, r.uri), %s) ORDER BY 1, 2
"""


def lose(peer: FakeInventory, prefix: str) -> None:
    """What an old backup says, and what the global knows, of each kind that the step tells apart."""
    own = str(InventoryIdentity.objects.get().inventory_id)

    def put(name: str) -> Any:
        return operations.record_stored(uri=ArtifactUri.parse(prefix + name), content=new_content()).artifact

    peer.add_artifact(put("well"), holder=own)
    peer.add_artifact(artifact_row(f"{prefix}stored after the backup".replace(" ", "-")), holder=own)
    peer.add_artifact(artifact_row(f"{prefix}wanted/1"))
    put("unheard")
    peer.add_tombstone(put("deleted"))
    old = put("replaced")
    new = artifact_row(old.uri, b"new", content_last_modified=old.content_last_modified + timedelta(seconds=9))
    peer.add_artifact(new, holder=own)
    peer.add_tombstone(old, same_transaction=True)


def state(prefix: str) -> list[tuple[Any, ...]]:
    """(what, length, is stored, id is deleted, what is retained)."""
    with connection.cursor() as cursor:
        cursor.execute(STATE_SQL, [prefix])
        return [(row[0].removeprefix(prefix), *row[1:]) for row in cursor.fetchall()]


def asked() -> None:
    """A lease of the dead has run out."""
    RemoteInventory.objects.update(lease_holder=None, lease_until=None)
    reconcile_with_peers(StepOptions(by="test"))


def test_what_the_global_knows_is_known_again_and_what_it_knows_to_be_deleted_goes(
    peer: FakeInventory, policy: Wishes
) -> None:
    policy.wanted = ["cadc:TEST/wanted/"]
    lose(peer, "cadc:TEST/")
    asked()
    assert state("cadc:TEST/") == [
        ("deleted", None, False, True, "retained"),
        ("replaced", 3, False, False, None),
        ("replaced", None, False, True, "retained"),
        ("stored-after-the-backup", 7, False, False, None),
        ("unheard", 7, True, False, None),
        ("wanted/1", 7, False, False, None),
        ("well", 7, True, False, None),
    ]


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long), 16])
def test_after_a_crash_at_any_write_the_step_ends_in_the_same_state(peer: FakeInventory, stride: int) -> None:
    lose(peer, "cadc:TEST/whole/")
    asked()
    whole = state("cadc:TEST/whole/")
    for number in count(0, stride):
        prefix = f"cadc:TEST/{number}/"
        lose(peer, prefix)
        # An old backup remembers older cursors; here it is another epoch.
        peer.epoch = f"{number:016x}"
        if not dies(asked, crash_at_write(number)):
            break
        asked()
        assert state(prefix) == whole, number
    assert number > 20
