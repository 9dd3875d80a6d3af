"""The web server of a model test: the shipped application, with a network in front that loses, cuts, bends and repeats answers.

Which answers suffer, and how, is read from a file: a JSON list of [part of the path, fault, number]; each is used up once.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from django.conf import settings
from django.utils.module_loading import import_string

FAULTS = Path(os.environ["MODEL_FAULTS"])
_inner = import_string(settings.WSGI_APPLICATION)
_earlier: dict[str, tuple[str, list[tuple[str, str]], bytes]] = {}
_lock = threading.Lock()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The site or global, as the network lets it be seen."""
    path = environ["PATH_INFO"]
    if not path.startswith(("/harvest/", "/files/")) or environ["REQUEST_METHOD"] not in {"GET", "POST"}:
        answer: Iterable[bytes] = _inner(environ, start_response)
        return answer
    # Each stream by itself: an earlier page of the same, not of another.
    fault, number = _fault(path)
    if fault == "lost":
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return [b""]
    if fault == "whole":
        # A server that knows nothing of ranges.
        environ.pop("HTTP_RANGE", None)
    status, headers, body = _collected(environ)
    with _lock:
        before, _earlier[path] = _earlier.get(path), (status, headers, body)
    if fault == "earlier" and before is not None:
        status, headers, body = before
    if fault == "cut":
        # As a proxy does that has lost its other side and calls what it has the whole.
        body = body[: number % (len(body) + 1)]
        headers = [pair for pair in headers if pair[0].lower() != "content-length"]
    if fault == "bent" and body:
        place = number % len(body)
        body = body[:place] + bytes([body[place] ^ 1 << number % 8]) + body[place + 1 :]
    start_response(status, headers)
    return [body]


def _collected(environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
    said: list[Any] = []
    answer = _inner(environ, lambda status, headers, *_: said.append((status, headers)))
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return said[0][0], said[0][1], body


def _fault(path: str) -> tuple[str, int]:
    with FAULTS.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        faults = json.loads(file.read() or "[]")
        for position, (part, fault, number) in enumerate(faults):
            if part in path:
                del faults[position]
                file.seek(0)
                file.truncate()
                file.write(json.dumps(faults))
                return fault, number
    return "", 0
