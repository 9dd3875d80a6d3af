"""The global's outbound HTTP: probes of sites, and asking them for an artifact that is not known here yet, or about their copies.

Every call is bounded in time as a whole, and a site holds at most a few threads, so that one which hangs delays nobody else.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import urllib3

from datamodel import outbound
from datamodel.checksums import parse_digest_header, parse_structured_digests
from datamodel.errors import InvalidChecksumError, RemoteProtocolError, RemoteRefusedError, RemoteUnavailableError
from datamodel.rules import ArtifactRow, meta_checksum_of
from datamodel.service_tokens import Credential
from datamodel.uris import ArtifactUri
from global_inventory.sites.rules import Probed, judge_probe

_CALLS_PER_SITE = 8
_SMALL_BODY_BYTES = 4096
_LARGE_BODY_BYTES = 16 * 1024 * 1024
_FAILURES: dict[type[Exception], str] = {
    urllib3.exceptions.NewConnectionError: "it cannot be connected to",
    urllib3.exceptions.NameResolutionError: "its name cannot be resolved",
    urllib3.exceptions.ConnectTimeoutError: "it takes too long to connect to",
    urllib3.exceptions.ReadTimeoutError: "it takes too long to answer",
    urllib3.exceptions.ProtocolError: "it closed the connection without an answer",
    urllib3.exceptions.SSLError: "its certificate or TLS is not accepted",
    urllib3.exceptions.LocationParseError: "its URL is malformed",
}

_pool = outbound.pool_manager(num_pools=64, maxsize=_CALLS_PER_SITE)
_slots: defaultdict[str, threading.BoundedSemaphore] = defaultdict(lambda: threading.BoundedSemaphore(_CALLS_PER_SITE))

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class SiteDoor:
    """A site, and how we identify ourselves there."""

    name: str
    url: str
    credential: Credential


@dataclass(frozen=True, slots=True)
class VerifiedCopy:
    """A copy in service at a site, and when its bytes were last known good."""

    uri: str
    artifact_id: uuid.UUID
    content_checksum: str
    content_length: int
    verified_at: datetime


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    seconds: float


def probe_site(url: str, *, seconds: float) -> Probed:
    """Ask a site for its availability; a connection that had gone stale is not held against it. Raises nothing."""
    started = time.monotonic()
    try:
        answer = _request("GET", f"{url}/availability?detail=min", site=url, seconds=seconds)
    except RemoteUnavailableError as first:
        remaining = seconds - (time.monotonic() - started)
        if remaining <= seconds / 2:
            return Probed(read_ok=False, write_ok=False, latency_ms=None, error=first.detail)
        try:
            answer = _request("GET", f"{url}/availability?detail=min", site=url, seconds=remaining)
        except RemoteUnavailableError as second:
            return Probed(read_ok=False, write_ok=False, latency_ms=None, error=second.detail)
    return judge_probe(answer.status, answer.headers.get("X-Inventory-State"), answer.seconds * 1000)


def ask_site(url: str, uri: ArtifactUri, *, site: str, seconds: float) -> ArtifactRow | None:
    """HEAD a signed URL: the artifact as the site describes it, None if the site has none.

    Raises `RemoteUnavailableError`, and `RemoteProtocolError` for an answer that does not describe an artifact.
    """
    answer = _request("HEAD", url, site=site, seconds=seconds)
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise RemoteUnavailableError(f"it answered {answer.status} when asked for {uri}")
    try:
        return _artifact_from(uri, answer.headers)
    except (KeyError, ValueError, InvalidChecksumError) as error:
        raise RemoteProtocolError(f"its answer does not describe {uri}: {error!r}") from error


def ask_verified(door: SiteDoor, uris: Sequence[str], *, seconds: float) -> list[VerifiedCopy]:
    """What a site says of its own copies of these uris; a uri that it leaves out has none there.

    Raises `RemoteUnavailableError`, `RemoteRefusedError`, and `RemoteProtocolError` for an answer of another form.
    """
    slot = _slots[door.url]
    if not slot.acquire(blocking=False):
        raise RemoteUnavailableError("it has not answered earlier questions yet")
    try:
        headers = {"Content-Type": "application/json", **door.credential.headers}
        response = _pool.request(
            "POST",
            f"{door.url}/verified",
            body=json.dumps({"uris": list(uris)}),
            headers=headers,
            timeout=urllib3.Timeout(total=seconds),
            redirect=False,
            preload_content=False,
        )
        status, body = response.status, response.read(_LARGE_BODY_BYTES)
        response.close()
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise RemoteUnavailableError(_FAILURES.get(type(error), type(error).__name__)) from error
    finally:
        slot.release()
    if status != 200:
        kind = RemoteUnavailableError if status >= 500 else RemoteRefusedError
        raise kind(f"it answered {status} when asked for its copies")
    return _verified_copies(body)


def concurrently(calls: Mapping[_Key, Callable[[], _Value]], *, seconds: float) -> Iterator[tuple[_Key, _Value]]:
    """Run all calls at once and give each result as it comes, for at most `seconds`; late results are dropped.

    Daemon threads, not an executor: one that hangs must not hold up the end of the process either.
    """
    results: queue.SimpleQueue[tuple[_Key, _Value]] = queue.SimpleQueue()

    def run(key: _Key, call: Callable[[], _Value]) -> None:
        results.put((key, call()))

    for key, call in calls.items():
        threading.Thread(target=run, args=(key, call), name="ask-site", daemon=True).start()
    deadline = time.monotonic() + seconds
    for _ in calls:
        try:
            yield results.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return


def _request(method: str, url: str, *, site: str, seconds: float) -> _Answer:
    slot = _slots[site]
    if not slot.acquire(blocking=False):
        raise RemoteUnavailableError("it has not answered earlier questions yet")
    started = time.monotonic()
    try:
        timeout = urllib3.Timeout(total=seconds)
        response = _pool.request(method, url, timeout=timeout, redirect=False, preload_content=False)
        elapsed = time.monotonic() - started
        _give_back(response, has_body=method != "HEAD")
        return _Answer(response.status, response.headers, elapsed)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        # The error's own text repeats the URL with the signature.
        raise RemoteUnavailableError(_FAILURES.get(type(error), type(error).__name__)) from error
    finally:
        slot.release()


def _give_back(response: urllib3.BaseHTTPResponse, *, has_body: bool) -> None:
    """Keep the connection when the rest of the answer is known to be short; never wait for a long one."""
    length = response.headers.get("Content-Length", "")
    if not has_body or (length.isdecimal() and int(length) <= _SMALL_BODY_BYTES):
        response.drain_conn()
        response.release_conn()
    else:
        response.close()


def _verified_copies(body: bytes) -> list[VerifiedCopy]:
    try:
        return [
            VerifiedCopy(
                str(copy["uri"]),
                uuid.UUID(copy["id"]),
                str(copy["contentChecksum"]),
                int(copy["contentLength"]),
                _aware(datetime.fromisoformat(copy["verifiedAt"])),
            )
            for copy in json.loads(body)["copies"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RemoteProtocolError(f"its answer does not describe copies: {error!r}") from error


def _aware(when: datetime) -> datetime:
    """Raises `ValueError` for a time without zone, which could mean anything."""
    if when.tzinfo is None:
        raise ValueError(f"{when} names no time zone")
    return when


def _artifact_from(uri: ArtifactUri, headers: Mapping[str, str]) -> ArtifactRow:
    """A row from HEAD's answer; its times have whole seconds, its own metadata checksum is made from what is there."""
    when = parsedate_to_datetime(headers["Last-Modified"]).astimezone(UTC)
    sha256 = [c for c in parse_structured_digests(headers.get("Repr-Digest") or "") if c.algorithm == "sha-256"]
    row = ArtifactRow(
        id=uuid.UUID(headers["x-artifact-id"]),
        uri=uri.value,
        uri_bucket=uri.bucket,
        content_checksum=str(parse_digest_header(headers["Digest"])),
        content_last_modified=when,
        content_length=int(headers["Content-Length"]),
        content_type=headers.get("Content-Type"),
        content_encoding=headers.get("Content-Encoding"),
        last_modified=when,
        meta_checksum="",
        content_sha256=sha256[0].raw if sha256 else None,
        meta_modified_at=when,
    )
    return replace(row, meta_checksum=meta_checksum_of(row))
