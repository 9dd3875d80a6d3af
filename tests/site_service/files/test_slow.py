"""Slow peers on the server that ships: half headers, dripping bodies and sipping readers keep no place and are given up."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.ports import free_port
from tests.site_service.conftest import TOKEN
from tests.site_service.files.test_live import answer_status, temporary_files, wait_for
from tests.site_service.server import SiteProcess

AUTH = {"Authorization": f"Bearer {TOKEN}"}
PATH = "/files/cadc:TEST/slow.bin"
REQUEST = f"{PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
THREADS = 4


@pytest.fixture(scope="module")
def slow_site(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteProcess]:
    """A site with few threads and little patience."""
    limits = {
        "INVENTORY_THREADS": str(THREADS),
        "INVENTORY_HEADER_TIMEOUT_SECONDS": "1",
        "INVENTORY_READ_TIMEOUT_SECONDS": "1",
        "INVENTORY_MIN_BYTES_PER_SECOND": "100000",
        "INVENTORY_METRICS_PUBLIC": "true",
    }
    site = SiteProcess(tmp_path_factory.mktemp("slow"), free_port(), limits)
    site.start()
    yield site
    site.stop()


@pytest.fixture
def impatient(slow_site: SiteProcess, token: str) -> SiteProcess:
    return slow_site


def given_up(site: SiteProcess, what: str) -> float:
    lines = site.request("GET", "/metrics").body.decode().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith(f'inventory_slow_peers_total{{what="{what}"}}')
    )


def test_half_headers_do_not_keep_the_threads(impatient: SiteProcess) -> None:
    with ExitStack() as stack:
        for _ in range(3 * THREADS):
            stack.enter_context(impatient.connect()).sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert impatient.request("GET", "/livez", timeout=15).status == 200
        wait_for(lambda: given_up(impatient, "header") >= 1)


def test_a_dripping_body_is_refused_and_leaves_nothing(impatient: SiteProcess) -> None:
    with impatient.connect() as sender:
        sender.sendall(f"PUT {REQUEST}Content-Length: 100000\r\n\r\n".encode())
        sender.settimeout(0.05)
        began = time.monotonic()
        while time.monotonic() < began + 10:
            sender.sendall(b"x" * 50)
            try:
                assert sender.recv(12, socket.MSG_PEEK)
                break
            except TimeoutError:
                continue
        sender.settimeout(10)
        assert answer_status(sender) == 400
    assert impatient.request("HEAD", PATH, headers=AUTH).status == 404
    wait_for(lambda: not temporary_files(impatient))
    assert given_up(impatient, "body") >= 1


def test_a_sipping_reader_loses_its_connection(impatient: SiteProcess) -> None:
    size = 16 * 1024 * 1024
    assert impatient.request("PUT", PATH, b"x" * size, AUTH).status == 201
    before = given_up(impatient, "answer")
    with impatient.connect() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(f"GET {REQUEST}\r\n".encode())
        assert reader.recv(9) == b"HTTP/1.1 "
        wait_for(lambda: bool(reader.recv(10)) and given_up(impatient, "answer") > before)


def test_connections_that_are_kept_are_judged_request_by_request(impatient: SiteProcess) -> None:
    with impatient.connect() as client:
        for _ in range(3):
            client.sendall(f"HEAD {REQUEST}\r\n".encode())
            with client.makefile("rb") as answer:
                assert b" 404 " in answer.readline()
                while answer.readline().strip():
                    pass
            time.sleep(0.4)
