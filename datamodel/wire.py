"""Rows as JSON for people and clients: one shape of an artifact wherever it is listed, located or explained."""

from __future__ import annotations

from datetime import UTC, datetime

from datamodel.rules import ArtifactRow

_TIME_SQL = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS+00:00')"
# What `artifact_item` makes, of the artifact `a`, as columns: in lists of millions PostgreSQL writes the JSON.
ARTIFACT_ITEM_SQL = f"""
    a.id, a.uri, a.content_checksum AS "contentChecksum", encode(a.content_sha256, 'hex') AS "contentSha256",
    a.content_length AS "contentLength", a.content_type AS "contentType", a.content_encoding AS "contentEncoding",
    {_TIME_SQL.format("a.content_last_modified")} AS "contentLastModified",
    {_TIME_SQL.format("a.last_modified")} AS "lastModified", a.meta_checksum AS "metaChecksum"
"""


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
