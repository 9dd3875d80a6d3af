"""Answers of the file service: the headers of an artifact, its bytes, one range of them, or several."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from datamodel.checksums import Checksum
from datamodel.positions import POSITION_HEADER, position_of
from datamodel.representation import checksums_of, content_disposition, header_value, set_artifact_headers, set_digests
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from site_service.files import rules
from site_service.files.rules import Span
from site_service.storage.contract import ArtifactStore, ByteRange, PutTransactionStatus, Readable

BLOCK_SIZE = 256 * 1024

# A served file must never act in our origin, whatever it claims to be.
CONTENT_SECURITY = "sandbox; default-src 'none'; frame-ancestors 'none'"
_URI_SAFE = "/:+,=@!~*'()"


class StoredFileResponse(StreamingHttpResponse):
    """A body from an open object; a real file goes to the server whole, which then sends it without copying (sendfile)."""

    def __init__(self, content: Readable, *, status: int, is_file: bool) -> None:
        super().__init__(_Blocks(content), status=status)
        if is_file:
            self.file_to_stream = content
            self.block_size = BLOCK_SIZE


def set_serving_headers(response: HttpResponseBase, artifact: ArtifactRow, filename: str | None) -> None:
    """What a browser and a cache need to know when they get the bytes."""
    name = filename or ArtifactUri(artifact.uri).filename
    kind = "attachment" if rules.is_active(artifact.content_type) else "inline"
    response["Content-Disposition"] = content_disposition(kind, name)
    response["Content-Security-Policy"] = CONTENT_SECURITY
    response["X-Content-Type-Options"] = "nosniff"


def _wanted(request: HttpRequest, artifact: ArtifactRow) -> list[str] | None:
    """None where nobody has a wish."""
    header = request.headers.get("Want-Repr-Digest")
    if header is None:
        return None
    available = [checksum.algorithm for checksum in checksums_of(artifact)]
    return rules.wanted_algorithms(header, available)


def head_response(request: HttpRequest, artifact: ArtifactRow, filename: str | None) -> HttpResponse:
    """All that GET would say, without the bytes."""
    response = HttpResponse()
    set_artifact_headers(response, artifact, _wanted(request, artifact))
    set_serving_headers(response, artifact, filename)
    response["Content-Length"] = str(artifact.content_length)
    return response


def not_modified_response(artifact: ArtifactRow) -> HttpResponse:
    """304 with what a cache may update (RFC 9110, 15.4.5)."""
    response = HttpResponse(status=304)
    set_artifact_headers(response, artifact)
    for name in ("Content-Type", "Content-Encoding", "Digest", "Repr-Digest"):
        del response[name]
    return response


def whole_response(
    request: HttpRequest, artifact: ArtifactRow, filename: str | None, content: Readable, *, is_file: bool
) -> HttpResponseBase:
    """200 with all bytes."""
    response = StoredFileResponse(content, status=200, is_file=is_file)
    set_artifact_headers(response, artifact, _wanted(request, artifact))
    set_serving_headers(response, artifact, filename)
    response["Content-Length"] = str(artifact.content_length)
    return response


def range_response(
    request: HttpRequest, artifact: ArtifactRow, filename: str | None, content: Readable, span: Span, *, is_file: bool
) -> HttpResponseBase:
    """206 with one range; the digests are those of the whole."""
    response = StoredFileResponse(content, status=206, is_file=is_file)
    set_artifact_headers(response, artifact, _wanted(request, artifact))
    set_serving_headers(response, artifact, filename)
    response["Content-Length"] = str(span.length)
    response["Content-Range"] = _content_range(span, artifact.content_length)
    return response


def multipart_response(
    request: HttpRequest,
    artifact: ArtifactRow,
    filename: str | None,
    parts: MultipartRanges,
) -> HttpResponseBase:
    """206 with several ranges as multipart/byteranges."""
    response = StreamingHttpResponse(parts, status=206)
    set_artifact_headers(response, artifact, _wanted(request, artifact))
    set_serving_headers(response, artifact, filename)
    response["Content-Type"] = f"multipart/byteranges; boundary={parts.boundary}"
    response["Content-Length"] = str(parts.length)
    return response


class MultipartRanges:
    """The body of a multipart/byteranges answer (RFC 9110, 14.6). The first part is opened at once: if bytes are missing, we know."""

    def __init__(self, store: ArtifactStore, storage_id: str, artifact: ArtifactRow, spans: Sequence[Span]) -> None:
        self.boundary = secrets.token_hex(16)
        self._store = store
        self._storage_id = storage_id
        self._artifact = artifact
        self._spans = spans
        self._open: Readable | None = self._open_part(spans[0])
        self._end = f"\r\n--{self.boundary}--\r\n".encode()

    @property
    def length(self) -> int:
        heads = sum(len(self._head(span)) + span.length for span in self._spans)
        return heads + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        for span in self._spans:
            content = self._open or self._open_part(span)
            self._open = content
            yield self._head(span)
            yield from _Blocks(content)
            self.close()
        yield self._end

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _open_part(self, span: Span) -> Readable:
        return self._store.open(
            self._storage_id,
            expected_length=self._artifact.content_length,
            byte_range=ByteRange(span.start, span.length),
        )

    def _head(self, span: Span) -> bytes:
        content_type = header_value(self._artifact.content_type)
        kind = f"Content-Type: {content_type}\r\n" if content_type else ""
        place = _content_range(span, self._artifact.content_length)
        return f"\r\n--{self.boundary}\r\n{kind}Content-Range: {place}\r\n\r\n".encode("latin-1")


def created_response(artifact: ArtifactRow, txid: int) -> HttpResponse:
    """201 after a PUT or the commit of a put transaction."""
    response = empty_response(201)
    response["x-artifact-id"] = str(artifact.id)
    set_digests(response, checksums_of(artifact))
    response["ETag"] = artifact.etag
    response["Location"] = f"{settings.INVENTORY_PUBLIC_URL}/files/{quote(artifact.uri, safe=_URI_SAFE)}"
    response[POSITION_HEADER] = str(position_of(txid))
    return response


def updated_response(artifact: ArtifactRow, txid: int) -> HttpResponse:
    """202 after a change of metadata, with the headers of HEAD."""
    response = empty_response(202)
    set_artifact_headers(response, artifact)
    response[POSITION_HEADER] = str(position_of(txid))
    return response


def deleted_response(txid: int) -> HttpResponse:
    """204 after a DELETE."""
    response = empty_response(204)
    response[POSITION_HEADER] = str(position_of(txid))
    return response


def transaction_response(
    status: int, transaction: PutTransactionStatus, segment: tuple[int, int | None]
) -> HttpResponse:
    """The state of a put transaction: its id, the sizes of segments, and the digests of all bytes if there are any."""
    response = empty_response(status)
    response["x-put-txn-id"] = transaction.transaction_id
    response["x-put-segment-minbytes"] = str(segment[0])
    if segment[1] is not None:
        response["x-put-segment-maxbytes"] = str(segment[1])
    if transaction.length:
        checksums = [Checksum(name, digits) for name, digits in sorted(transaction.checksums.items(), reverse=True)]
        set_digests(response, checksums)
    return response


def empty_response(status: int) -> HttpResponse:
    """No body, and no type of it."""
    response = HttpResponse(status=status)
    del response["Content-Type"]
    response["Content-Length"] = "0"
    return response


def _content_range(span: Span, length: int) -> str:
    return f"bytes {span.start}-{span.stop - 1}/{length}"


class _Blocks:
    """Iterates an open object; Django closes it with the response, however that ends."""

    def __init__(self, content: Readable) -> None:
        self._content = content
        # Taken now: Django replaces the `close` of a file that it hands to the server by that of the response.
        self._close = content.close

    def __iter__(self) -> Iterator[bytes]:
        while block := self._content.read(BLOCK_SIZE):
            yield block

    def close(self) -> None:
        self._close()
