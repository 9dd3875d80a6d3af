"""A global as a site sees it when it asks for snapshots: `GET /pins` in pages, `POST /pins`, on a loopback port."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qsl, urlsplit


@dataclass
class FakeGlobal:
    """What it names can be changed at any time; `said` lists what was posted."""

    pins: list[dict[str, object]] = field(default_factory=list)
    until: datetime = field(default_factory=lambda: datetime.now(UTC))
    page: int = 1000
    status: int = 200
    post_status: int = 200
    body: bytes | None = None
    said: list[dict[str, str]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""

    def add(self, moment: datetime, *, name: str = "one", namespace: str = "cadc:TEST/") -> dict[str, object]:
        pin: dict[str, object] = {
            "id": str(uuid.uuid4()),
            "name": name,
            "namespace": namespace,
            "moment": moment.isoformat(),
            "state": "pinning",
            "digest": None,
            "artifacts": None,
            "bytes": None,
            "keptAt": None,
        }
        self.pins.append(pin)
        self.until = max(self.until, moment)
        return pin

    def pass_time(self) -> None:
        self.until = max(self.until + timedelta(milliseconds=1), datetime.now(UTC))

    def answer(self, after: str) -> bytes:
        if self.body is not None:
            return self.body
        rows = sorted((pin for pin in self.pins if str(pin["id"]) > after), key=lambda pin: str(pin["id"]))
        page = rows[: self.page]
        last = str(page[-1]["id"]) if len(page) == self.page else None
        return json.dumps({"until": self.until.isoformat(), "pins": page, "next": last}).encode()


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    peer: ClassVar[FakeGlobal]

    def do_GET(self) -> None:
        self.peer.tokens.append(self.headers.get("Authorization"))
        query = dict(parse_qsl(urlsplit(self.path).query))
        self._send(self.peer.status, self.peer.answer(query.get("after", "")))

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.peer.post_status == 200:
            self.peer.said.append(dict(parse_qsl(form, keep_blank_values=True)))
        self._send(self.peer.post_status, b"{}")

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def fake_global() -> Iterator[FakeGlobal]:
    """Runs until the end of the block."""
    peer = FakeGlobal()
    handler = type("Handler", (_Handler,), {"peer": peer})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    peer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
