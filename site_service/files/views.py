"""The door to files: HEAD, GET, PUT, POST, DELETE and OPTIONS on `/files/…`. Order only, no decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from datamodel import auth, representation
from datamodel.doors import decides
from datamodel.errors import (
    InvalidRequestError,
    InventoryError,
    NotPermittedError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
)
from datamodel.operations import Recorded, Superseded
from datamodel.permissions import Caller, Grant, grant_for, may, may_create, require
from datamodel.preauth import SigningKey
from datamodel.rules import ArtifactRow, Located
from site_service.files import (
    headers,
    listing,
    operations,
    put_transactions,
    queries,
    reading,
    receipts,
    responses,
    rules,
)
from site_service.files.body import RequestBody
from site_service.files.headers import PutRequest, TransactionOp
from site_service.files.paths import FilePath, ListingPath, parse_path
from site_service.files.rules import ReadVerdict, Span, Unsatisfiable
from site_service.storage.contract import ByteRange, Readable, StoreCapabilities
from site_service.storage.registry import get_store

_SODA = frozenset({"SUB", "CIRCLE", "POLYGON", "POS", "BAND", "TIME", "POL", "META"})
_SAFE = frozenset({"GET", "HEAD"})
_FILE_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")
_LISTING_METHODS = ("GET", "HEAD", "OPTIONS")


@csrf_exempt
@decides(Grant.READ, Grant.WRITE, Grant.DELETE)
def files(request: HttpRequest) -> HttpResponseBase:
    """Everything below `/files/`."""
    if request.method not in _FILE_METHODS:
        return HttpResponseNotAllowed(_FILE_METHODS)
    path = parse_path(request.path_info.removeprefix(f"/{settings.INVENTORY_BASE_PATH}files/"))
    allowed = _LISTING_METHODS if isinstance(path, ListingPath) else _FILE_METHODS
    if request.method == "OPTIONS":
        return _options(allowed)
    if request.method not in allowed:
        return HttpResponseNotAllowed(allowed)
    if isinstance(path, ListingPath):
        return listing.list_namespace(request, path.namespace)
    return _METHODS[str(request.method)](request, path)


def _options(allowed: tuple[str, ...]) -> HttpResponse:
    response = responses.empty_response(204)
    response["Allow"] = ", ".join(allowed)
    return response


# Reading


def _read(request: HttpRequest, path: FilePath) -> HttpResponseBase:
    _refuse_soda(request)
    transaction = headers.parse_transaction(request)
    if request.method == "HEAD" and transaction.transaction_id is not None:
        return _head_transaction(request, path, transaction.transaction_id)
    _authorize(request, path)
    artifact, located = reading.readable(path.uri, queries.file_state(path.uri))
    # The connection goes back to the pool before the first byte: a slow reader must not hold one.
    connection.close()
    verdict = rules.judge_read(
        headers.parse_conditions(request), etag=artifact.etag, last_modified=artifact.content_last_modified
    )
    if verdict is ReadVerdict.FAILED:
        raise PreconditionFailedError("If-Match or If-Unmodified-Since does not hold", etag=artifact.etag)
    if verdict is ReadVerdict.NOT_MODIFIED:
        return responses.not_modified_response(artifact)
    if request.method == "HEAD":
        return responses.head_response(request, artifact, path.filename)
    return _send(request, path, artifact, located)


def _send(request: HttpRequest, path: FilePath, artifact: ArtifactRow, located: Located) -> HttpResponseBase:
    header = headers.applicable_range(request, etag=artifact.etag, last_modified=artifact.content_last_modified)
    spans = rules.choose_spans(header, artifact.content_length) if header is not None else None
    if isinstance(spans, Unsatisfiable):
        raise RangeNotSatisfiableError("the range lies outside the content", length=artifact.content_length)
    store = get_store()
    is_file = store.capabilities.is_local
    with reading.reporting_missing(store, artifact, located):
        if not spans:
            content = _open(request, artifact, located, None)
            return responses.whole_response(request, artifact, path.filename, content, is_file=is_file)
        if len(spans) == 1:
            content = _open(request, artifact, located, spans[0])
            return responses.range_response(request, artifact, path.filename, content, spans[0], is_file=is_file)
        parts = responses.MultipartRanges(store, located.storage_id, artifact, spans)
        return responses.multipart_response(request, artifact, path.filename, parts)


def _open(request: HttpRequest, artifact: ArtifactRow, located: Located, span: Span | None) -> Readable:
    asked = ByteRange(span.start, span.length) if span is not None else None
    return get_store().open(
        located.storage_id,
        expected_length=artifact.content_length,
        byte_range=asked,
        drop_behind=headers.is_read_once(request),
    )


def _refuse_soda(request: HttpRequest) -> None:
    # Nearly nobody sends a query, and to take one apart costs as much as all other headers.
    if not request.META.get("QUERY_STRING"):
        return
    asked = sorted({name for name in request.GET if name.upper() in _SODA})
    if asked:
        raise InvalidRequestError(f"SODA operations are not built into this service: leave out {', '.join(asked)}")


def _head_transaction(request: HttpRequest, path: FilePath, transaction_id: str) -> HttpResponseBase:
    _authorize(request, path, transaction_id)
    held, row = put_transactions.status(store=get_store(), uri=path.uri, transaction_id=transaction_id)
    response = responses.transaction_response(200, held, _segment_sizes())
    representation.set_metadata(response, row.content_type, row.content_encoding)
    response["Content-Length"] = str(held.length)
    return response


# Writing


def _put(request: HttpRequest, path: FilePath) -> HttpResponseBase:
    body = _body(request, headers.parse_length(request))
    try:
        _refuse_override(path)
        put = headers.parse_put(request)
        caller = _authorize(request, path, put.transaction.transaction_id)
        if not may(caller, Grant.WRITE, path.uri):
            put = replace(put, preconditions=replace(put.preconditions, if_none_match=("*",)))
        key = receipts.wanted_key(request)
        return _put_content(path, caller, put, body, key)
    except InventoryError:
        connection.close()
        body.discard()
        raise


def _put_content(
    path: FilePath, caller: Caller, put: PutRequest, body: RequestBody, key: SigningKey | None
) -> HttpResponseBase:
    match put.transaction.op, put.transaction.transaction_id:
        case None, None:
            recorded = operations.put_artifact(
                store=get_store(), uri=path.uri, content=body, put=put, superseded=_superseded(caller)
            )
            return _created(recorded, key)
        case TransactionOp.START, None:
            token = auth.token_digest(path.token) if path.token is not None else None
            status = put_transactions.begin(store=get_store(), uri=path.uri, content=body, put=put, token_digest=token)
            return responses.transaction_response(202, status, _segment_sizes())
        case None, str() as identity:
            status = put_transactions.append(
                store=get_store(), uri=path.uri, transaction_id=identity, content=body, put=put
            )
            return responses.transaction_response(202, status, _segment_sizes())
        case TransactionOp.COMMIT, str() as identity:
            return _commit(path, caller, put, body, identity, key)
        case op, _:
            raise InvalidRequestError(
                f"x-put-txn-op {op} does not fit here: PUT takes start (without x-put-txn-id) or commit (with it)"
            )


def _commit(
    path: FilePath, caller: Caller, put: PutRequest, body: RequestBody, identity: str, key: SigningKey | None
) -> HttpResponseBase:
    if body.read(1):
        raise InvalidRequestError("a commit takes no body: send Content-Length: 0")
    recorded = put_transactions.commit(
        store=get_store(), uri=path.uri, transaction_id=identity, put=put, superseded=_superseded(caller)
    )
    return _created(recorded, key)


def _created(recorded: Recorded, key: SigningKey | None) -> HttpResponse:
    response = responses.created_response(recorded.artifact, recorded.txid)
    return response if key is None else receipts.add_receipt(response, recorded.artifact, key)


def _post(request: HttpRequest, path: FilePath) -> HttpResponseBase:
    _refuse_override(path)
    transaction = headers.parse_transaction(request)
    _authorize(request, path, transaction.transaction_id)
    if transaction.is_asked:
        return _post_transaction(path, transaction.op, transaction.transaction_id)
    recorded = operations.update_artifact(
        store=get_store(),
        uri=path.uri,
        metadata=headers.parse_metadata(request),
        preconditions=headers.parse_preconditions(request),
    )
    return responses.updated_response(recorded.artifact, recorded.txid)


def _post_transaction(path: FilePath, op: TransactionOp | None, identity: str | None) -> HttpResponseBase:
    store = get_store()
    if identity is None or op in {TransactionOp.START, TransactionOp.COMMIT}:
        raise InvalidRequestError("POST takes x-put-txn-id with x-put-txn-op revert or abort; start and commit are PUT")
    match op:
        case TransactionOp.ABORT:
            put_transactions.abort(store=store, uri=path.uri, transaction_id=identity)
            return responses.empty_response(204)
        case TransactionOp.REVERT:
            status = put_transactions.revert(store=store, uri=path.uri, transaction_id=identity)
            return responses.transaction_response(202, status, _segment_sizes())
    status, _ = put_transactions.status(store=store, uri=path.uri, transaction_id=identity)
    return responses.transaction_response(204, status, _segment_sizes())


def _delete(request: HttpRequest, path: FilePath) -> HttpResponseBase:
    _refuse_override(path)
    _authorize(request, path)
    txid = operations.delete_artifact(uri=path.uri, preconditions=headers.parse_preconditions(request))
    return responses.deleted_response(txid)


def _body(request: HttpRequest, length: int | None) -> RequestBody:
    return RequestBody(
        request.META,
        length=length,
        limit=operations.content_limit(get_store()),
        timeout=settings.INVENTORY_READ_TIMEOUT_SECONDS,
    )


def _refuse_override(path: FilePath) -> None:
    if path.filename is not None:
        raise InvalidRequestError("':fo/' names a file for saving; it is for GET and HEAD only")


def _superseded(caller: Caller) -> Superseded | None:
    if caller.known_id is None or caller.known_at is None:
        return None
    return Superseded(caller.known_id, caller.known_at)


def _segment_sizes() -> tuple[int, int | None]:
    capabilities: StoreCapabilities = get_store().capabilities
    return capabilities.min_segment, capabilities.max_segment


# Callers


def _authorize(request: HttpRequest, path: FilePath, transaction_id: str | None = None) -> Caller:
    """Who is calling, if granted. A signed URL with which a put transaction was begun may finish it after its expiry."""
    method = str(request.method)
    if path.token is not None:
        begun_at = _begun_with(path.token, transaction_id)
        caller = reading.caller_by_url(request, path.token, path.uri, http_method=method, begun_at=begun_at)
    else:
        caller = auth.caller_of(request)
        if caller.method == "session" and method not in _SAFE:
            # A browser sends its cookie whoever made the page: a session may look, a token may write.
            raise NotPermittedError("a browser session may only read files; send a bearer token or a signed URL")
    auth.note_caller(request, caller)
    if not (method == "PUT" and may_create(caller, path.uri)):
        require(caller, grant_for(method), path.uri)
    return caller


def _begun_with(token: str, transaction_id: str | None) -> datetime | None:
    begun = put_transactions.begun(transaction_id) if transaction_id is not None else None
    return begun.begun_at if begun is not None and begun.token_digest == auth.token_digest(token) else None


_METHODS: dict[str, Callable[[HttpRequest, FilePath], HttpResponseBase]] = {
    "GET": _read,
    "HEAD": _read,
    "PUT": _put,
    "POST": _post,
    "DELETE": _delete,
}
