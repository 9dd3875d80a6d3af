"""Rows as JSON for people and clients: one shape of an artifact wherever it is listed, located or explained."""

from __future__ import annotations

from datetime import UTC, datetime

from datamodel.rules import ArtifactRow


def time_text(when: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: `2026-01-02T03:04:05.678+00:00`."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds")


def artifact_item(row: ArtifactRow) -> dict[str, str | int | None]:
    """An artifact under the names of the feed (`harvest`)."""
    return {
        "id": str(row.id),
        "uri": row.uri,
        "contentChecksum": row.content_checksum,
        "contentSha256": row.content_sha256.hex() if row.content_sha256 is not None else None,
        "contentLength": row.content_length,
        "contentType": row.content_type,
        "contentEncoding": row.content_encoding,
        "contentLastModified": time_text(row.content_last_modified),
        "lastModified": time_text(row.last_modified),
        "metaChecksum": row.meta_checksum,
    }
