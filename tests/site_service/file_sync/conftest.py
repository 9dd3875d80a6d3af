"""A small federation of fakes around the real file sync of one site."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from pytest_django import Settings

from datamodel import rows
from datamodel.models import RemoteInventory, StorageSite
from datamodel.rules import ArtifactRow
from datamodel.sealing import seal
from datamodel.uris import Namespace
from site_service.file_sync import attempts, prefetch, scan
from site_service.file_sync.operations import BatchResult, sync_batch
from site_service.file_sync.rules import Wanted, verifiable
from site_service.file_sync.shunned import Shunned
from site_service.policy.operations import set_policy
from site_service.storage.contract import ArtifactStore
from site_service.storage.memory import MemoryStore
from tests.factories import artifact_row
from tests.fakes.files import FakeGlobal, FakeSite, running

CONTENT = bytes(range(256)) * 1024


@pytest.fixture(autouse=True)
def _nobody_is_shunned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake may have the port of an earlier one."""
    monkeypatch.setattr(prefetch, "_without_door", Shunned(600.0))


@pytest.fixture
def alpha() -> Iterator[FakeSite]:
    site = FakeSite("alpha")
    with running(site):
        yield site


@pytest.fixture
def gamma() -> Iterator[FakeSite]:
    site = FakeSite("gamma")
    with running(site):
        yield site


def wanted(content: bytes = CONTENT, uri: str = "cadc:TEST/file.fits") -> Wanted:
    """What an artifact with this content asks of its sources."""
    checksum = "md5:" + hashlib.md5(content).hexdigest()
    return Wanted(uuid.uuid4(), uri, len(content), verifiable(checksum, hashlib.sha256(content).digest()))


@dataclass
class Federation:
    """Two other sites, a global that knows what they hold, and this site, which wants everything under `cadc:`."""

    alpha: FakeSite
    gamma: FakeSite
    inventory: FakeGlobal
    store: ArtifactStore

    def publish(self, uri: str, content: bytes, *holders: FakeSite) -> ArtifactRow:
        """An artifact that the holders have and that harvest has made known here."""
        row = artifact_row(uri, content)
        for site in holders or (self.alpha,):
            site.hold(uri, content, row.id)
        rows.insert_artifact(row, None)
        return row

    def tick(self, *, batches: int = 1) -> list[BatchResult]:
        """What a beat and its messages do: find, claim, carry."""
        scan.note_missing()
        results = [sync_batch(lease=lease, store=self.store) for lease in attempts.claim(batches=batches)]
        return [result for result in results if result is not None]


@pytest.fixture
def federation(site: StorageSite, alpha: FakeSite, gamma: FakeSite, settings: Settings) -> Iterator[Federation]:
    del site
    settings.INVENTORY_SYNC_FREE_BYTES = 0
    with ExitStack() as stack:
        inventory = FakeGlobal([alpha, gamma])
        stack.enter_context(running(inventory))
        RemoteInventory.objects.create(
            name=f"global-{uuid.uuid4()}", role="global", url=inventory.url, token=seal(inventory.token.encode())
        )
        set_policy(namespace=Namespace.parse("cadc:"), wanted=True)
        yield Federation(alpha, gamma, inventory, MemoryStore())
