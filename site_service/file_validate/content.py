"""What an object's facts say, as content that waits for its row."""

from __future__ import annotations

from django.conf import settings

from datamodel.content import NewContent
from datamodel.errors import InvalidChecksumError
from datamodel.rules import Located
from site_service.storage.contract import StoredObject


def content_of(found: StoredObject) -> NewContent:
    """Raises `InvalidChecksumError` when the object lacks a digest of this inventory's algorithm."""
    algorithm = settings.INVENTORY_CONTENT_ALGORITHM
    if algorithm not in found.checksums:
        known = ", ".join(sorted(found.checksums))
        raise InvalidChecksumError(
            f"object {found.storage_id} has no {algorithm}, only {known}: choose another algorithm"
        )
    sha256 = found.checksums.get("sha-256")
    return NewContent(
        artifact_id=found.facts.artifact_id,
        located=Located(found.storage_id, found.storage_bucket),
        content_checksum=f"{algorithm}:{found.checksums[algorithm]}",
        content_length=found.length,
        content_sha256=bytes.fromhex(sha256) if sha256 is not None else None,
        content_type=found.facts.content_type,
        content_encoding=found.facts.content_encoding,
    )
