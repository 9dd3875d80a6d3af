"""Requests as tests write them."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from django.test import Client

PATH = "/files/cadc:TEST/file.txt"
DATA = b"abcdefghijklmnopqrstuvwxyz\n"


def body_of(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def md5_header(data: bytes) -> str:
    return "md5=" + base64.b64encode(hashlib.md5(data).digest()).decode()


def sha256_header(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def put(
    client: Client,
    data: bytes = DATA,
    *,
    path: str = PATH,
    content_type: str = "text/plain",
    headers: dict[str, str] | None = None,
) -> Any:
    """Header names may be written with underscores."""
    named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
    return client.generic("PUT", path, data, content_type, headers={"content-length": str(len(data)), **named})
