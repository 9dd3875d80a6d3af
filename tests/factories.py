"""One builder per entity, valid by default."""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime

from django.db import transaction

from datamodel import notify
from datamodel.content import NewContent
from datamodel.processes import wait_until
from datamodel.rows import insert_artifact
from datamodel.rules import ArtifactRow, Located, meta_checksum_of
from datamodel.uris import ArtifactUri

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


def new_content(data: bytes = b"content", **changes: object) -> NewContent:
    """Content as a store would have measured it, at a place of its own."""
    storage_id = uuid.uuid4().hex
    content = NewContent(
        artifact_id=uuid.uuid4(),
        located=Located(storage_id, storage_id[:4]),
        content_checksum="md5:" + hashlib.md5(data).hexdigest(),
        content_length=len(data),
        content_sha256=hashlib.sha256(data).digest(),
    )
    return replace(content, **changes)  # type: ignore[arg-type]  # the caller names real fields


def artifact_row(uri: str = "cadc:TEST/file.fits", data: bytes = b"content", **changes: object) -> ArtifactRow:
    """A row with a right metadata checksum, unless the changes name one."""
    parsed = ArtifactUri.parse(uri)
    row = ArtifactRow(
        id=uuid.uuid4(),
        uri=parsed.value,
        uri_bucket=parsed.bucket,
        content_checksum="md5:" + hashlib.md5(data).hexdigest(),
        content_last_modified=WHEN,
        content_length=len(data),
        content_type=None,
        content_encoding=None,
        last_modified=WHEN,
        meta_checksum="",
        content_sha256=hashlib.sha256(data).digest(),
        meta_modified_at=WHEN,
    )
    row = replace(row, **changes)  # type: ignore[arg-type]  # the caller names real fields
    return row if row.meta_checksum else replace(row, meta_checksum=meta_checksum_of(row))


def insert_artifact_row(row: ArtifactRow, located: Located | None = None) -> None:
    """Committed, as if harvested (or, with a location, stored)."""
    with transaction.atomic():
        insert_artifact(row, located)


def settle_rights() -> None:
    """Wait until this process has heard of every change of rights so far, so that what it remembers stays remembered."""
    heard = [notify.news.access()]

    def is_quiet() -> bool:
        time.sleep(0.2)
        heard.append(notify.news.access())
        return heard[-1] == heard[-2] and heard[-1][1]

    wait_until(is_quiet, 30, "nobody listens, or rights change all the time")
