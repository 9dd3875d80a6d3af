"""Raw WSGI applications on the product's own server and settings: what a request costs before the product adds anything.

Run as `gunicorn -c python:datamodel.webserver tests.bench.peer`; DATABASE_URL names the site's (or global's) database and
BENCH_FILE a large file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg_pool import ConnectionPool

_pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=20, open=True, kwargs={"autocommit": True})
_key = Ed25519PrivateKey.generate()
_LOOK_UP = "SELECT a.id, a.content_checksum, a.content_length, l.storage_id, a.uri FROM artifact a LEFT JOIN storage_location l "
_BY_URI = _LOOK_UP + "ON l.artifact_id = a.id WHERE a.uri = %s"
_BY_URIS = _LOOK_UP + "ON l.artifact_id = a.id WHERE a.uri = ANY(%s)"

Environ = dict[str, Any]
Start = Callable[[str, list[tuple[str, str]]], object]


def application(environ: Environ, start: Start) -> Iterable[bytes]:
    """`/look-up/{uri}`, `/locate/{uri}`, `/bulk` (POST: uris as JSON), `/file`."""
    kind, _, rest = environ["PATH_INFO"].lstrip("/").partition("/")
    if kind == "file":
        return _file(environ, start)
    body = json.dumps(_ANSWERS[kind](environ, rest)).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def _look_up(environ: Environ, uri: str) -> object:
    del environ
    with _pool.connection() as connection:
        row = connection.execute(_BY_URI, [uri]).fetchone()
    return {"id": str(row[0])} if row else None


def _locate(environ: Environ, uri: str) -> object:
    found = _look_up(environ, uri)
    return {"artifact": found, "urls": [f"http://x/{_key.sign(f'{uri}{n}'.encode()).hex()}/{uri}" for n in range(2)]}


def _bulk(environ: Environ, rest: str) -> object:
    del rest
    uris = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    with _pool.connection() as connection:
        found = {row[4]: row for row in connection.execute(_BY_URIS, [uris])}
    return [{"id": str(found[uri][0]), "url": f"http://x/{_key.sign(uri.encode()).hex()}/{uri}"} for uri in uris]


def _file(environ: Environ, start: Start) -> Iterable[bytes]:
    file = open(os.environ["BENCH_FILE"], "rb")  # noqa: SIM115, PTH123  # the server closes it
    start("200 OK", [("Content-Length", str(os.fstat(file.fileno()).st_size))])
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
    return wrapped


_ANSWERS: dict[str, Callable[[Environ, str], object]] = {"look-up": _look_up, "locate": _locate, "bulk": _bulk}
