"""The asking side: pages of a remote feed, its news and its public keys, with typed failures.

A page is spooled whole and proven (count, digest, end line) before anyone sees a row: a cut stream is never a short one.
"""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlencode

import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError, LocationValueError
from urllib3.response import BaseHTTPResponse

from datamodel import key_statements, outbound
from datamodel.errors import (
    CursorGoneError,
    HistoryGoneError,
    RemoteProtocolError,
    RemoteRefusedError,
    RemoteUnavailableError,
)
from datamodel.keysets import parse_key_set
from datamodel.models import RemoteInventory
from datamodel.service_tokens import Credential
from datamodel.statements import UnbelievableStatementError
from harvest.pages import QUERY_LENGTH, Page, PageQuery, Receiver, new_rows
from harvest.streams import DELETIONS_HEADER, EPOCH_HEADER

_CHUNK_BYTES = 256 * 1024
_JSON_BYTES = 1024 * 1024
_PAGE_SECONDS = 300.0
_HEARTBEAT_SECONDS = 10.0
_REFUSALS = {400, 401, 403}
# To so many peers connections stay open between turns.
_PEERS = 100


@dataclass(frozen=True, slots=True)
class Remote:
    """Where another inventory is and how we identify ourselves there."""

    name: str
    url: str
    credential: Credential

    @classmethod
    def of(cls, remote: RemoteInventory) -> Self:
        """Raises `NotConfiguredError` when its token cannot be unsealed."""
        return cls(remote.name, remote.url.rstrip("/"), Credential.of(remote))


@dataclass(frozen=True, slots=True)
class RemoteNews:
    """The answer of `/harvest/news`; a server that does not say which streams have rows may have them in any.

    In the others nothing is new up to transaction `settled`. Events that happened until `expired_until` may be gone.
    """

    inventory_id: uuid.UUID
    epoch: str
    has_rows: bool
    settled: int
    streams: frozenset[str] | None
    expired_until: datetime | None = None


def fetch_page(remote: Remote, query: PageQuery, *, heartbeat: Callable[[], None] = lambda: None) -> Page:
    """One page; `heartbeat` is called every ten seconds while it arrives.

    Raises `RemoteUnavailableError` (unreachable, 5xx, too slow, cut), `RemoteRefusedError`, `CursorGoneError`, and
    `RemoteProtocolError` for whatever is not what it claims to be.
    """
    response = _get(remote, f"/harvest/{query.stream.name}?{query.text}")
    rows = new_rows()
    try:
        receiver = Receiver(remote.name, query, rows)
        last_beat = started = time.monotonic()
        while chunk := _read(remote, response):
            receiver.take(chunk)
            now = time.monotonic()
            if now - started > _PAGE_SECONDS:
                raise RemoteUnavailableError(f"{remote.name} took more than {_PAGE_SECONDS:.0f} s to send one page")
            if now - last_beat > _HEARTBEAT_SECONDS:
                heartbeat()
                last_beat = now
        return receiver.page(response.headers.get(EPOCH_HEADER), response.headers.get(DELETIONS_HEADER))
    except BaseException:
        rows.close()
        raise
    finally:
        response.close()


def fetch_news(remote: Remote, *, epoch: str, after: int, wait: int = 0, sender: uuid.UUID | None = None) -> RemoteNews:
    """Whether there are rows at or after transaction `after`, waiting up to `wait` seconds. Raises like `fetch_page`.

    Artifacts that the remote has from the site `sender` as they are, are none.
    """
    fields = {"epoch": epoch, "after": after, "wait": wait} | ({"sender": sender} if sender is not None else {})
    query = urlencode(fields)
    answer = _get_json(remote, f"/harvest/news?{query}", extra_seconds=wait)
    try:
        streams = frozenset(map(str, answer["streams"])) if "streams" in answer else None
        settled = min(int(answer.get("settled", 0)), int(answer["horizon"]) - 1)
        until = answer.get("expiredUntil")
        expired_until = datetime.fromisoformat(until) if until is not None else None
        known = uuid.UUID(answer["inventoryId"]), str(answer["epoch"]), bool(answer["news"])
        return RemoteNews(*known, settled, streams, expired_until)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RemoteProtocolError(f"{remote.name} answered /harvest/news with something else") from None


def fetch_public_keys(remote: Remote, *, believed: Callable[[str, bytes], None] | None = None) -> dict[str, bytes]:
    """Key id → raw Ed25519 public key, from the JSON key set (RFC 7517, 8037) at `/pubkey`; other kinds are left out.

    `believed` is asked about the statement that comes with the answer, and raises `UnbelievableStatementError`. Raises like `fetch_page`.
    """
    response = _get(remote, "/pubkey")
    statement = response.headers.get(key_statements.HEADER, "")
    seconds = settings.INVENTORY_REMOTE_TIMEOUT_SECONDS
    body = _read_whole(remote, response, most_bytes=_JSON_BYTES, seconds=seconds)
    try:
        if believed is not None:
            believed(statement, body)
        return parse_key_set(json.loads(body))
    except UnbelievableStatementError as error:
        raise RemoteProtocolError(f"{remote.name} publishes keys that are not its own to believe: {error}") from None
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"{remote.name} answered /pubkey with something else: {error}") from None


def fetch_text(
    remote: Remote,
    path: str,
    fields: Sequence[tuple[str, str]],
    *,
    seconds: int,
    most_bytes: int,
    etag: str = "",
    is_posted: bool = False,
) -> bytes | None:
    """A whole answer, which may take `seconds` to begin; None if it is what `etag` names. Long fields are posted as a form too.

    Raises like `fetch_page`.
    """
    query = urlencode(fields)
    headers = {"If-None-Match": etag} if etag else {}
    if is_posted or len(query) > QUERY_LENGTH:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        response = _get(remote, path, extra_seconds=seconds, headers=headers, form=query)
    else:
        response = _get(remote, f"{path}?{query}", extra_seconds=seconds, headers=headers)
    if response.status == 304:
        response.release_conn()
        return None
    return _read_whole(remote, response, most_bytes=most_bytes, seconds=_PAGE_SECONDS)


@functools.cache
def _pool() -> urllib3.PoolManager:
    return outbound.pool_manager(num_pools=_PEERS, maxsize=4)


def _get(
    remote: Remote,
    path: str,
    *,
    extra_seconds: int = 0,
    headers: Mapping[str, str] | None = None,
    form: str | None = None,
) -> BaseHTTPResponse:
    seconds = settings.INVENTORY_REMOTE_TIMEOUT_SECONDS
    if not remote.url.startswith(("http://", "https://")):
        raise RemoteProtocolError(f"{remote.name} has no usable URL: it must begin with http:// or https://")
    sent = {"Accept-Encoding": "identity", "User-Agent": "storage-inventory-harvest", **(headers or {})}
    sent |= remote.credential.headers
    try:
        response = _pool().request(
            "GET" if form is None else "POST",
            remote.url + path,
            headers=sent,
            body=form,
            timeout=urllib3.Timeout(connect=seconds, read=seconds + extra_seconds),
            retries=False,
            redirect=False,
            preload_content=False,
        )
    except LocationValueError as error:
        raise RemoteProtocolError(f"{remote.name} has no usable URL: {error}") from None
    except HTTPError as error:
        raise RemoteUnavailableError(f"{remote.name} cannot be reached: {error}") from error
    if response.status != 200 and not (response.status == 304 and "If-None-Match" in sent):
        try:
            raise _failure(remote, response)
        finally:
            response.close()
    return response


def _failure(remote: Remote, response: BaseHTTPResponse) -> Exception:
    status = response.status
    problem = _problem(remote, response)
    said = f"{remote.name} answered {status}" + (f": {str(problem['detail'])[:300]}" if "detail" in problem else "")
    if status == 410 and problem.get("code") == HistoryGoneError.code:
        return HistoryGoneError(said, cursor=str(problem.get("cursor", "")))
    if status == 410:
        return CursorGoneError(said)
    if status in _REFUSALS:
        return RemoteRefusedError(said)
    if status == 429 or status >= 500:
        return RemoteUnavailableError(said)
    return RemoteProtocolError(said)


def _problem(remote: Remote, response: BaseHTTPResponse) -> dict[str, Any]:
    """What it says went wrong; empty if that cannot be understood."""
    try:
        answer = json.loads(_read(remote, response))
    except (ValueError, RemoteUnavailableError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _read(remote: Remote, response: BaseHTTPResponse) -> bytes:
    """What has arrived, without waiting for a full chunk: only so can a slow peer be given up in time."""
    try:
        return response.read1(_CHUNK_BYTES)
    except HTTPError as error:
        raise RemoteUnavailableError(f"{remote.name} stopped in the middle of an answer: {error}") from error


def _get_json(remote: Remote, path: str, *, extra_seconds: int = 0) -> Any:
    response = _get(remote, path, extra_seconds=extra_seconds)
    try:
        seconds = settings.INVENTORY_REMOTE_TIMEOUT_SECONDS
        return json.loads(_read_whole(remote, response, most_bytes=_JSON_BYTES, seconds=seconds))
    except ValueError:
        raise RemoteProtocolError(f"{remote.name} did not answer in JSON") from None


def _read_whole(remote: Remote, response: BaseHTTPResponse, *, most_bytes: int, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    body: list[bytes] = []
    size = 0
    try:
        while chunk := _read(remote, response):
            body.append(chunk)
            size += len(chunk)
            if size > most_bytes:
                raise RemoteProtocolError(f"{remote.name} sent an answer that is too large")
            if time.monotonic() > deadline:
                raise RemoteUnavailableError(f"{remote.name} is too slow")
        return b"".join(body)
    finally:
        response.release_conn()
