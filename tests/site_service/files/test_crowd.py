"""A crowd of idle connections and slow uploads on the server that ships: others are served, and nothing grows beyond its bounds.

`-o log_cli_level=INFO` shows what was measured.
"""

from __future__ import annotations

import logging
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import quantiles

import psutil
import pytest

from tests.ports import free_port
from tests.site_service.conftest import TOKEN
from tests.site_service.files.test_live import answer_status, temporary_files, wait_for
from tests.site_service.server import SiteProcess

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

AUTH = {"Authorization": f"Bearer {TOKEN}"}
IDLE, UPLOADS = 1000, 200
LENGTH = 200
# Bytes that a slow upload may make us hold, and what its thread and its sockets cost.
EACH = 64 * 1024 + 160 * 1024
NAMED = "Host: 127.0.0.1\r\nAuthorization: Bearer " + TOKEN + "\r\n"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, token: str) -> Iterator[SiteProcess]:
    site = SiteProcess(tmp_path_factory.mktemp("crowd"), free_port(), {"INVENTORY_READ_TIMEOUT_SECONDS": "120"})
    site.start()
    yield site
    site.stop()


@pytest.fixture(autouse=True)
def _many_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))


def worker(site: SiteProcess) -> psutil.Process:
    assert site.process is not None
    (found,) = psutil.Process(site.process.pid).children()
    return found


def uploads(site: SiteProcess, stack: ExitStack) -> list[socket.socket]:
    """Half of them chunked; each has sent a header and nothing else."""
    opened = [stack.enter_context(site.connect()) for _ in range(UPLOADS)]
    for number, sender in enumerate(opened):
        framing = "Transfer-Encoding: chunked" if number % 2 else f"Content-Length: {LENGTH}"
        sender.sendall(f"PUT /files/cadc:TEST/slow/{number} HTTP/1.1\r\n{NAMED}{framing}\r\n\r\n".encode())
    return opened


def send(sender: socket.socket, number: int, data: bytes, *, last: bool = False) -> None:
    if number % 2:
        data = b"%x\r\n%b\r\n" % (len(data), data) + (b"0\r\n\r\n" if last else b"")
    sender.sendall(data)


def test_a_thousand_idle_connections_and_two_hundred_slow_uploads_leave_the_service_responsive(
    site: SiteProcess,
) -> None:
    path = "/files/cadc:TEST/read"
    assert site.request("PUT", path, b"content", AUTH).status == 201
    serving = worker(site)
    before = serving.memory_full_info().pss
    took = []
    with ExitStack() as stack:
        # Some have been of use before, some never say anything.
        idle = [stack.enter_context(site.connect()) for _ in range(IDLE)]
        for connection in idle[::2]:
            connection.sendall(f"HEAD {path} HTTP/1.1\r\n{NAMED}\r\n".encode())
            assert answer_status(connection) == 200
        slow = uploads(site, stack)
        # Beginning two hundred at once is work for everybody; what is looked at here is their being slow.
        wait_for(lambda: len(temporary_files(site)) == UPLOADS)
        for round_ in range(8):
            for first, method in enumerate(("HEAD", "GET") * 10):
                for number in range(first, UPLOADS, 20):
                    send(slow[number], number, b"%d" % round_)
                began = time.monotonic()
                answer = site.request(method, path, headers=AUTH, timeout=30)
                took.append(time.monotonic() - began)
                assert (answer.status, answer.body) == (200, b"content" if method == "GET" else b"")
        descriptors, held = serving.num_fds(), serving.memory_full_info().pss - before
        for number, sender in enumerate(slow):
            send(sender, number, b"x" * (LENGTH - 8), last=True)
        assert [answer_status(sender) for sender in slow] == [201] * UPLOADS
    for number in (0, 1, UPLOADS - 1):
        assert site.request("GET", f"/files/cadc:TEST/slow/{number}", headers=AUTH).body == b"01234567" + b"x" * 192
    assert descriptors < IDLE + 2 * UPLOADS + 200
    assert held < UPLOADS * EACH
    cuts = quantiles(took, n=100)
    logger.info("p50 %.1f ms, p99 %.1f ms, PSS +%.1f MiB", cuts[49] * 1000, cuts[98] * 1000, held / 2**20)


def test_an_upload_that_stalls_in_a_large_block_holds_little(site: SiteProcess) -> None:
    """Of each megabyte most has come, and then nothing: what has come is written away, not held."""
    serving = worker(site)
    before = serving.memory_full_info().pss
    length = 1_000_000
    with ExitStack() as stack:
        slow = []
        for number in range(UPLOADS):
            # Connected when it sends: a connection without a header is given up after a while.
            slow.append(sender := stack.enter_context(site.connect()))
            head = f"PUT /files/cadc:TEST/stalled/{number} HTTP/1.1\r\n{NAMED}Content-Length: {length}\r\n\r\n"
            sender.sendall(head.encode() + b"x" * (length - 1000))
        written = UPLOADS * (length - 1000 - 64 * 1024)
        wait_for(lambda: sum(path.stat().st_size for path in temporary_files(site)) >= written, 60)
        held = serving.memory_full_info().pss - before
        for sender in slow:
            sender.sendall(b"x" * 1000)
        assert [answer_status(sender) for sender in slow] == [201] * UPLOADS
    logger.info("PSS +%.1f MiB", held / 2**20)
    assert held < UPLOADS * EACH
