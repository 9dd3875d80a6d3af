"""A site's file service and a global's negotiation on loopback, which answer over real HTTP and fail on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    path: str
    range: str | None
    cache_control: str | None = None


@dataclass(slots=True)
class Answer:
    """What a request for a file will be answered; a fault changes it before it is sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_cut: bool = False
    is_chunked: bool = False
    pace: float = 0.0
    before: Callable[[], None] = lambda: None
    midway: Callable[[], None] = lambda: None


Fault = Callable[[Answer, "StoredFile", int], None]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a fake site holds under one uri."""

    artifact_id: uuid.UUID
    content: bytes

    @property
    def digest(self) -> str:
        return base64.b64encode(hashlib.md5(self.content).digest()).decode()


def well(answer: Answer, file: StoredFile, offset: int) -> None:
    """No fault."""


def status(number: int, **headers: str) -> Fault:
    """Another status, without the file."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        answer.status, answer.body = number, b"no\n"
        answer.headers = {"Content-Length": "3", **{name.replace("_", "-"): value for name, value in headers.items()}}

    return change


def cut(after: int) -> Fault:
    """The connection ends after so many bytes of the body that was announced."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        answer.body, answer.is_cut = answer.body[:after], True

    return change


def flip(at: int) -> Fault:
    """One bit of the file differs; headers know nothing of it."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        if offset <= at < offset + len(answer.body):
            place = at - offset
            answer.body = answer.body[:place] + bytes([answer.body[place] ^ 1]) + answer.body[place + 1 :]

    return change


def ignore_range(answer: Answer, file: StoredFile, offset: int) -> None:
    """As if `Range` had not been sent."""
    answer.status, answer.body = 200, file.content
    answer.headers.pop("Content-Range", None)
    answer.headers["Content-Length"] = str(len(file.content))


def header(name: str, value: str | None) -> Fault:
    """A header that says something else, or (None) is missing."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        answer.headers.pop(name, None)
        if value is not None:
            answer.headers[name] = value

    return change


def shorter(by: int) -> Fault:
    """Another file, shorter and consistent in itself, without digests."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        answer.body = file.content[:-by]
        answer.status, answer.headers = 200, {"Content-Length": str(len(answer.body))}

    return change


def chunked(answer: Answer, file: StoredFile, offset: int) -> None:
    """Without a length."""
    answer.is_chunked = True
    answer.headers.pop("Content-Length")


def slow(seconds_per_byte: float) -> Fault:
    """Byte by byte."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        answer.pace = seconds_per_byte

    return change


def silent(until: threading.Event) -> Fault:
    """Takes the request and says nothing until told."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        answer.before = lambda: _wait(until)

    return change


def midway(act: Callable[[], None]) -> Fault:
    """Something happens when half of the body was sent."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        answer.midway = act

    return change


def both(*faults: Fault) -> Fault:
    """Several at once."""

    def change(answer: Answer, file: StoredFile, offset: int) -> None:
        for fault in faults:
            fault(answer, file, offset)

    return change


def _wait(event: threading.Event) -> None:
    if not event.wait(30):
        raise TimeoutError("nobody released the silent site")


@dataclass
class FakeSite:
    """A site: files by uri, the requests it got, and the faults of the next requests (then `usually`).

    It has a door for many files at once unless `batch_status` says what is answered there; a fault may change one part of such an
    answer, and `batch_fault` all of it.
    """

    name: str
    files: dict[str, StoredFile] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    batch_status: int = 200
    batch_fault: Callable[[Answer], None] = lambda answer: None
    faults: deque[Fault] = field(default_factory=deque)
    usually: Fault = well
    url: str = ""
    connections: int = 0

    def hold(self, uri: str, content: bytes, artifact_id: uuid.UUID) -> None:
        self.files[uri] = StoredFile(artifact_id, content)

    def address_of(self, uri: str) -> str:
        return f"{self.url}/files/1.key.claims.signature/{uri.replace('%', '%25')}"

    def answer(self, path: str, range_header: str | None, cache_control: str | None) -> Answer:
        self.asked.append(Asked(path, range_header, cache_control))
        return self._answer(path, range_header)

    def post(self, path: str, body: bytes, authorization: str | None) -> Answer:
        """Each part is what a GET would be answered; the first that is cut is the last. A fault of time is one of the whole."""
        if path != "/batch":
            return Answer(404, {"Content-Length": "3"}, b"no\n")
        urls = json.loads(body)["urls"]
        self.batches.append([unquote(url).split("/", 2)[2] for url in urls])
        if self.batch_status != 200:
            return Answer(self.batch_status, {"Content-Length": "3"}, b"no\n")
        whole = Answer(200, {"Content-Type": "multipart/mixed; boundary=limit"}, b"", is_chunked=True)
        for url in urls:
            part = self._answer(f"/{url}", None)
            lines = [f"{name}: {value}" for name, value in part.headers.items()]
            head = "\r\n".join([f"HTTP/1.1 {part.status} Well", *lines, "", ""]).encode()
            whole.body += b"\r\n--limit\r\nContent-Type: application/http\r\n\r\n" + head + part.body
            whole.before, whole.pace = part.before, max(whole.pace, part.pace)
            if part.is_cut:
                whole.is_cut = True
                return whole
        whole.body += b"\r\n--limit--\r\n"
        self.batch_fault(whole)
        return whole

    def _answer(self, path: str, range_header: str | None) -> Answer:
        file = self.files.get(unquote(path).partition("/files/")[2].partition("/")[2])
        if file is None:
            return Answer(404, {"Content-Length": "3"}, b"no\n")
        offset = int(range_header.removeprefix("bytes=").rstrip("-")) if range_header else 0
        headers = {"Digest": f"md5={file.digest}", "x-artifact-id": str(file.artifact_id)}
        headers["Content-Length"] = str(len(file.content) - offset)
        if range_header:
            headers["Content-Range"] = f"bytes {offset}-{len(file.content) - 1}/{len(file.content)}"
        answer = Answer(206 if range_header else 200, headers, file.content[offset:])
        (self.faults.popleft() if self.faults else self.usually)(answer, file, offset)
        return answer


@dataclass
class FakeGlobal:
    """A global: answers `/locate` for the files of its sites, in their order; counts the calls."""

    sites: Sequence[FakeSite]
    token: str = "global-token"
    calls: list[list[str]] = field(default_factory=list)
    statuses: deque[int] = field(default_factory=deque)
    body: bytes | None = None
    url: str = ""
    connections: int = 0

    def post(self, path: str, body: bytes, authorization: str | None) -> Answer:
        code, text = self._located(body, authorization)
        return Answer(code, {"Content-Type": "application/json", "Content-Length": str(len(text))}, text)

    def _located(self, body: bytes, authorization: str | None) -> tuple[int, bytes]:
        asked = json.loads(body)
        self.calls.append(asked["uris"])
        code = self.statuses.popleft() if self.statuses else 200
        if authorization != f"Bearer {self.token}":
            code = 401
        if self.body is not None:
            return code, self.body
        results = [self._result(uri) for uri in asked["uris"]]
        return code, json.dumps({"direction": asked["direction"], "results": results}).encode()

    def _result(self, uri: str) -> dict[str, object]:
        holders = [site for site in self.sites if uri in site.files]
        if not holders:
            return {"uri": uri, "urls": [], "error": {"code": "artifact_not_found", "detail": f"no artifact {uri}"}}
        file = holders[0].files[uri]
        return {
            "uri": uri,
            "id": str(file.artifact_id),
            "contentChecksum": "md5:" + hashlib.md5(file.content).hexdigest(),
            "contentLength": len(file.content),
            "urls": [{"url": site.address_of(uri), "site": site.name, "reason": "first"} for site in holders],
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Any

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the signature of the class
        """Quiet."""

    def do_GET(self) -> None:
        self._send(self.fake.answer(self.path, self.headers.get("Range"), self.headers.get("Cache-Control")))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(self.fake.post(self.path, body, self.headers.get("Authorization")))

    def _send(self, answer: Answer) -> None:
        answer.before()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self._send_body(answer)
        except OSError:
            self.close_connection = True

    def _send_body(self, answer: Answer) -> None:
        for start, end in self._blocks(answer):
            if start == len(answer.body) // 2:
                answer.midway()
            self._send_block(answer.body[start:end], answer)
        if answer.is_cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_WR)
        elif answer.is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _blocks(self, answer: Answer) -> Iterator[tuple[int, int]]:
        """In steps, with one border in the middle."""
        step, size = 1 if answer.pace else _BLOCK, len(answer.body)
        start = 0
        while start < size:
            end = min(start + step, size // 2 if start < size // 2 else size)
            yield start, end
            start = end

    def _send_block(self, block: bytes, answer: Answer) -> None:
        if answer.pace:
            time.sleep(answer.pace)
        self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if answer.is_chunked else block)
        self.wfile.flush()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, fake: FakeSite | FakeGlobal, *arguments: Any) -> None:
        self._fake = fake
        self._connections: list[socket.socket] = []
        super().__init__(*arguments)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        self._fake.connections += 1
        return connection, address

    def hang_up(self) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


@contextmanager
def running(fake: FakeSite | FakeGlobal) -> Iterator[None]:
    """Serve a fake until the block ends; its `url` is set. Connections end with it: a site that goes down."""
    handler = type("Handler", (_Handler,), {"fake": fake, "disable_nagle_algorithm": True})
    port = int(fake.url.rpartition(":")[2]) if fake.url else 0
    with _Server(fake, ("127.0.0.1", port), handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.hang_up()
