"""A global as a site sees it that wants to drop copies: it grants, refuses, stays silent, loses its answers."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit


@dataclass
class FakeReleasing:
    """`marked`: by artifact id the release under which it may go. What it answers can be changed at any time."""

    refusals: dict[str, str] = field(default_factory=dict)
    marked: dict[str, str] = field(default_factory=dict)
    asked: list[list[dict[str, Any]]] = field(default_factory=list)
    returned: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    # The answer is lost on its way, after the question was heard.
    loses_answers: bool = False
    answers_for: str = ""
    leaves_out: set[str] = field(default_factory=set)
    body: bytes | None = None
    page: int = 1000
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""

    def release(self, document: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(document["files"])
        answers = [self._answer(file) for file in document["files"] if file["uri"] not in self.leaves_out]
        return {"site": self.answers_for or document["site"], "files": answers}

    def take_back(self, document: dict[str, Any]) -> dict[str, Any]:
        self.returned += document["files"]
        for file in document["files"]:
            if self.marked.get(file["id"]) == file["release"]:
                del self.marked[file["id"]]
        return {"site": document["site"], "returned": 0}

    def _answer(self, file: dict[str, Any]) -> dict[str, Any]:
        reason = self.refusals.get(file["uri"]) if self.marked.get(file["id"]) != file["release"] else None
        if reason is None:
            self.marked[file["id"]] = file["release"]
        names = {"release": file["release"], "id": file["id"]}
        return names | {"granted": reason is None, "reason": reason, "copies": 0 if reason else 1, "demanded": 1}


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    inventory: ClassVar[FakeReleasing]

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if self.inventory.status != 200:
            self._send(self.inventory.status, b"{}")
            return
        marked = sorted((uuid.UUID(artifact), release) for artifact, release in self.inventory.marked.items())
        page = [pair for pair in marked if pair[0] > uuid.UUID(query["after"][0])][: self.inventory.page]
        files = [{"id": str(artifact), "release": release} for artifact, release in page]
        following = files[-1]["id"] if len(files) == self.inventory.page else None
        self._send(200, json.dumps({"site": query["site"][0], "files": files, "next": following}).encode())

    def do_POST(self) -> None:
        inventory = self.inventory
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        inventory.tokens.append(self.headers.get("Authorization"))
        if inventory.status != 200:
            self._send(inventory.status, b"{}")
            return
        uuid.UUID(document["site"])
        heard = inventory.release if self.path.endswith("/releases") else inventory.take_back
        answer = json.dumps(heard(document)).encode()
        if inventory.loses_answers:
            self.close_connection = True
            return
        self._send(200, answer if inventory.body is None else inventory.body)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the overridden name
        """Quiet."""


@contextmanager
def fake_releasing() -> Iterator[FakeReleasing]:
    """Serve one until the block ends."""
    inventory = FakeReleasing()
    handler = type("Handler", (_Handler,), {"inventory": inventory})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    inventory.url = f"http://127.0.0.1:{server.server_address[1]}/global"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield inventory
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
