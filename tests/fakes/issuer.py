"""An OpenID provider: a real HTTP server on loopback with discovery and a key set that rotates, and tokens that it signs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

Key = RSAKey | ECKey | OKPKey
AUDIENCE = "inventory"


class FakeIssuer:
    """Its keys and what it was asked for; `answers` replaces the document of a path, or with an int its status."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str, Key] = {}
        self.retired: dict[str, Key] = {}
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        self.rotate("k1")

    def rotate(self, name: str, kind: str = "EC") -> None:
        """A new key signs; only it is published."""
        made: dict[str, Any] = {
            "EC": lambda: ECKey.generate_key("P-256", {"kid": name, "use": "sig"}),
            "RSA": lambda: RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"}),
            "OKP": lambda: OKPKey.generate_key("Ed25519", {"kid": name, "use": "sig"}),
        }
        self.retired |= self.keys
        self.keys = {name: made[kind]()}

    def token(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Signed by the newest key; claims that are None are left out."""
        ((name, key),) = self.keys.items()
        algorithm = {"EC": "ES256", "RSA": "RS256", "OKP": "Ed25519"}[str(key.key_type)]
        now = int(time.time())
        given = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300, **claims}
        kept = {name: value for name, value in given.items() if value is not None}
        head = {"alg": algorithm, "kid": name, **(header or {})}
        return jwt.encode({name: value for name, value in head.items() if value}, kept, key, algorithms=[head["alg"]])

    @property
    def documents(self) -> dict[str, Any]:
        keys = [key.as_dict(private=False) for key in self.keys.values()]
        return {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
            "/keys": {"keys": keys},
            **self.answers,
        }


@contextmanager
def serve_issuer() -> Iterator[FakeIssuer]:
    """A provider on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            found = issuer.documents.get(self.path, 404)
            body = b"" if isinstance(found, int) else json.dumps(found).encode()
            self.send_response(found if isinstance(found, int) else 200)
            if found == 302:
                self.send_header("Location", f"{issuer.url}/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = FakeIssuer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
