"""Many small requests at once, from one thread that does next to nothing for each: a client that waits for the server, not the
other way round. (With a thread per connection and `http.client` the client took more of the processor than the raw server.)
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

_PATIENCE_SECONDS = 120.0
_READ_SIZE = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


class BenchError(RuntimeError):
    """A request of the bench was not answered as it must be: the figure would be worthless."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `body` is sent with its length; `expect` is the status that counts as success."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None = None
    expect: int = 200


@dataclass(frozen=True, slots=True)
class _Message:
    """A request as it goes over the wire, written before the clock runs."""

    request: Request
    data: bytes


class _Line:
    """One keep-alive connection and the answer that it waits for."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=_PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_closing = False
        self._request: Request | None = None
        self._answer = bytearray()
        self._wanted = -1

    def close(self) -> None:
        self.socket.close()

    def begin(self, message: _Message) -> None:
        self._request, self._wanted = message.request, -1
        self._answer.clear()
        self.socket.sendall(message.data)

    def receive(self) -> bytes | None:
        """What has come; the body once it is whole. Raises `BenchError` for an answer that is not the expected one."""
        data = self.socket.recv(_READ_SIZE)
        request = self._request
        if request is None or not data:
            raise BenchError(f"{request and request.path[:80]}: the server has closed the connection")
        self._answer += data
        end = self._answer.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        if self._wanted < 0:
            self._wanted = self._whole(request, bytes(self._answer[: end - 2]), end)
        is_whole = self._answer.endswith(b"\r\n0\r\n\r\n") if self._wanted == 0 else len(self._answer) >= self._wanted
        if not is_whole:
            return None
        status, body = int(self._answer[9:12]), bytes(self._answer[end:])
        if status != request.expect:
            raise BenchError(f"{request.method} {request.path[:80]}: {status} {body[:300]!r}")
        return body

    def _whole(self, request: Request, head: bytes, end: int) -> int:
        """How long the answer is with its head; 0 for one that comes in chunks and says itself when it ends."""
        self.is_closing = _CLOSES.search(head) is not None
        length = _LENGTH.search(head)
        if request.method == "HEAD" or (length is None and not _CHUNKED.search(head)):
            return end
        return end + int(length[1]) if length else 0


def rate(base: str, requests: Sequence[Request], *, in_flight: int) -> float:
    """Requests per second with `in_flight` connections. Raises `BenchError` on the first wrong answer."""
    parts = urlsplit(base)
    address = (parts.hostname or "", parts.port or 80)
    waiting = deque(_message(parts.path, parts.netloc, request) for request in requests)
    lines: dict[int, _Line] = {}
    with closing(select.epoll()) as epoll:
        started = time.perf_counter()
        try:
            for _ in range(min(in_flight, len(waiting))):
                _begin(lines, epoll, _Line(address), waiting.popleft())
            while lines:
                ready = epoll.poll(_PATIENCE_SECONDS)
                if not ready:
                    raise BenchError(f"no answer within {_PATIENCE_SECONDS:.0f} s")
                for descriptor, _ in ready:
                    _go_on(lines, epoll, descriptor, waiting, address)
            return len(requests) / (time.perf_counter() - started)
        finally:
            for line in lines.values():
                line.close()


def ask(base: str, request: Request) -> bytes:
    """The body of one answer."""
    parts = urlsplit(base)
    with closing(_Line((parts.hostname or "", parts.port or 80))) as line:
        line.begin(_message(parts.path, parts.netloc, request))
        while (body := line.receive()) is None:
            pass
    return body


def _begin(lines: dict[int, _Line], epoll: select.epoll, line: _Line, message: _Message) -> None:
    descriptor = line.socket.fileno()
    lines[descriptor] = line
    epoll.register(descriptor, select.EPOLLIN)
    line.begin(message)


def _go_on(
    lines: dict[int, _Line], epoll: select.epoll, descriptor: int, waiting: deque[_Message], address: tuple[str, int]
) -> None:
    line = lines[descriptor]
    if line.receive() is None:
        return
    if waiting and not line.is_closing:
        line.begin(waiting.popleft())
        return
    epoll.unregister(descriptor)
    lines.pop(descriptor).close()
    if waiting:
        _begin(lines, epoll, _Line(address), waiting.popleft())


def _message(prefix: str, host: str, request: Request) -> _Message:
    headers = {"Host": host, **request.headers}
    if request.body is not None:
        headers["Content-Length"] = str(len(request.body))
    lines = [
        f"{request.method} {prefix}{request.path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return _Message(request, "\r\n".join([*lines, "", ""]).encode() + (request.body or b""))
