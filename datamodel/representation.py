"""What HTTP says of an artifact, the same at a site and at a global (reference 2.3): digests, entity tag, dates, names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import quote

from django.conf import settings
from django.http.response import HttpResponseBase
from django.utils.http import http_date

from datamodel.checksums import Checksum, structured_digest
from datamodel.rules import ArtifactRow

_NOT_IN_FALLBACK = re.compile(r"[^ !#$&'()+,\-.0-9:;<=>?@A-Z\[\]^_`a-z{|}~]")
_IN_HEADER = re.compile(r"[\t -~]+\Z")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def checksums_of(artifact: ArtifactRow) -> list[Checksum]:
    """SHA-256 first, if known."""
    known = [Checksum.parse(artifact.content_checksum)]
    if artifact.content_sha256 is not None and known[0].algorithm != "sha-256":
        known.insert(0, Checksum.from_bytes("sha-256", artifact.content_sha256))
    return known


def set_digests(
    response: HttpResponseBase, checksums: Sequence[Checksum], algorithms: Sequence[str] | None = None
) -> None:
    """`Digest` with one value for existing clients (what the federation compares), `Repr-Digest` with those named, or the first."""
    by_name = {checksum.algorithm: checksum for checksum in checksums}
    federated = by_name.get(settings.INVENTORY_CONTENT_ALGORITHM) or checksums[-1]
    response["Digest"] = f"{federated.algorithm}={federated.base64}"
    if chosen := list(by_name)[:1] if algorithms is None else list(algorithms):
        response["Repr-Digest"] = structured_digest([by_name[name] for name in chosen])


def set_artifact_headers(
    response: HttpResponseBase, artifact: ArtifactRow, algorithms: Sequence[str] | None = None
) -> None:
    """What HEAD and GET say of an artifact, but for length and disposition."""
    response["x-artifact-id"] = str(artifact.id)
    set_digests(response, checksums_of(artifact), algorithms)
    response["ETag"] = artifact.etag
    response["Last-Modified"] = http_date(artifact.content_last_modified.timestamp())
    response["Accept-Ranges"] = "bytes"
    # Content may be replaced at any time, and most of it is not for everybody: ask again, with the entity tag.
    response["Cache-Control"] = "no-cache" if settings.INVENTORY_ANONYMOUS_READ else "private, no-cache"
    set_metadata(response, artifact.content_type, artifact.content_encoding)


def set_metadata(response: HttpResponseBase, content_type: str | None, content_encoding: str | None) -> None:
    """Type and encoding as they were given; none at all if none was."""
    del response["Content-Type"]
    if kind := header_value(content_type):
        response["Content-Type"] = kind
    if encoding := header_value(content_encoding):
        response["Content-Encoding"] = encoding


def header_value(text: str | None) -> str | None:
    """`text` if a header can carry it. Other inventories' rows may say anything: what cannot be sent is left out."""
    return text if text and _IN_HEADER.match(text) else None


def content_disposition(kind: str, filename: str) -> str:
    """RFC 6266, for any name: an ASCII form that every client reads, and the exact one where that differs."""
    shown = "".join("_" if unicodedata.category(char) in _UNSEEN else char for char in filename)
    shown = shown.replace("/", "_").replace("\\", "_")
    fallback = _NOT_IN_FALLBACK.sub("_", shown)
    value = f'{kind}; filename="{fallback}"'
    return value if fallback == shown else f"{value}; filename*=UTF-8''{quote(shown, safe='!#$&+-.^_`|~')}"
