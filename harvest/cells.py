"""Cells of COPY text, as they are on the wire, and the metadata checksums of rows of them. No clock, no I/O."""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Sequence
from datetime import datetime

from datamodel import rules
from datamodel.rules import MILLISECOND

NULL = r"\N"
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # as cells say it
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "\\": "\\"}


def text_of(cell: str) -> str | None:
    """What a cell says; None for NULL."""
    if "\\" not in cell:
        return cell
    return None if cell == NULL else _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), cell)


# Most rows say one time thrice.
@functools.lru_cache(maxsize=64)
def millis_of(cell: str) -> int:
    """A time, which is in UTC, since 1970. Raises `ValueError` for a day or an hour that there is not."""
    return (datetime.fromisoformat(cell) - _EPOCH) // MILLISECOND


def artifact_checksum(cells: Sequence[str]) -> str:
    """`metaChecksum` of the cells of the stream of artifacts, in its order, and the bucket, which is last."""
    _, identity, uri, checksum, content_last_modified, content_length, content_type, content_encoding, *_, bucket = (
        cells
    )
    return rules.artifact_checksum_of(
        bytes.fromhex(identity.replace("-", "")),
        millis_of(content_last_modified),
        int(content_length),
        (uri, bucket, checksum, text_of(content_type), text_of(content_encoding)),
    )


def event_checksum(cells: Sequence[str]) -> str:
    """The same of a stream of events."""
    _, identity, uri, *_ = cells
    return rules.event_meta_checksum(uuid.UUID(identity), text_of(uri))


def site_checksum(cells: Sequence[str]) -> str:
    """The same of the stream of sites."""
    _, identity, resource_id, name, allow_read, allow_write, *_ = cells
    return rules.site_meta_checksum(
        uuid.UUID(identity),
        allow_read=allow_read == "true",
        allow_write=allow_write == "true",
        name=text_of(name) or "",
        resource_id=text_of(resource_id) or "",
    )
