"""What a peer's news end here is one entry of the audit per batch, by which "who deleted this file" finds the peer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.core.management import call_command

from datamodel import operations
from datamodel.audit import chain, verification
from datamodel.audit.models import AuditEntry
from datamodel.models import DeletedArtifactEvent
from datamodel.uris import ArtifactUri
from harvest import exchange
from tests.factories import artifact_row, new_content
from tests.fakes.feed import FakeInventory

pytestmark = pytest.mark.usefixtures("from_global", "policy")


def put(uri: str) -> str:
    return str(operations.record_stored(uri=ArtifactUri.parse(uri), content=new_content()).artifact.id)


def test_a_batch_that_ended_something_is_one_entry_and_one_that_did_not_is_none(
    peer: FakeInventory, capsys: pytest.CaptureFixture[str]
) -> None:
    uris = [f"cadc:A/{number}" for number in range(3)]
    rows = [operations.record_stored(uri=ArtifactUri.parse(uri), content=new_content()).artifact for uri in uris]
    put("cadc:A/stays")
    exchange.harvest("peer")
    assert not AuditEntry.objects.filter(action="harvest").exists()
    for row in rows:
        peer.add_tombstone(row, datetime.now(UTC))
    exchange.harvest("peer")
    exchange.harvest("peer")
    entry = AuditEntry.objects.get(action="harvest")
    assert (entry.who, entry.method, entry.subject, entry.count) == ("peer", "peer", "peer", 3)
    assert (entry.details["removed"], sorted(entry.details["uris"])) == (3, uris)
    capsys.readouterr()
    call_command("audit", "find", "--uri", uris[1])
    ended, written = capsys.readouterr().out.splitlines()
    assert "done x3 harvest peer by peer [peer]" in ended
    assert f"put {uris[1]}" in written
    call_command("audit", "find", "--uri", "cadc:A/stays")
    assert len(capsys.readouterr().out.splitlines()) == 1
    chain.seal_ready()
    assert verification.verify().wrong is None


def test_a_deletion_of_what_was_never_here_leaves_no_entry(peer: FakeInventory) -> None:
    peer.add_tombstone(artifact_row("cadc:A/1"), datetime.now(UTC))
    exchange.harvest("peer")
    assert DeletedArtifactEvent.objects.exists()
    assert not AuditEntry.objects.filter(action="harvest").exists()
