"""New content on its way into the inventory, and the row that it becomes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import datetime

from datamodel import rules
from datamodel.rules import ArtifactRow, Located
from datamodel.uris import ArtifactUri


@dataclass(frozen=True, slots=True)
class NewContent:
    """Durable bytes waiting for their row: where they are and what was measured; `artifact_id` was chosen before writing."""

    artifact_id: uuid.UUID
    located: Located
    content_checksum: str
    content_length: int
    content_sha256: bytes | None
    content_type: str | None = None
    content_encoding: str | None = None


def artifact_of(uri: ArtifactUri, content: NewContent, *, when: datetime, now: datetime) -> ArtifactRow:
    """The row of new content: `when` it became what the uri names, `now` by the inventory's clock."""
    row = ArtifactRow(
        id=content.artifact_id,
        uri=uri.value,
        uri_bucket=uri.bucket,
        content_checksum=content.content_checksum,
        content_last_modified=when,
        content_length=content.content_length,
        content_type=content.content_type,
        content_encoding=content.content_encoding,
        last_modified=now,
        meta_checksum="",
        content_sha256=content.content_sha256,
        meta_modified_at=when,
    )
    return replace(row, meta_checksum=rules.meta_checksum_of(row))
