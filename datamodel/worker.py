"""Gunicorn's thread worker, which invites a body only when somebody reads it, gives no slow peer a thread for ever nor the place
of one that works, and lets long-polls go when it is told to stop.

Gunicorn itself answers `Expect: 100-continue` before the application has seen the request: a refused or redirected upload would
be sent in vain (RFC 9110, 10.1.1).
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from functools import partial
from types import FrameType
from typing import Any

from gunicorn.http.body import Body, LengthReader
from gunicorn.workers.gthread import TConn, ThreadWorker

from datamodel import env
from datamodel.crew import Crew
from datamodel.notify import news
from datamodel.pace import PacedSocket, PaceLimits

_LIMITS = PaceLimits(
    head_seconds=env.integer("INVENTORY_HEADER_TIMEOUT_SECONDS", 10, minimum=1),
    idle_seconds=env.integer("INVENTORY_READ_TIMEOUT_SECONDS", 120, minimum=1),
    bytes_per_second=env.integer("INVENTORY_MIN_BYTES_PER_SECOND", 1000),
)
# Uploads to an object store collect whole parts in memory: there, those who wait count.
_WAITING = env.integer("INVENTORY_WAITING_THREADS", 0 if env.text("INVENTORY_S3_BUCKET", "") else 512)
# Of several workers: who has taken a connection leaves the next to the others for so long, or one would have them all.
_AFTER_YOU_SECONDS = 0.0005
_NOBODY_THERE = frozenset({errno.EAGAIN, errno.ECONNABORTED})


class InvitingWorker(ThreadWorker):
    """Sends `100 Continue` at the first read of the body; an answer without it ends the connection."""

    # Both are there before anybody connects.
    tpool: Any
    poller: Any

    def get_thread_pool(self) -> Crew:
        """Threads that wait for their peers are not among those that work."""
        return Crew(working=self.cfg.threads, waiting=_WAITING)

    def accept(self, listener: Any) -> None:
        """A connection that says nothing yet waits without a thread; gunicorn would keep one for five seconds."""
        if self.cfg.is_ssl:
            super().accept(listener)  # type: ignore[no-untyped-call]  # gunicorn has no types
            return
        try:
            connected, address = listener.accept()
        except OSError as error:
            if error.errno in _NOBODY_THERE:
                return
            raise
        self.nr_conns += 1
        if self.cfg.workers > 1:
            time.sleep(_AFTER_YOU_SECONDS)
        paced = PacedSocket.taking(connected, _LIMITS, self.tpool.away)
        conn = TConn(self.cfg, paced, address, listener.getsockname())  # type: ignore[no-untyped-call]
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(paced, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _cap_keepalive(self, deadline: float) -> None:
        """A worker that stops waits no longer for those who have never said anything than for others."""
        super()._cap_keepalive(deadline)  # type: ignore[no-untyped-call]  # gunicorn has no types
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: transfers get their time, but nobody's wait for news may use it up."""
        news.is_closing = True
        super().handle_exit(sig, frame)  # type: ignore[no-untyped-call]  # gunicorn has no types

    def handle(self, conn: Any) -> Any:
        """Gunicorn reads headers without any limit of time: a few dozen half requests would stop it."""
        if isinstance(conn.sock, PacedSocket):
            conn.sock.expect_head()
        return super().handle(conn)  # type: ignore[no-untyped-call]  # gunicorn has no types

    def handle_request(self, req: Any, conn: Any) -> bool:
        if isinstance(conn.sock, PacedSocket):
            conn.sock.expect_body()
        if isinstance(req.body.reader, LengthReader):
            req.body = _DirectBody(req.unreader, req.body.reader.length)
        if req._expected_100_continue:
            req._expected_100_continue = False
            # Whether the client sends its body after a final answer is its own choice: nothing can follow on this connection.
            req.must_close = True
            req.body.reader = _InvitingReader(req, conn.sock)
        return bool(super().handle_request(req, conn))  # type: ignore[no-untyped-call]  # gunicorn has no types


class _DirectBody(Body):
    """A body of known length whose blocks are what the socket gave; gunicorn copies each through two buffers."""

    def __init__(self, unreader: Any, length: int) -> None:
        super().__init__(_DirectReader(unreader, length))  # type: ignore[no-untyped-call]  # gunicorn has no types

    def read(self, size: int | None = None) -> bytes:
        if not size or size < 0 or self.buf.tell():
            return bytes(super().read(size))  # type: ignore[no-untyped-call]  # gunicorn has no types
        return bytes(self._read_reader(size))  # type: ignore[no-untyped-call]  # gunicorn has no types


class _DirectReader:
    """Up to `size` bytes, and fewer only at the end of the body or of the connection."""

    def __init__(self, unreader: Any, length: int) -> None:
        came_with_header = unreader.take_buffered()
        unreader.unread(came_with_header[length:])
        self._head: bytes = came_with_header[:length]
        self._socket: socket.socket = unreader.sock
        self._left = length

    def read(self, size: int) -> bytes:
        missing = min(size, self._left)
        pieces = []
        while missing and (piece := self._piece(missing)):
            pieces.append(piece)
            missing -= len(piece)
            self._left -= len(piece)
        # One piece is returned as it is.
        return b"".join(pieces)

    def _piece(self, size: int) -> bytes:
        if not self._head:
            return self._socket.recv(size)
        piece, self._head = self._head[:size], self._head[size:]
        return piece


class _InvitingReader:
    """Takes the place of the body's reader until the first read."""

    def __init__(self, req: Any, sock: socket.socket) -> None:
        self._req = req
        self._sock = sock
        self._reader = req.body.reader

    def read(self, size: int) -> bytes:
        self._req.body.reader = self._reader
        self._req.must_close = False
        self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return bytes(self._reader.read(size))
