"""Gunicorn's thread worker, which invites a body only when somebody reads it, gives no slow peer a thread for ever, and lets
long-polls go when it is told to stop.

Gunicorn itself answers `Expect: 100-continue` before the application has seen the request: a refused or redirected upload would
be sent in vain (RFC 9110, 10.1.1).
"""

from __future__ import annotations

import socket
from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from datamodel import env
from datamodel.notify import news
from datamodel.pace import PacedSocket, PaceLimits

_LIMITS = PaceLimits(
    head_seconds=env.integer("INVENTORY_HEADER_TIMEOUT_SECONDS", 10, minimum=1),
    idle_seconds=env.integer("INVENTORY_READ_TIMEOUT_SECONDS", 120, minimum=1),
    bytes_per_second=env.integer("INVENTORY_MIN_BYTES_PER_SECOND", 1000),
)


class InvitingWorker(ThreadWorker):
    """Sends `100 Continue` at the first read of the body; an answer without it ends the connection."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: transfers get their time, but nobody's wait for news may use it up."""
        news.is_closing = True
        super().handle_exit(sig, frame)  # type: ignore[no-untyped-call]  # gunicorn has no types

    def handle(self, conn: Any) -> Any:
        """Gunicorn reads headers without any limit of time: a few dozen half requests would stop it."""
        if not conn.initialized and not self.cfg.is_ssl and not isinstance(conn.sock, PacedSocket):
            conn.sock = PacedSocket.taking(conn.sock, _LIMITS)
        if isinstance(conn.sock, PacedSocket):
            conn.sock.expect_head()
        return super().handle(conn)  # type: ignore[no-untyped-call]  # gunicorn has no types

    def handle_request(self, req: Any, conn: Any) -> bool:
        if isinstance(conn.sock, PacedSocket):
            conn.sock.expect_body()
        if req._expected_100_continue:
            req._expected_100_continue = False
            # Whether the client sends its body after a final answer is its own choice: nothing can follow on this connection.
            req.must_close = True
            req.body.reader = _InvitingReader(req, conn.sock)
        return bool(super().handle_request(req, conn))  # type: ignore[no-untyped-call]  # gunicorn has no types


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
