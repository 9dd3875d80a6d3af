"""What negotiation reads of a request: its whole small body, its kind, the position it must not be older than."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from django.http import HttpRequest

from datamodel.errors import ContentTooLargeError, InvalidRequestError, ShortBodyError
from datamodel.positions import POSITION_HEADER, Position
from global_inventory.locate.bulk import MAX_URIS
from global_inventory.sites.rules import Direction

_XML_TYPES = frozenset({"text/xml", "application/xml"})
_JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class LocateRequest:
    """One uri, or several in bulk (then `is_bulk`, and the direction is get)."""

    uris: tuple[str, ...]
    direction: Direction
    is_bulk: bool


def position_of(request: HttpRequest) -> Position | None:
    """The `x-inventory-position` that the answer must not be older than. Raises `InvalidRequestError`."""
    text = request.headers.get(POSITION_HEADER)
    return Position.parse(text.strip()) if text else None


def is_xml(request: HttpRequest) -> bool:
    """Whether the body is a VOSpace document, else JSON. Raises `InvalidRequestError` for anything else."""
    kind = (request.content_type or "").lower()
    if kind in _XML_TYPES:
        return True
    if kind == _JSON_TYPE:
        return False
    raise InvalidRequestError(f"send application/json or text/xml; the content type is {kind or 'missing'}")


def read_body(request: HttpRequest, *, limit: int) -> bytes:
    """The whole body. Raises `ContentTooLargeError`, `ShortBodyError`.

    A chunked one is read from the server's own stream: Django's request silently takes it for empty (house, decision 3).
    """
    declared = request.META.get("CONTENT_LENGTH") or ""
    is_chunked = "chunked" in request.headers.get("Transfer-Encoding", "").lower()
    stream = request.META["wsgi.input"] if is_chunked else request
    pieces: list[bytes] = []
    length = 0
    try:
        while length <= limit and (piece := stream.read(limit + 1 - length)):
            pieces.append(piece)
            length += len(piece)
    except OSError as error:
        raise ShortBodyError(f"the body was cut after {length} bytes, or nothing came for too long") from error
    if length > limit:
        raise ContentTooLargeError(f"the body may have at most {limit} bytes")
    if not is_chunked and declared.isdecimal() and length < int(declared):
        raise ShortBodyError(f"the body ended after {length} of {declared} bytes")
    return b"".join(pieces)


def parse_locate(body: bytes) -> LocateRequest:
    """From JSON. Raises `InvalidRequestError` naming what is wrong."""
    document = _json_object(body)
    direction = _direction(document.get("direction", "get"))
    if ("uri" in document) == ("uris" in document):
        raise InvalidRequestError('send either "uri" (a text) or "uris" (a list of texts)')
    if "uri" in document:
        return LocateRequest((_text(document["uri"]),), direction, is_bulk=False)
    uris = document["uris"]
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        raise InvalidRequestError('"uris" must be a list of texts')
    if len(uris) > MAX_URIS:
        raise InvalidRequestError(f'"uris" may have at most {MAX_URIS} entries; it has {len(uris)}')
    if direction is not Direction.GET:
        raise InvalidRequestError('the direction "put" takes one "uri" in each call')
    return LocateRequest(tuple(uris), direction, is_bulk=True)


def _json_object(body: bytes) -> Mapping[str, object]:
    if not body.strip():
        raise InvalidRequestError(
            'the body is empty; send JSON such as {"uri": "cadc:TEST/file.fits", "direction": "get"}'
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return document


def _direction(value: object) -> Direction:
    try:
        return Direction(str(value))
    except ValueError:
        raise InvalidRequestError(f'"direction" must be "get" or "put"; it is {value!r}') from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError('"uri" must be a text')
    return value
