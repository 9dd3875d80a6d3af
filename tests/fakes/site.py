"""A site as the global sees it: availability, HEAD of signed file URLs, and what it verified, on a loopback port."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote


@dataclass
class FakeSite:
    """What it answers can be changed at any time; `asked` lists the uris of HEAD requests, `tokens` their tokens."""

    state: str = "ReadWrite"
    status: int = 200
    files_status: int | None = None
    artifacts: dict[str, tuple[uuid.UUID, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    probes: int = 0
    # Of `POST /verified`: what it says of each uri, the uris of each question, the tokens that came, and another body if set.
    verified: dict[str, dict[str, object]] = field(default_factory=dict)
    questions: list[list[str]] = field(default_factory=list)
    bearers: list[str | None] = field(default_factory=list)
    verified_status: int = 200
    verified_body: bytes | None = None
    url: str = ""
    # Cleared: every answer waits until it is set again (or the site ends).
    answers: threading.Event = field(default_factory=threading.Event)

    has_been_asked: threading.Event = field(default_factory=threading.Event)

    def store(self, uri: str, data: bytes) -> uuid.UUID:
        identity = uuid.uuid4()
        self.artifacts[uri] = (identity, data)
        return identity


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    site: ClassVar[FakeSite]

    def do_GET(self) -> None:
        self.site.probes += 1
        self.site.answers.wait(30)
        self._answer(self.site.status, {"X-Inventory-State": self.site.state} if self.site.state else {})

    def do_HEAD(self) -> None:
        _, _, rest = self.path.partition("/files/")
        token, _, uri = rest.partition("/")
        uri = unquote(uri)
        self.site.asked.append(uri)
        self.site.tokens.append(token)
        self.site.has_been_asked.set()
        self.site.answers.wait(30)
        if self.site.files_status is not None:
            self._answer(self.site.files_status, {})
        elif uri in self.site.artifacts:
            self._answer(200, _headers(*self.site.artifacts[uri]))
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["uris"]
        self.site.questions.append(asked)
        self.site.bearers.append(self.headers.get("Authorization"))
        self.site.has_been_asked.set()
        self.site.answers.wait(30)
        copies = [self.site.verified[uri] for uri in asked if uri in self.site.verified]
        body = (
            self.site.verified_body if self.site.verified_body is not None else json.dumps({"copies": copies}).encode()
        )
        self._answer(self.site.verified_status, {"Content-Length": str(len(body)), "Content-Type": "application/json"})
        self.wfile.write(body)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the overridden name
        """Quiet."""


def _headers(identity: uuid.UUID, data: bytes) -> dict[str, str]:
    return {
        "x-artifact-id": str(identity),
        "Digest": "md5=" + base64.b64encode(hashlib.md5(data).digest()).decode(),
        "Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:",
        "Content-Length": str(len(data)),
        "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT",
        "Content-Type": "application/fits",
    }


@contextmanager
def fake_site() -> Iterator[FakeSite]:
    """Serve one until the block ends."""
    site = FakeSite()
    site.answers.set()
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.answers.set()
        server.shutdown()
        server.server_close()
        thread.join()
