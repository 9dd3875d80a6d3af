"""Slow peers: the rule, and the socket that keeps it."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datamodel.pace import Pace, PacedSocket, PaceLimits

LIMITS = PaceLimits(head_seconds=0.3, idle_seconds=0.2, bytes_per_second=1000)


@pytest.fixture
def pair() -> Iterator[tuple[PacedSocket, socket.socket]]:
    """Ours and the peer's end, with little room between them."""
    ours, peer = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    paced = PacedSocket.taking(ours, LIMITS)
    with paced, peer:
        yield paced, peer


def test_a_peer_is_judged_by_the_average_over_the_time_that_was_waited() -> None:
    pace = Pace(PaceLimits(1, 10, 100))
    assert all(pace.is_kept(0, 3) for _ in range(3))
    assert pace.is_kept(1000, 3)
    assert all(pace.is_kept(99, 1) for _ in range(9))
    assert not pace.is_kept(99, 1)
    assert Pace(PaceLimits(1, 10, 0)).is_kept(0, 1000)


def test_a_header_has_its_time_however_it_is_dripped(pair: tuple[PacedSocket, socket.socket]) -> None:
    ours, peer = pair
    ours.expect_head()
    began = time.monotonic()

    def drip() -> None:
        for _ in range(20):
            try:
                peer.sendall(b"x")
            except OSError:
                return
            time.sleep(0.05)

    sender = threading.Thread(target=drip)
    sender.start()
    with pytest.raises(ConnectionResetError):
        while time.monotonic() < began + 5:
            ours.recv(100)
    assert time.monotonic() - began < 1
    ours.close()
    sender.join()


def test_a_body_that_stalls_times_out_and_what_came_before_is_there(pair: tuple[PacedSocket, socket.socket]) -> None:
    ours, peer = pair
    ours.expect_head()
    ours.expect_body()
    peer.sendall(b"x" * 5000)
    assert len(ours.recv(10_000)) == 5000
    with pytest.raises(TimeoutError):
        ours.recv(1)


def test_a_body_that_drips_times_out(pair: tuple[PacedSocket, socket.socket]) -> None:
    ours, peer = pair
    ours.expect_body()
    began = time.monotonic()
    drops = [threading.Timer(0.12 * number, peer.sendall, [b"x"]) for number in range(1, 4)]
    for drop in drops:
        drop.start()
    with pytest.raises(TimeoutError, match="slowly"):
        while time.monotonic() < began + 5:
            assert ours.recv(1) == b"x"
    for drop in drops:
        drop.join()


def test_it_never_blocks_for_ever(pair: tuple[PacedSocket, socket.socket]) -> None:
    ours, _ = pair
    ours.setblocking(True)
    assert ours.gettimeout() == LIMITS.idle_seconds
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(1)


@pytest.mark.parametrize("how", ["sendall", "sendfile"])
def test_a_reader_that_takes_nothing_or_too_little_is_reset(
    pair: tuple[PacedSocket, socket.socket], how: str, tmp_path: Path
) -> None:
    ours, peer = pair
    content = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(content)
    taken = 0
    stop = threading.Event()

    def sip() -> None:
        nonlocal taken
        while not stop.wait(0.03):
            taken += len(peer.recv(10))

    reader = threading.Thread(target=sip)
    reader.start()
    began = time.monotonic()
    with (tmp_path / "file").open("rb") as file, pytest.raises(ConnectionResetError):
        ours.sendall(content) if how == "sendall" else ours.sendfile(file, 0, len(content))
    assert time.monotonic() - began < 3
    stop.set()
    reader.join()


@pytest.mark.parametrize("how", ["sendall", "sendfile", "sendfile of a part"])
def test_a_reader_that_keeps_pace_gets_every_byte(
    pair: tuple[PacedSocket, socket.socket], how: str, tmp_path: Path
) -> None:
    ours, peer = pair
    content = bytes(range(256)) * 4096
    (tmp_path / "file").write_bytes(content)
    got = bytearray()

    def read() -> None:
        while block := peer.recv(65536):
            got.extend(block)

    reader = threading.Thread(target=read)
    reader.start()
    with (tmp_path / "file").open("rb") as file:
        match how:
            case "sendall":
                ours.sendall(content)
            case "sendfile":
                assert ours.sendfile(file) == len(content)
            case _:
                assert ours.sendfile(file, 1000, 300_000) == 300_000
                content = content[1000:301_000]
    ours.close()
    reader.join()
    assert bytes(got) == content


class ToldFile(io.FileIO):
    """A file that keeps where it was told that it had been sent to."""

    def passed(self, position: int) -> None:
        self.positions = [*getattr(self, "positions", []), position]


def test_a_file_is_told_up_to_where_it_was_sent(pair: tuple[PacedSocket, socket.socket], tmp_path: Path) -> None:
    ours, peer = pair
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: peer.recv(65536), b"")])
    reader.start()
    with ToldFile(tmp_path / "file") as file:
        ours.sendfile(file, 1000, 90_000)
    ours.close()
    reader.join()
    assert file.positions == sorted(file.positions)
    assert file.positions[0] > 1000
    assert file.positions[-1] == 91_000
