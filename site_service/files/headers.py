"""Request headers of the file service as frozen dataclasses: what was declared, under which conditions, in which transaction."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from django.http import HttpRequest

from datamodel.checksums import Checksum, parse_content_md5, parse_digest_header, parse_structured_digests
from datamodel.errors import InvalidChecksumError, InvalidRequestError
from datamodel.operations import Preconditions
from site_service.files.rules import ReadConditions

MAX_TYPE_LENGTH = 128

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# What is kept goes into headers again, also when it came as a parameter: nothing but tabs and printable ASCII.
_TYPE = re.compile(rf'{_WORD}/{_WORD}([ \t]*;[ \t]*({_WORD}=({_WORD}|"([\t !#-\[\]-~]|\\[\t -~])*"))?)*\Z')
_PRINTABLE = re.compile(r"[ -~]*\Z")
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_ETAG = re.compile(r'\s*((?:W/)?"[!#-~\x80-\xff]*")\s*(?:,|\Z)')
_TRANSACTION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")


class TransactionOp(StrEnum):
    """Values of `x-put-txn-op`."""

    START = "start"
    COMMIT = "commit"
    REVERT = "revert"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class TransactionRequest:
    """The put transaction headers of a request (reference 2.7)."""

    op: TransactionOp | None = None
    transaction_id: str | None = None
    total_length: int | None = None

    @property
    def is_asked(self) -> bool:
        return self.op is not None or self.transaction_id is not None


@dataclass(frozen=True, slots=True)
class ContentMetadata:
    """The two mutable fields of an artifact, as a request names them."""

    content_type: str | None = None
    content_encoding: str | None = None


@dataclass(frozen=True, slots=True)
class PutRequest:
    """What a PUT declares. `length` is None for a chunked body.

    `checksums` are of the whole content; `segment_checksums` (Content-Digest, Content-MD5) of this body: the same unless the
    body is one segment of a put transaction.
    """

    length: int | None
    metadata: ContentMetadata = ContentMetadata()
    checksums: dict[str, str] = field(default_factory=dict)
    segment_checksums: dict[str, str] = field(default_factory=dict)
    preconditions: Preconditions = field(default_factory=Preconditions)
    transaction: TransactionRequest = TransactionRequest()

    @property
    def all_checksums(self) -> dict[str, str]:
        """Both kinds, for a body that is the whole content."""
        return _agree([*_as_checksums(self.checksums), *_as_checksums(self.segment_checksums)])


def parse_put(request: HttpRequest) -> PutRequest:
    """Raises `InvalidRequestError` or `InvalidChecksumError` naming the header that is wrong."""
    if "Content-Range" in request.headers:
        # RFC 9110, 14.5: taken for a whole, a part would replace it.
        raise InvalidRequestError("Content-Range does not fit a PUT: send the whole, or segments of a put transaction")
    put = PutRequest(
        length=parse_length(request),
        metadata=ContentMetadata(
            check_content_type(request.META.get("CONTENT_TYPE") or None),
            check_content_encoding(request.headers.get("Content-Encoding") or None),
        ),
        checksums=_content_checksums(request),
        segment_checksums=_body_checksums(request),
        preconditions=parse_preconditions(request),
        transaction=parse_transaction(request),
    )
    if not put.transaction.is_asked:
        _agree([*_as_checksums(put.checksums), *_as_checksums(put.segment_checksums)])
    return put


def parse_length(request: HttpRequest) -> int | None:
    """The declared length of the body, or None when it is chunked. Raises `InvalidRequestError` for neither."""
    coding = request.headers.get("Transfer-Encoding", "").strip().lower()
    if coding not in {"", "chunked"}:
        # The server undoes chunks only: what else was done to the bytes would be stored with them.
        raise InvalidRequestError(
            f"the transfer coding {coding!r} is not known here; send chunked, or a Content-Length"
        )
    if coding:
        if not request.META.get("wsgi.input_terminated"):
            raise InvalidRequestError("this server does not take chunked bodies; send a Content-Length")
        return None
    declared = request.META.get("CONTENT_LENGTH", "")
    if declared == "":
        raise InvalidRequestError("send a Content-Length (0 for an empty file) or a chunked body")
    return _number("Content-Length", declared)


def parse_preconditions(request: HttpRequest) -> Preconditions:
    """`If-Match` and `If-None-Match` of a write. A weak tag never matches in If-Match, and counts as strong in the other."""
    wanted = _etags("If-Match", request.headers.get("If-Match"))
    unwanted = _etags("If-None-Match", request.headers.get("If-None-Match"))
    return Preconditions(wanted, tuple(tag.removeprefix("W/") for tag in unwanted))


def parse_conditions(request: HttpRequest) -> ReadConditions:
    """The conditions of a GET or HEAD. Raises `InvalidRequestError` for malformed tags; unreadable dates do not count."""
    return ReadConditions(
        if_match=_etags("If-Match", request.headers.get("If-Match")),
        if_none_match=_etags("If-None-Match", request.headers.get("If-None-Match")),
        if_modified_since=parse_date(request.headers.get("If-Modified-Since")),
        if_unmodified_since=parse_date(request.headers.get("If-Unmodified-Since")),
    )


def parse_date(text: str | None) -> datetime | None:
    """An HTTP date; None if absent or unreadable (RFC 9110 has recipients ignore those)."""
    if not text:
        return None
    try:
        when = parsedate_to_datetime(text)
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def applicable_range(request: HttpRequest, *, etag: str, last_modified: datetime) -> str | None:
    """The Range header, unless an If-Range says that the client's part is of other content (RFC 9110, 13.1.5)."""
    condition = request.headers.get("If-Range", "").strip()
    header = request.headers.get("Range")
    if not condition or header is None:
        return header
    is_same = condition == etag or parse_date(condition) == last_modified.replace(microsecond=0)
    return header if is_same else None


def is_read_once(request: HttpRequest) -> bool:
    """Whether the client asks that nobody on the way keep the content (`Cache-Control: no-store`: RFC 9111, 5.2.1.5)."""
    header = request.META.get("HTTP_CACHE_CONTROL")
    return header is not None and "no-store" in [each.strip().lower() for each in header.split(",")]


def parse_transaction(request: HttpRequest) -> TransactionRequest:
    """The `x-put-txn-…` headers. Raises `InvalidRequestError`."""
    op, identity = request.headers.get("X-Put-Txn-Op"), request.headers.get("X-Put-Txn-Id")
    total = request.headers.get("X-Total-Length")
    if op is not None and op.strip().lower() not in set(TransactionOp):
        raise InvalidRequestError(f"invalid x-put-txn-op {op!r}: send start or commit (PUT), revert or abort (POST)")
    if identity is not None and not _TRANSACTION_ID.match(identity.strip()):
        raise InvalidRequestError("invalid x-put-txn-id: pass it on as the answer to start gave it")
    return TransactionRequest(
        TransactionOp(op.strip().lower()) if op is not None else None,
        identity.strip() if identity is not None else None,
        _number("x-total-length", total) if total is not None else None,
    )


def check_content_type(text: str | None) -> str | None:
    """`type/subtype[; parameters]` in at most 128 characters. Raises `InvalidRequestError`."""
    if text is None:
        return None
    stripped = text.strip()
    if len(stripped) > MAX_TYPE_LENGTH or not _TYPE.match(stripped):
        raise InvalidRequestError(
            f"invalid content type {stripped[:MAX_TYPE_LENGTH]!r}: write type/subtype, at most {MAX_TYPE_LENGTH} characters"
        )
    return stripped


def check_content_encoding(text: str | None) -> str | None:
    """Kept word for word, so it must fit into a header: printable ASCII, at most 128 characters."""
    if text is None:
        return None
    stripped = text.strip()
    if not stripped or len(stripped) > MAX_TYPE_LENGTH or not _PRINTABLE.match(stripped):
        raise InvalidRequestError(
            f"invalid content encoding: write 1 to {MAX_TYPE_LENGTH} printable ASCII characters, as in gzip"
        )
    return stripped


def parse_metadata(request: HttpRequest) -> ContentMetadata:
    """Form or query parameters `contentType`, `contentEncoding` (reference 2.8). Raises `InvalidRequestError`."""
    given = {
        name: request.POST.get(name) or request.GET.get(name) or None for name in ("contentType", "contentEncoding")
    }
    if not any(given.values()):
        raise InvalidRequestError(
            "send contentType or contentEncoding as form or query parameter; neither can be cleared"
        )
    return ContentMetadata(check_content_type(given["contentType"]), check_content_encoding(given["contentEncoding"]))


def _content_checksums(request: HttpRequest) -> dict[str, str]:
    declared: list[Checksum] = []
    if header := request.headers.get("Digest"):
        declared.append(parse_digest_header(header))
    if header := request.headers.get("Repr-Digest"):
        declared.extend(parse_structured_digests(header))
    return _agree(declared)


def _body_checksums(request: HttpRequest) -> dict[str, str]:
    declared: list[Checksum] = []
    if header := request.headers.get("Content-MD5"):
        declared.append(parse_content_md5(header))
    if header := request.headers.get("Content-Digest"):
        declared.extend(parse_structured_digests(header))
    return _agree(declared)


def _agree(checksums: Iterable[Checksum]) -> dict[str, str]:
    agreed: dict[str, str] = {}
    for checksum in checksums:
        if agreed.setdefault(checksum.algorithm, checksum.hex) != checksum.hex:
            raise InvalidChecksumError(f"the declared {checksum.algorithm} digests contradict each other")
    return agreed


def _as_checksums(declared: dict[str, str]) -> list[Checksum]:
    return [Checksum(algorithm, digits) for algorithm, digits in declared.items()]


def _number(name: str, text: str) -> int:
    if not _NUMBER.match(text.strip()):
        raise InvalidRequestError(f"invalid {name} {text!r}: write a decimal number of bytes")
    return int(text)


def _etags(name: str, header: str | None) -> tuple[str, ...]:
    if header is None:
        return ()
    if header.strip() == "*":
        return ("*",)
    tags: list[str] = []
    position = 0
    while position < len(header):
        match = _ETAG.match(header, position)
        if match is None:
            raise InvalidRequestError(f'invalid {name} {header!r}: write "TAG" in double quotes, or *')
        tags.append(match[1])
        position = match.end()
    return tuple(tags)
