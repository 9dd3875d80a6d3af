"""Raw WSGI applications on the product's own server and settings: what a request costs before the product adds anything.

Run as `gunicorn -c python:datamodel.webserver tests.bench.peer`; BENCH_SITE_DATABASE and BENCH_GLOBAL_DATABASE are URLs,
BENCH_OBJECTS is where the site's store has its objects.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg_pool import ConnectionPool


def _pool(url: str) -> ConnectionPool[Any]:
    return ConnectionPool(url, min_size=1, max_size=32, open=True, kwargs={"autocommit": True})


_site, _global = _pool(os.environ["BENCH_SITE_DATABASE"]), _pool(os.environ["BENCH_GLOBAL_DATABASE"])
_objects = Path(os.environ["BENCH_OBJECTS"])
_key = Ed25519PrivateKey.generate()
_STORED = (
    "SELECT a.id, a.content_checksum, a.content_length, l.storage_id FROM artifact a "
    "JOIN storage_location l ON l.artifact_id = a.id WHERE a.uri = %s"
)
_LOCATED = (
    "SELECT a.id, a.content_checksum, a.content_length, a.uri, "
    "ARRAY(SELECT l.site_id FROM site_location l WHERE l.artifact_id = a.id) FROM artifact a WHERE a.uri = "
)

Environ = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], object]


def application(environ: Environ, start: Start) -> Iterable[bytes]:
    """`/files/{uri}` (HEAD, GET), `/locate/{uri}`, `/bulk` (POST: uris as JSON), `/object/{storage id}`."""
    kind, _, rest = environ["PATH_INFO"].lstrip("/").partition("/")
    if kind == "files":
        return _file(environ, start, rest)
    if kind == "object":
        return _send(environ, start, rest)
    body = json.dumps(_ANSWERS[kind](environ, rest)).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _file(environ: Environ, start: Start, uri: str) -> Iterable[bytes]:
    with _site.connection() as connection:
        row = connection.execute(_STORED, [uri]).fetchone()
    if row is None:
        start("404 Not Found", [("Content-Length", "0")])
        return []
    if environ["REQUEST_METHOD"] == "HEAD":
        start("200 OK", [("Content-Length", str(row[2]))])
        return []
    return _send(environ, start, row[3])


def _send(environ: Environ, start: Start, storage_id: str) -> Iterable[bytes]:
    """The whole file or, with `Range: bytes=a-b`, that part of it; by sendfile."""
    file = (_objects / storage_id[:3] / storage_id).open("rb")
    length = os.fstat(file.fileno()).st_size
    first, _, last = environ.get("HTTP_RANGE", "").removeprefix("bytes=").partition("-")
    if last:
        file.seek(int(first))
        length = int(last) + 1 - int(first)
    start("206 Partial Content" if last else "200 OK", [("Content-Length", str(length))])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
    return wrapped


def _locate(environ: Environ, uri: str) -> object:
    del environ
    with _global.connection() as connection:
        row = connection.execute(f"{_LOCATED} %s", [uri]).fetchone()
    if row is None:
        return None
    urls = [f"http://x/{_key.sign(f'{uri}{site}'.encode()).hex()}/{uri}" for site in row[4]]
    return {"uri": uri, "id": str(row[0]), "contentChecksum": row[1], "contentLength": row[2], "urls": urls}


def _bulk(environ: Environ, rest: str) -> object:
    del rest
    uris = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    with _global.connection() as connection:
        found = {row[3]: row for row in connection.execute(f"{_LOCATED} ANY(%s)", [uris])}
    return [
        {
            "id": str(found[uri][0]),
            "contentLength": found[uri][2],
            "url": f"http://x/{_key.sign(uri.encode()).hex()}/{uri}",
        }
        for uri in uris
    ]


_ANSWERS: dict[str, Callable[[Environ, str], object]] = {"locate": _locate, "bulk": _bulk}
