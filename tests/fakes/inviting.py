"""An inventory that has made a pairing code, on loopback: it answers whoever proves to know the secret, or misbehaves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from datamodel.preauth import SigningKey
from datamodel.statements import signed_statement


def _pack(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _jwk(key: SigningKey) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "kid": key.key_id, "x": _pack(key.public_bytes)}


@dataclass
class FakeInviting:
    """A global unless told otherwise. `signs_with`: another key than that of the code; `says` changes what it tells of itself."""

    key: SigningKey = field(default_factory=lambda: SigningKey.generate("0000abcd"))
    inventory_id: uuid.UUID = field(default_factory=uuid.uuid4)
    invitation_id: uuid.UUID = field(default_factory=uuid.uuid4)
    secret: bytes = b"s" * 32
    signs_with: SigningKey | None = None
    algorithm: str = "Ed25519"
    kind: str = "storage-inventory-pairing+jwt"
    says: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    body: bytes | None = None
    heard: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    def code(self, **changes: object) -> str:
        canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{_pack(self.key.public_bytes)}"}}'
        fields = {
            "version": 1,
            "url": self.url,
            "inventory": str(self.inventory_id),
            "invitation": str(self.invitation_id),
            "secret": _pack(self.secret),
            "thumbprint": _pack(hashlib.sha256(canonical.encode()).digest()),
        } | changes
        return _pack(json.dumps(list(fields.values())).encode())

    def answer(self, invitation: str, body: bytes, proof: str) -> tuple[int, bytes]:
        key = hashlib.sha256(b"storage-inventory pairing\n" + self.secret).digest()
        message = f"storage-inventory pairing\n{invitation}\n".encode() + body
        if invitation != str(self.invitation_id) or proof != hmac.new(key, message, hashlib.sha256).hexdigest():
            return 403, b'{"detail": "unknown code"}'
        self.heard.append(json.loads(body))
        if self.status != 200:
            return self.status, b'{"detail": "as told"}'
        signer = self.signs_with or self.key
        claims = {
            "inventoryId": str(self.inventory_id),
            "role": "global",
            "name": "omega",
            "url": "http://elsewhere.test",
            "keys": [_jwk(self.key), *([_jwk(signer)] if signer is not self.key else [])],
            "aud": invitation,
        } | self.says
        return 200, signed_statement(signer, claims, kind=self.kind, algorithm=self.algorithm).encode()


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    inviting: ClassVar[FakeInviting]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.inviting.bodies.append(body)
        invitation = self.path.split("/")[-2]
        status, answer = self.inviting.answer(invitation, body, self.headers.get("X-Pairing-Proof", ""))
        answer = answer if self.inviting.body is None else self.inviting.body
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if status in {301, 307}:
            self.send_header("Location", f"{self.inviting.url}{self.path}")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def fake_inviting() -> Iterator[FakeInviting]:
    """Runs until the end of the block."""
    inviting = FakeInviting()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"inviting": inviting}))
    server.daemon_threads = True
    inviting.url = f"http://127.0.0.1:{server.server_port}/base"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield inviting
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
