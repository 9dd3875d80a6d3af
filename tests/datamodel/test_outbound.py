"""Where this service connects to, and where never, whatever the name that it was given says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError

from datamodel import outbound


@pytest.mark.parametrize(
    ("address", "to_peers", "for_callers"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("10.1.2.3", True, False),
        ("192.168.0.1", True, False),
        ("100.64.0.1", True, False),
        ("127.0.0.1", True, False),
        ("::1", True, False),
        ("fd00::1", True, False),
        ("::ffff:10.0.0.1", True, False),
        ("::ffff:169.254.169.254", False, False),
        ("169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("224.0.0.1", False, False),
        ("ff02::1", False, False),
    ],
)
def test_each_kind_of_address(address: str, to_peers: bool, for_callers: bool) -> None:
    assert outbound.may_call(address, is_private=True) is to_peers
    assert outbound.may_call(address, is_private=False) is for_callers


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Redirecting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_peer_may_be_private_and_a_redirect_of_it_is_not_followed(server: HTTPServer) -> None:
    pool = outbound.pool_manager()
    # Of the two addresses that this name has, only one answers.
    answer = pool.request("GET", f"http://localhost:{server.server_port}/", redirect=False)
    assert answer.status == 302
    pool.clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1", "[::1]", "[::ffff:127.0.0.1]"])
def test_no_spelling_of_a_private_address_is_called_where_only_public_ones_are(server: HTTPServer, host: str) -> None:
    reached = threading.Event()
    server.process_request = lambda *_: reached.set()  # type: ignore[method-assign]  # nobody may come so far
    for scheme in ("http", "https"):
        with pytest.raises(HTTPError):
            outbound.pool_manager(is_private=False).request(
                "GET", f"{scheme}://{host}:{server.server_port}/", timeout=2
            )
    assert not reached.is_set()


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest/meta-data/", "https://0.0.0.0/", "http://[fe80::1]/"])
def test_not_even_a_peer_is_called_where_clouds_keep_credentials(url: str) -> None:
    with pytest.raises(NewConnectionError, match="not called from here"):
        outbound.pool_manager().request("GET", url, timeout=2)


def test_a_name_that_also_has_a_private_address_is_not_called_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(NewConnectionError, match="not called from here"):
        outbound.pool_manager(is_private=False).request("GET", "http://both.example/", timeout=2)


@pytest.mark.parametrize("host", ["no-such-host.invalid", f"{'a' * 70}.example", "a..b"])
def test_a_name_that_is_none_is_an_ordinary_failure(host: str) -> None:
    with pytest.raises((NameResolutionError, HTTPError)):
        outbound.pool_manager().request("GET", f"http://{host}/", timeout=2)
