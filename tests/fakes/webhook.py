"""A receiver of signed webhooks on loopback: it verifies, as Standard Webhooks says, and keeps what it took."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

SECRET = "whsec_" + base64.b64encode(b"between the two of us 24b+").decode()


class WebhookReceiver(http.server.ThreadingHTTPServer):
    """`status` is what it answers; `forged` counts requests whose signature does not hold."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 204
        self.location = ""
        self.forged = 0
        self.ids: list[str] = []
        self.events: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    @property
    def setting(self) -> str:
        return json.dumps([{"name": "pager", "url": self.url, "secret": SECRET}])


class _Handler(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        receiver = cast("WebhookReceiver", self.server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message_id, timestamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        proof = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        if self.headers["webhook-signature"] != f"v1,{base64.b64encode(proof).decode()}":
            receiver.forged += 1
        receiver.ids.append(message_id)
        receiver.events.append(json.loads(body))
        self.send_response(receiver.status)
        if receiver.location:
            self.send_header("Location", receiver.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name of the base class
        """Quiet."""


@contextmanager
def serve_webhook() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()
