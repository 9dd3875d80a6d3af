"""One inventory as its clients see it: PUT, GET, DELETE, listing and policy over HTTP, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote, urlencode, urljoin

import urllib3

_PLAIN = "/:+,=@!~*'()"
_CHUNK = 1024 * 1024
_TIMEOUT = urllib3.Timeout(connect=5, read=120)
# What a client may try again, after a moment: a service that is being restarted, a lost race, a gateway.
_PASSING = frozenset({409, 429, 502, 503, 504})
_REDIRECTS = frozenset({303, 307})

_http = urllib3.PoolManager(timeout=_TIMEOUT, retries=False, maxsize=16, num_pools=20)


class PeerError(Exception):
    """An inventory did not do what was asked; the message says what it answered, `passes` whether a repeat may succeed."""

    def __init__(self, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.passes = passes


@dataclass(frozen=True, slots=True)
class Digests:
    """What content is known by."""

    length: int
    md5: bytes
    sha256: bytes

    @classmethod
    def of(cls, file: BinaryIO) -> Digests:
        length, md5, sha256 = 0, hashlib.md5(usedforsecurity=False), hashlib.sha256()
        while chunk := file.read(_CHUNK):
            length += len(chunk)
            md5.update(chunk)
            sha256.update(chunk)
        return cls(length, md5.digest(), sha256.digest())

    @property
    def checksum(self) -> str:
        """As the model writes it."""
        return f"md5:{self.md5.hex()}"

    def headers(self) -> dict[str, str]:
        """What a careful sender declares."""
        return {
            "Content-Length": str(self.length),
            "Digest": f"md5={base64.b64encode(self.md5).decode()}",
            "Repr-Digest": f"sha-256=:{base64.b64encode(self.sha256).decode()}:",
        }


@dataclass(frozen=True, slots=True)
class Stored:
    """What a site answers to a PUT or DELETE: the artifact's id, and the position from which the write can be seen."""

    artifact_id: str
    position: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An artifact in a listing."""

    uri: str
    artifact_id: str
    checksum: str
    length: int


@dataclass(frozen=True, slots=True)
class Peer:
    """An inventory at a base URL, and the token that we show it."""

    name: str
    url: str
    token: str

    def file_url(self, uri: str) -> str:
        """Where a file is; `%` in a URI is data and so is escaped."""
        return f"{self.url}/files/{quote(uri, safe=_PLAIN)}"

    def put(self, uri: str, file: BinaryIO, digests: Digests) -> Stored:
        """Store content at a site. Raises PeerError."""
        body = file if digests.length else b""
        answer = self._checked("PUT", self.file_url(uri), body=body, headers=digests.headers(), expected={201})
        return _stored(answer)

    def delete(self, uri: str) -> Stored:
        """Delete a file at a site. Raises PeerError."""
        return _stored(self._checked("DELETE", self.file_url(uri), expected={200, 204}))

    def status_of(self, uri: str, position: str = "") -> int:
        """What HEAD answers. Raises PeerError if nobody answers."""
        headers = {"x-inventory-position": position} if position else {}
        return self._checked("HEAD", self.file_url(uri), headers=headers).status

    @contextmanager
    def opened(self, uri: str, position: str = "") -> Iterator[urllib3.BaseHTTPResponse]:
        """The file's content as a stream; from a global by the signed URL that it redirects to. Raises PeerError."""
        headers = {"x-inventory-position": position} if position else {}
        answer = self._checked("GET", self.file_url(uri), headers=headers, expected={200, 303}, stream=True)
        if answer.status in _REDIRECTS:
            answer.drain_conn()
            # The signed URL is the permission: our token is not for whoever it leads to.
            target = urljoin(self.file_url(uri), answer.headers["Location"])
            answer = _request("GET", target, stream=True)
            if answer.status != 200:
                raise PeerError(f"GET {uri} by the URL that {self.name} signed: {_problem(answer)}")
        try:
            yield answer
            answer.drain_conn()
        finally:
            answer.close()

    def listing(self, namespace: str) -> Iterator[Listed]:
        """The artifacts of a namespace, at a site those stored there, as a stream. Raises PeerError, also when the stream is cut."""
        url = f"{self.url}/artifacts?{urlencode({'namespace': namespace})}"
        answer = self._checked("GET", url, headers={"Accept": "application/x-ndjson"}, expected={200}, stream=True)
        try:
            for line in _lines(answer):
                row = json.loads(line)
                # A site also knows what it is still waiting for.
                if row.get("stored", True):
                    yield Listed(row["uri"], row["id"], row["contentChecksum"], row["contentLength"])
        except (urllib3.exceptions.HTTPError, ValueError, KeyError) as error:
            raise PeerError(f"the listing of {namespace} at {self.name} broke: {error!r}") from error
        finally:
            answer.close()

    def look_up(self, uri: str) -> Listed | None:
        """What the inventory lists under this URI. Raises PeerError."""
        namespace = uri[: max(uri.rfind("/"), uri.find(":")) + 1]
        return next((listed for listed in self.listing(namespace) if listed.uri == uri), None)

    def want(self, namespace: str) -> None:
        """The site's policy wants this namespace from now on. Raises PeerError."""
        rule = {"namespace": namespace, "wanted": True}
        headers = {"Content-Type": "application/json"}
        self._checked("PUT", f"{self.url}/policy", body=json.dumps(rule).encode(), headers=headers, expected={200})

    def forget(self, namespace: str) -> None:
        """The site's policy has no rule for this namespace from now on. Raises PeerError."""
        self._checked("DELETE", f"{self.url}/policy?{urlencode({'namespace': namespace})}", expected={200})

    def scrub(self, uris: list[str]) -> None:
        """The site reads its copies of these files back now. Raises PeerError."""
        headers = {"Content-Type": "application/json"}
        body = json.dumps({"uris": uris}).encode()
        self._checked("POST", f"{self.url}/scrub", body=body, headers=headers, expected={200})

    def _checked(
        self,
        method: str,
        url: str,
        *,
        body: BinaryIO | bytes | None = None,
        headers: dict[str, str] | None = None,
        expected: set[int] | None = None,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        ours = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        answer = _request(method, url, body=body, headers=ours, stream=stream)
        if expected is not None and answer.status not in expected:
            raise PeerError(f"{method} {url}: {_problem(answer)}", passes=answer.status in _PASSING)
        return answer


def same_content(answer: urllib3.BaseHTTPResponse, file: BinaryIO) -> bool:
    """Whether a stream and a file agree to the last byte; reads both only as far as they do. Raises PeerError."""
    try:
        for chunk in answer.stream(_CHUNK, decode_content=False):
            if file.read(len(chunk)) != chunk:
                return False
    except urllib3.exceptions.HTTPError as error:
        raise PeerError(f"the content was cut: {error}", passes=True) from error
    return not file.read(1)


def _request(
    method: str,
    url: str,
    *,
    body: BinaryIO | bytes | None = None,
    headers: dict[str, str] | None = None,
    stream: bool = False,
) -> urllib3.BaseHTTPResponse:
    try:
        return _http.request(method, url, body=body, headers=headers, redirect=False, preload_content=not stream)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise PeerError(f"{method} {url}: {error}", passes=True) from error


def _stored(answer: urllib3.BaseHTTPResponse) -> Stored:
    return Stored(answer.headers.get("x-artifact-id", ""), answer.headers.get("x-inventory-position", ""))


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.stream(_CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest


def _problem(answer: urllib3.BaseHTTPResponse) -> str:
    text = answer.data.decode(errors="replace")
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = text[:200]
    return f"{answer.status} {detail}"
