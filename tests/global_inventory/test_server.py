"""A global as it ships, gunicorn and all: what only a real server shows about bodies and their announcement."""

from __future__ import annotations

import http.client
import json
import socket
from datetime import UTC, datetime

import pytest

from datamodel import auth
from datamodel.permissions import ALL_GRANTS
from tests.global_inventory.conftest import Federation

URI = "cadc:TEST/file.fits"


@pytest.fixture
def token(federation: Federation) -> str:
    return auth.create_api_token(name="operator", grants=ALL_GRANTS, now=datetime.now(UTC))


def head_of(port: int, request: str) -> tuple[list[str], socket.socket]:
    """The lines of the first answer to a request whose body has not been sent, and the connection."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.sendall(request.replace("\n", "\r\n").encode())
    received = b""
    while b"\r\n\r\n" not in received:
        piece = sock.recv(4096)
        assert piece, received
        received += piece
    return received.decode().split("\r\n"), sock


def test_a_redirected_upload_is_not_invited_first(federation: Federation, port: int, token: str) -> None:
    federation.add_site("alpha")
    request = f"PUT /files/{URI} HTTP/1.1\nHost: x\nAuthorization: Bearer {token}\nContent-Length: 9\nExpect: 100-continue\n\n"
    lines, sock = head_of(port, request.replace("Host: x", "Host: 127.0.0.1"))
    with sock:
        assert lines[0].startswith("HTTP/1.1 307")
        assert any(line.startswith("Location: http://alpha.test/site/files/1.") for line in lines)
        # Nobody knows whether the body follows, so nothing else can.
        assert "Connection: close" in lines
        assert sock.recv(1) == b""


def test_a_body_that_is_read_is_invited(federation: Federation, port: int, token: str) -> None:
    federation.add_site("alpha")
    body = json.dumps({"uri": URI, "direction": "put"}).encode()
    request = (
        f"POST /locate HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Bearer {token}\nContent-Type: application/json\n"
        f"Content-Length: {len(body)}\nExpect: 100-continue\n\n"
    )
    lines, sock = head_of(port, request)
    with sock:
        assert lines[0] == "HTTP/1.1 100 Continue"
        for _ in range(2):
            sock.sendall(body)
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            assert answer.status == 200
            assert json.loads(answer.read())["urls"][0]["site"] == "alpha"
            assert answer.getheader("Connection") == "keep-alive"
            # The connection goes on: the same again.
            sock.sendall(request.replace("\n", "\r\n").encode())
            assert sock.recv(4096).startswith(b"HTTP/1.1 100 Continue")


def test_a_chunked_body_is_read_whole(federation: Federation, port: int, token: str) -> None:
    federation.add_site("alpha")
    body = json.dumps({"uri": URI, "direction": "put"}).encode()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    client.request("POST", "/locate", body=iter([body[:10], body[10:]]), headers=headers, encode_chunked=True)
    answer = client.getresponse()
    assert (answer.status, json.loads(answer.read())["uri"]) == (200, URI)
    client.close()
