"""An OpenID provider: a real HTTP server on loopback with discovery and a key set that rotates, and tokens that it signs.

It signs people in, too (authorization code with PKCE): whoever comes to `/authorize` is `person` and agrees at once.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

Key = RSAKey | ECKey | OKPKey
AUDIENCE = "inventory"
CLIENT_SECRET = "client-secret"


class FakeIssuer:
    """Its keys and what it was asked for; `answers` replaces the document of a path, or with an int its status."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: dict[str, Key] = {}
        self.retired: dict[str, Key] = {}
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}
        self.person: dict[str, Any] = {"sub": "s-1", "groups": ["operators"]}
        # What is told at /userinfo; None: there is no such address.
        self.info: dict[str, Any] | None = None
        # Codes that were given, with the query that asked for each; claims of ID tokens that are not as they should be.
        self.codes: dict[str, dict[str, str]] = {}
        self.wrong: dict[str, Any] = {}
        # How long the body of a path comes after its header.
        self.dripping: dict[str, float] = {}
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
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
                **({"userinfo_endpoint": f"{self.url}/userinfo"} if self.info is not None else {}),
            },
            "/keys": {"keys": keys},
            "/userinfo": self.info if self.info is not None else 404,
            **self.answers,
        }

    def authorize(self, query: str) -> str:
        """Where the browser is sent back to."""
        asked = dict(parse_qsl(query, strict_parsing=True))
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def exchange(self, body: str) -> dict[str, Any] | int:
        """Tokens for a code, once, to whom it was made for."""
        given = dict(parse_qsl(body))
        asked = self.codes.pop(given.get("code", ""), None)
        if asked is None or (given.get("client_id"), given.get("client_secret")) != (AUDIENCE, CLIENT_SECRET):
            return 400
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (asked["code_challenge"], asked["code_challenge_method"]) != (challenge, "S256"):
            return 400
        if given.get("redirect_uri") != asked["redirect_uri"]:
            return 400
        return {
            "access_token": "opaque",
            "token_type": "Bearer",
            "id_token": self.token(**{**self.person, "nonce": asked.get("nonce"), **self.wrong}),
        }


@contextmanager
def serve_issuer(tls: ssl.SSLContext | None = None) -> Iterator[FakeIssuer]:
    """A provider on a free port."""

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.answer(issuer.answers.get(self.path) or (issuer.exchange(body) if self.path == "/token" else 404))

        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            if self.path.startswith("/authorize?"):
                self.send_response(302)
                self.send_header("Location", issuer.authorize(urlsplit(self.path).query))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.answer(issuer.documents.get(self.path, 404))

        def answer(self, found: Any) -> None:
            body = b"" if isinstance(found, int) else json.dumps(found).encode()
            self.send_response(found if isinstance(found, int) else 200)
            if found == 302:
                self.send_header("Location", f"{issuer.url}/elsewhere")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.path in issuer.dripping:
                time.sleep(issuer.dripping[self.path])
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    issuer = FakeIssuer(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
