"""Blocks of uploads: large ones only of what is there already, and only so many at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from site_service.files import body
from site_service.files.body import Budget, RequestBody

SMALL = 64 * 1024
LARGE = 1024 * 1024


class Stream:
    """A server's stream that tells how much was asked for; the bytes stay where they are."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read(self, size: int, /) -> bytes:
        self.asked.append(size)
        return b"x" * size


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def reading(connected: socket.socket, stream: Stream) -> RequestBody:
    environ: dict[str, Any] = {"wsgi.input": stream, "gunicorn.socket": connected}
    return RequestBody(environ, length=None, limit=100 * LARGE, timeout=5)


def test_of_a_slow_sender_a_small_block_is_awaited(ends: tuple[socket.socket, socket.socket]) -> None:
    stream = Stream()
    content = reading(ends[0], stream)
    content.read(LARGE)
    ends[1].sendall(b"y" * 100_000)
    content.read(LARGE)
    content.read(1000)
    assert stream.asked == [SMALL, 100_000, 1000]


def test_without_room_blocks_are_small_until_another_is_done_with(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "_budget", Budget(150_000))
    ends[1].sendall(b"y" * 100_000)
    one, other = Stream(), Stream()
    first, second = reading(ends[0], one), reading(ends[0], other)
    first.read(LARGE)
    second.read(LARGE)
    assert (one.asked, other.asked) == ([100_000], [SMALL])
    # Whatever becomes of an upload, its share is given back.
    del first
    second.read(LARGE)
    assert other.asked == [SMALL, 100_000]
