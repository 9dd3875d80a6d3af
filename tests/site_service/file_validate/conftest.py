"""A site with a real store: files put, lost, orphaned and damaged."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from pytest_django import Settings

from datamodel.models import StorageSite
from datamodel.operations import Preconditions
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from site_service.file_validate import runs
from site_service.file_validate.models import ValidationFinding, ValidationRun
from site_service.file_validate.operations import Applied, apply_finding
from site_service.file_validate.rules import Policy
from site_service.file_validate.surveyors import surveyor_of
from site_service.files.operations import record_object
from site_service.storage.contract import ArtifactStore, ContentFacts, StoredObject

NOW = timedelta(seconds=-1)
INVENTORY = Policy.INVENTORY_IS_ALWAYS_RIGHT


@dataclass
class Site:
    """The store, its directory, and the verbs of these tests; the grace time is over at once unless one says otherwise."""

    store: ArtifactStore
    root: Path

    def write(self, uri: str = "cadc:TEST/file.fits", content: bytes = b"content", **facts: str) -> StoredObject:
        """Bytes without a row, as a PUT that died leaves them."""
        return self.store.write(io.BytesIO(content), ContentFacts(uuid.uuid4(), uri, **facts))

    def put(
        self, uri: str = "cadc:TEST/file.fits", content: bytes = b"content", **facts: str
    ) -> tuple[ArtifactRow, StoredObject]:
        """A whole PUT."""
        stored = self.write(uri, content, **facts)
        return self.record(stored), stored

    def record(self, stored: StoredObject) -> ArtifactRow:
        """The second half of a PUT."""
        uri = ArtifactUri.parse(stored.facts.uri)
        recorded = record_object(
            store=self.store, uri=uri, stored=stored, preconditions=Preconditions(), superseded=None
        )
        return recorded.artifact

    def path(self, stored: StoredObject) -> Path:
        return self.root / "objects" / stored.storage_bucket / stored.storage_id

    def run(
        self, policy: Policy = INVENTORY, grace: timedelta = NOW, store: ArtifactStore | None = None
    ) -> ValidationRun:
        """A complete run."""
        run = runs.open_run(policy=policy, started_by="test")
        progress = runs.advance(run_id=run.id, surveyor=surveyor_of(store or self.store), seconds=60, grace=grace)
        assert progress is not None
        assert progress.is_complete
        return progress.run

    def found(self) -> list[tuple[str, str, str]]:
        """(label, action, storage id) of what is open."""
        rows = ValidationFinding.objects.filter(state="open").order_by("storage_bucket", "storage_id")
        return [(row.label, row.action, row.storage_id) for row in rows]

    def apply(self, grace: timedelta = NOW) -> list[Applied]:
        """All that is open."""
        ids = list(ValidationFinding.objects.filter(state="open").exclude(action="none").values_list("id", flat=True))
        return [self.apply_one(one, grace) for one in ids]

    def apply_one(self, finding_id: int, grace: timedelta = NOW) -> Applied:
        return apply_finding(store=self.store, finding_id=finding_id, decided_by="test", grace=grace)


@pytest.fixture
def place(site: StorageSite, store: ArtifactStore, settings: Settings, tmp_path: Path) -> Site:
    del site
    settings.INVENTORY_TRANSFER_SECONDS = 3600
    return Site(store, tmp_path / "storage")
