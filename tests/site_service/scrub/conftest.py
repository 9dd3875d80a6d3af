"""A site with real files on a real file system, and what a beat and a worker do with them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from django.db import connection
from pytest_django import Settings

from datamodel import operations as model
from datamodel.content import NewContent
from datamodel.models import StorageSite
from datamodel.queries import artifact_by_id
from datamodel.rules import Located
from datamodel.uris import ArtifactUri
from site_service.scrub import operations, queries, scan
from site_service.scrub.models import CopyVerification
from site_service.scrub.operations import RunResult
from site_service.scrub.reading import Pace
from site_service.storage.contract import ArtifactStore, ContentFacts

CONTENT = bytes(range(256)) * 4096
URI = "cadc:TEST/file.fits"


def no_beat() -> None:
    """For readings without lease."""


@dataclass
class Scrubbed:
    """One site: puts files, damages them, scrubs."""

    root: Path
    store: ArtifactStore

    def put(self, uri: str = URI, content: bytes = CONTENT) -> uuid.UUID:
        facts = ContentFacts(uuid.uuid4(), uri)
        stored = self.store.write(BytesIO(content), facts)
        new = NewContent(
            artifact_id=facts.artifact_id,
            located=Located(stored.storage_id, stored.storage_bucket),
            content_checksum=f"md5:{stored.checksums['md5']}",
            content_length=stored.length,
            content_sha256=bytes.fromhex(stored.checksums["sha-256"]),
        )
        return model.record_stored(uri=ArtifactUri.parse(uri), content=new).artifact.id

    def place_of(self, artifact_id: uuid.UUID) -> Located:
        known = artifact_by_id(artifact_id)
        assert known is not None
        assert known.location is not None
        return known.location

    def is_in_service(self, artifact_id: uuid.UUID) -> bool:
        known = artifact_by_id(artifact_id)
        assert known is not None
        return known.location is not None

    def file_of(self, artifact_id: uuid.UUID) -> Path:
        located = self.place_of(artifact_id)
        return self.root / "objects" / located.storage_bucket / located.storage_id

    def bytes_at(self, storage_id: str, length: int) -> bytes:
        with closing(self.store.open(storage_id, expected_length=length)) as content:
            return content.read()

    def make_due(self, *artifact_ids: uuid.UUID) -> None:
        """As if a period had gone by; the record exists."""
        scan.follow(queries.configured_schedule())
        rows = CopyVerification.objects.filter(location_id__isnull=False)
        with connection.cursor() as cursor:
            cursor.execute("SELECT inventory_now() - interval '1 minute'")
            (past,) = cursor.fetchone()
        (rows.filter(location_id__in=artifact_ids) if artifact_ids else rows).update(next_at=past)

    def run(self, artifact_ids: Sequence[uuid.UUID] | None = None) -> RunResult:
        """What a tick and its message do."""
        run = operations.begin_run(seconds=60)
        if run is None:
            return RunResult()
        ids = run.artifact_ids if artifact_ids is None else artifact_ids
        result = operations.carry_run(lease=run.lease, artifact_ids=ids, store=self.store, pace=Pace(beat=no_beat))
        assert result is not None
        return result


@pytest.fixture
def scrubbed(site: StorageSite, store: ArtifactStore, tmp_path: Path, settings: Settings) -> Scrubbed:
    del site
    settings.INVENTORY_SCRUB_BYTES_PER_SECOND = 0
    settings.INVENTORY_SCRUB_HOURS = ""
    return Scrubbed(tmp_path / "storage", store)
