"""Pure decisions of the model: metadata checksums, who wins a collision, what a put means. No Django, no clock, no I/O."""

from __future__ import annotations

import hashlib
import struct
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JAVA_BLANKS = "".join(map(chr, range(0x21)))
MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """One artifact as every layer passes it on; times are UTC with milliseconds, `content_sha256` is raw or None."""

    id: uuid.UUID
    uri: str
    uri_bucket: str
    content_checksum: str
    content_last_modified: datetime
    content_length: int
    content_type: str | None
    content_encoding: str | None
    last_modified: datetime
    meta_checksum: str
    content_sha256: bytes | None
    meta_modified_at: datetime

    @property
    def etag(self) -> str:
        """Strong entity tag: the content checksum, the same at every site that holds the artifact."""
        return f'"{self.content_checksum}"'


@dataclass(frozen=True, slots=True)
class Located:
    """Where bytes are in the store of this site."""

    storage_id: str
    storage_bucket: str


def truncate_to_millis(when: datetime) -> datetime:
    """Model times have millisecond precision (house, decision 10)."""
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


def _text(value: str | None) -> str:
    return value.strip(_JAVA_BLANKS) if value else ""


def _checksum(identity: bytes, *fields: bytes) -> str:
    return "md5:" + hashlib.md5(b"".join((identity, *fields)), usedforsecurity=False).hexdigest()


def artifact_meta_checksum(
    *,
    identity: uuid.UUID,
    uri: str,
    uri_bucket: str,
    content_checksum: str,
    content_last_modified: datetime,
    content_length: int,
    content_type: str | None,
    content_encoding: str | None,
) -> str:
    """`metaChecksum` of an Artifact (reference 1.1): MD5 over the id and the non-null fields sorted by their Java names."""
    return artifact_checksum_of(
        identity.bytes,
        (content_last_modified - _EPOCH) // MILLISECOND,
        content_length,
        (uri, uri_bucket, content_checksum, content_type, content_encoding),
    )


def artifact_checksum_of(
    identity: bytes, millis: int, content_length: int, texts: tuple[str, str, str, str | None, str | None]
) -> str:
    """The same of what is known without its types; `millis` since 1970; uri, bucket, checksum, type and encoding."""
    uri, bucket, checksum, content_type, encoding = [text.strip(_JAVA_BLANKS) if text else "" for text in texts]
    return _checksum(
        identity,
        (checksum + encoding).encode(),
        struct.pack(">qq", millis, content_length),
        (content_type + uri + bucket).encode(),
    )


def event_meta_checksum(identity: uuid.UUID, uri: str | None) -> str:
    """`metaChecksum` of the three event entities (reference 1.1): the id and, if known, the uri."""
    return _checksum(identity.bytes, _text(uri).encode())


def site_meta_checksum(identity: uuid.UUID, *, allow_read: bool, allow_write: bool, name: str, resource_id: str) -> str:
    """`metaChecksum` of a StorageSite (reference 1.1)."""
    return _checksum(identity.bytes, bytes([allow_read, allow_write]), (_text(name) + _text(resource_id)).encode())


def location_meta_checksum(identity: uuid.UUID, storage_bucket: str, storage_id: str) -> str:
    """`metaChecksum` of an ObsoleteStorageLocation (reference 1.1)."""
    return _checksum(identity.bytes, (_text(storage_bucket) + _text(storage_id)).encode())


def has_same_content(one: ArtifactRow, other: ArtifactRow) -> bool:
    """Equal checksum and length; times and metadata do not matter (reference 5.3)."""
    return one.content_checksum == other.content_checksum and one.content_length == other.content_length


def is_winner(one: ArtifactRow, other: ArtifactRow) -> bool:
    """Whether `one` wins a collision of two artifacts with the same uri and different ids.

    By (contentLastModified, id), the same on every inventory (house, decision 9). Raises `ValueError` for equal ids.
    """
    if one.id == other.id:
        raise ValueError(f"artifact {one.id} cannot collide with itself")
    return (one.content_last_modified, one.id.int) > (other.content_last_modified, other.id.int)


def is_newer_metadata(one: ArtifactRow, other: ArtifactRow) -> bool:
    """Whether `one` is the later update of the same artifact, by (time at its origin, metaChecksum): decision 9."""
    return (one.meta_modified_at, one.meta_checksum) > (other.meta_modified_at, other.meta_checksum)


class PutMeaning(Enum):
    """What content put to a uri does to what the inventory knows."""

    CREATE = "created"
    REPLACE = "replaced"
    REAFFIRM = "reaffirmed"
    ATTACH = "attached"


def decide_put(
    existing: ArtifactRow | None, *, is_stored: bool, content_checksum: str, content_length: int
) -> PutMeaning:
    """Same content keeps the artifact (reaffirm it, or attach the bytes where there were none); else it is replaced."""
    if existing is None:
        return PutMeaning.CREATE
    if (existing.content_checksum, existing.content_length) != (content_checksum, content_length):
        return PutMeaning.REPLACE
    return PutMeaning.REAFFIRM if is_stored else PutMeaning.ATTACH


def next_content_time(now: datetime, *replaced: datetime | None) -> datetime:
    """`contentLastModified` of new content: later than everything that it replaces (house, decision 9)."""
    return max([now, *(when + MILLISECOND for when in replaced if when is not None)])


def meta_checksum_of(row: ArtifactRow) -> str:
    """`metaChecksum` of a row as it stands."""
    return artifact_meta_checksum(
        identity=row.id,
        uri=row.uri,
        uri_bucket=row.uri_bucket,
        content_checksum=row.content_checksum,
        content_last_modified=row.content_last_modified,
        content_length=row.content_length,
        content_type=row.content_type,
        content_encoding=row.content_encoding,
    )
