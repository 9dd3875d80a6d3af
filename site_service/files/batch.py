"""`POST /batch`: many small files in one answer, each judged and answered exactly as a GET of its signed URL would be.

The answer is `multipart/mixed`; each part is an `application/http` message: the status line, headers and body of that GET. Files
are opened one after the other while the answer is sent, so memory is flat; one that breaks off in the middle of a file, or whose
last boundary is missing, is cut.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.encoding import repercent_broken_unicode
from django.views.decorators.csrf import csrf_exempt

from datamodel import metrics
from datamodel.audit import acting
from datamodel.audit.pending import pending
from datamodel.audit.reads import read_rules
from datamodel.audit.rules import Action
from datamodel.auth import caller_of
from datamodel.doors import decides
from datamodel.errors import ContentTooLargeError, InvalidRequestError, InventoryError
from datamodel.logs import request_id
from datamodel.permissions import ANONYMOUS, Caller, Grant, require, require_somewhere
from datamodel.problems import problem_response
from datamodel.rules import ArtifactRow, Located
from site_service.files import queries, reading, responses
from site_service.files.paths import FilePath, parse_path
from site_service.files.queries import FileState
from site_service.storage.contract import Readable
from site_service.storage.registry import get_store

logger = logging.getLogger("inventory.files")

MAX_FILES = 256
MAX_BYTES = 8 * 1024 * 1024

# Whoever sends it need not be known before it is read: 256 long URIs with long tokens fit.
MAX_BODY_BYTES = 1024 * 1024

_EXAMPLE = '{"urls": ["files/{token}/{uri}", …]}: signed URLs of this site, from files/ on'
# Small parts are handed to the server together.
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class _File:
    """One that may be read: what is sent, and of how many of 100 reads the audit has it stand for one (0: not recorded)."""

    path: FilePath
    caller: Caller
    artifact: ArtifactRow
    located: Located
    percent: int


@dataclass(frozen=True, slots=True)
class _Refusal:
    """One that may not, or is not there: for whom, and why."""

    subject: str
    caller: Caller | None
    error: InventoryError


@csrf_exempt
@decides(Grant.READ)
def batch(request: HttpRequest) -> HttpResponseBase:
    """Read up to 256 files, 8 MiB together, by their signed URLs; one statement for all of them."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    try:
        targets = _targets(request)
    except InvalidRequestError:
        # What is wrong with a request without any permission is told to whoever may read something here.
        require_somewhere(caller_of(request), Grant.READ)
        raise
    answers = list(_judged(request, targets))
    # The connection goes back to the pool before the first byte: a slow reader must not hold one.
    connection.close()
    boundary = secrets.token_hex(16)
    parts = _Answer(request, boundary).parts(answers)
    response = StreamingHttpResponse(parts, content_type=f"multipart/mixed; boundary={boundary}")
    response["Cache-Control"] = "no-store"
    return response


# What is asked for


def _targets(request: HttpRequest) -> list[str]:
    """The paths below `/files/`, decoded once, as a server decodes that of a request.

    Raises `InvalidRequestError`, `ContentTooLargeError`.
    """
    if int(request.META.get("CONTENT_LENGTH") or 0) > MAX_BODY_BYTES:
        raise ContentTooLargeError(f"the body may have at most {MAX_BODY_BYTES} bytes")
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not JSON; send {_EXAMPLE}") from error
    urls = document.get("urls") if isinstance(document, dict) else None
    if not isinstance(urls, list) or not 0 < len(urls) <= MAX_FILES:
        raise InvalidRequestError(f"send 1 to {MAX_FILES} URLs: {_EXAMPLE}")
    return [_target(url) for url in urls]


def _target(url: object) -> str:
    before, mark, rest = url.partition("files/") if isinstance(url, str) else ("", "", "")
    token, slash, _ = rest.partition("/")
    if before or not mark or not slash or not token or ":" in token or "?" in rest or "#" in rest:
        raise InvalidRequestError(f"{url!r:.200} is not a signed URL, relative and without query: {_EXAMPLE}")
    try:
        return repercent_broken_unicode(unquote_to_bytes(rest)).decode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError("a URL has half a character in it") from error


def _judged(request: HttpRequest, targets: Sequence[str]) -> Iterator[_File | _Refusal]:
    """In their order; what would make the answer too large is refused."""
    called = [_called(request, target) for target in targets]
    uris = [one[0].uri for one in called if isinstance(one, tuple)]
    states = queries.file_states(uris) if uris else {}
    left = MAX_BYTES
    for one in called:
        judged = one if isinstance(one, _Refusal) else _found(*one, states[one[0].uri.value], left)
        left -= judged.artifact.content_length if isinstance(judged, _File) else 0
        yield judged


def _called(request: HttpRequest, target: str) -> tuple[FilePath, Caller] | _Refusal:
    subject, caller = target.partition("/")[2], None
    try:
        path = parse_path(target)
        if not isinstance(path, FilePath) or path.token is None:
            raise InvalidRequestError(f"{subject!r:.200} is not one file")
        subject = path.uri.value
        caller = reading.caller_by_url(request, path.token, path.uri, http_method="GET")
        require(caller, Grant.READ, path.uri)
    except InventoryError as error:
        return _Refusal(subject, caller, error)
    return path, caller


def _found(path: FilePath, caller: Caller, state: FileState, left: int) -> _File | _Refusal:
    try:
        artifact, located = reading.readable(path.uri, state)
        if artifact.content_length > left:
            raise ContentTooLargeError(
                f"ask for it alone: with its {artifact.content_length} bytes this answer would have more than {MAX_BYTES}"
            )
    except InventoryError as error:
        return _Refusal(path.uri.value, caller, error)
    return _File(path, caller, artifact, located, read_rules.chosen(path.uri.value))


# The answer


@dataclass(slots=True)
class _Tally:
    """Facts of the END line, collected while the answer is sent."""

    started: float = field(default_factory=time.monotonic)
    files: int = 0
    size: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    callers: set[str] = field(default_factory=set)


class _Answer:
    """Sends the parts. Of its request it keeps what the log and the audit say of each of them: it is over by then."""

    def __init__(self, request: HttpRequest, boundary: str) -> None:
        self._request = request
        self._boundary = boundary
        self._identity = request_id.get()
        self._store = get_store()
        self._tally = _Tally()

    def parts(self, answers: Sequence[_File | _Refusal]) -> Iterator[bytes]:
        """In blocks. A file that cannot be opened is a problem like any other; one that fails later cuts the answer."""
        result, held = "cut", bytearray()
        try:
            for answer in answers:
                for block in self._part(answer):
                    held += block
                    if len(held) >= _BLOCK:
                        yield bytes(held)
                        held.clear()
            yield bytes(held) + f"\r\n--{self._boundary}--\r\n".encode()
            result = "ok"
        finally:
            self._log(result)

    def _part(self, answer: _File | _Refusal) -> Iterator[bytes]:
        if isinstance(answer, _Refusal):
            yield self._problem(answer)
            return
        with ExitStack() as stack:
            try:
                with reading.reporting_missing(self._store, answer.artifact, answer.located):
                    content = stack.enter_context(closing(self._open(answer)))
                    block = content.read(_BLOCK)
            except InventoryError as error:
                yield self._problem(_Refusal(answer.artifact.uri, answer.caller, error))
                return
            self._note_read(answer)
            yield self._message(responses.head_response(self._request, answer.artifact, answer.path.filename))
            while block:
                yield block
                block = content.read(_BLOCK)

    def _open(self, answer: _File) -> Readable:
        return self._store.open(answer.located.storage_id, expected_length=answer.artifact.content_length)

    def _problem(self, refusal: _Refusal) -> bytes:
        error, caller = refusal.error, refusal.caller
        response = problem_response(error)
        response["Content-Length"] = str(len(response.content))
        metrics.count_answer("GET", response.status_code, error.code)
        self._tally.refused[error.code] += 1
        if error.is_refusal:
            name, method = (caller.name, caller.method) if caller is not None else (ANONYMOUS, ANONYMOUS)
            actor = acting.actor_called(self._request, name, method)
            pending.refused(actor, Action.READ, refusal.subject, reason=error.code, request=self._identity)
        return self._message(response) + response.content

    def _message(self, response: HttpResponse) -> bytes:
        """Everything of an `application/http` part (RFC 9112, 10.2) but the body."""
        head = [
            f"\r\n--{self._boundary}",
            "Content-Type: application/http",
            "Content-Transfer-Encoding: binary",
            "",
            f"HTTP/1.1 {response.status_code} {response.reason_phrase}",
            *(f"{name}: {value}" for name, value in response.items()),
            "\r\n",
        ]
        return "\r\n".join(head).encode("latin-1")

    def _note_read(self, answer: _File) -> None:
        metrics.count_answer("GET", 200, None)
        self._tally.files += 1
        self._tally.size += answer.artifact.content_length
        self._tally.callers.add(answer.caller.name)
        if answer.percent:
            actor = acting.actor_called(self._request, answer.caller.name, answer.caller.method)
            pending.read(actor, answer.path.uri.value, percent=answer.percent, request=self._identity)

    def _log(self, result: str) -> None:
        tally = self._tally
        facts = {
            "files": tally.files,
            "bytes": tally.size,
            "refused": ",".join(f"{code}:{count}" for code, count in sorted(tally.refused.items())) or None,
            "callers": ",".join(sorted(tally.callers)) or None,
            "seconds": f"{time.monotonic() - tally.started:.3f}",
            "result": result,
            "request": self._identity,
        }
        logger.info("END event=batch", extra={"facts": facts})
