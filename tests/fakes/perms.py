"""A permission service: a real HTTP server on loopback that answers `GET /perms?OP=…&ID=…` as the reference's does."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class Entry:
    """What a pattern of uris is open to."""

    pattern: str
    anonymous: bool = False
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()


class FakePermissions:
    """Its entries and what it was asked; `status` and `body` replace every answer, `gate` holds them back while it is clear."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.entries: list[Entry] = []
        self.asked: list[tuple[str, str]] = []
        self.status = 200
        self.body: bytes | None = None
        self.grant_seconds = 3600
        self.gate = threading.Event()
        self.gate.set()

    def answer(self, operation: str, uri: str) -> tuple[int, bytes]:
        if self.status != 200 or self.body is not None:
            return self.status, self.body or b""
        if operation not in {"read", "write"} or ":" not in uri:
            return 400, b"invalid"
        matching = [entry for entry in self.entries if re.fullmatch(entry.pattern, uri)]
        if not matching:
            return 404, b"not found"
        writers = [group for entry in matching for group in entry.writers]
        readers = [group for entry in matching for group in entry.readers]
        groups = writers if operation == "write" else readers + writers
        anyone = operation == "read" and any(entry.anonymous for entry in matching)
        expires = datetime.now(UTC) + timedelta(seconds=self.grant_seconds)
        listed = "".join(f"<groupURI>{escape(group)}</groupURI>" for group in groups)
        return 200, (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<grant type="{operation.title()}Grant"><assetID>{escape(uri)}</assetID>'
            f"<expiryDate>{expires:%Y-%m-%dT%H:%M:%S}.000</expiryDate>{'<anonymousRead />' if anyone else ''}"
            f"<groups>{listed}</groups></grant>"
        ).encode()


@contextmanager
def serve_permissions() -> Iterator[FakePermissions]:
    """A service on a free port."""

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            asked = {name.upper(): value for name, value in parse_qsl(urlsplit(self.path).query)}
            fake.asked.append((asked.get("OP", ""), asked.get("ID", "")))
            fake.gate.wait(10)
            status, body = fake.answer(*fake.asked[-1])
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
            del format, args

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                # Whoever asked has given up.
                return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakePermissions(f"http://127.0.0.1:{server.server_port}/perms")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield fake
    finally:
        fake.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
