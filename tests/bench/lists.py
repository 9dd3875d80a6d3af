"""What many rows cost to be shown: the feed, a listing, and the comparison of inventory and store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import psycopg

from harvest.streams import ARTIFACTS
from tests.bench.client import BenchError
from tests.bench.exchange import AT_LEAST, ROWS, seed_once
from tests.bench.load import PROJECT, READ_SIZE, Figure, HttpSession, Row, timed
from tests.bench.running import Bench
from tests.bench.seeding import seed_objects

# As a global asks for them (INVENTORY_HARVEST_BATCH).
_PAGE = 10_000
# More than any record here has.
_RECORD_SIZE = 4096
_OBJECTS = "bench:objects/"
_STORED = "FROM artifact t JOIN storage_location l ON l.artifact_id = t.id"
_FEED = ", ".join(column.served(as_json=False) for column in ARTIFACTS.columns)
_FEED_COPY = f"COPY (SELECT {_FEED} {_STORED} ORDER BY t.txid, t.id) TO STDOUT"
_JSON_COPY = (
    f"COPY (SELECT row_to_json(t) {_STORED} WHERE t.uri >= '{ROWS}' AND t.uri < '{ROWS}~' ORDER BY t.uri) TO STDOUT"
)
_LAST_RUN = (
    "SELECT objects_seen, extract(epoch FROM finished_at - started_at) FROM validation_run "
    "WHERE state = 'complete' ORDER BY finished_at DESC LIMIT 1"
)
_READINGS = "SELECT count(*) FROM copy_verification"
_RUNS_OVER = "SELECT count(*) FROM validation_run WHERE state = 'complete'"


def feed(bench: Bench) -> Iterator[Row]:
    """Everything that alpha stores, as its global would read it from the start."""
    seed_once(bench)
    count = bench.count("alpha", f"SELECT count(*) {_STORED}")
    figure = Figure(
        "11",
        f"feed of {count:,} artifacts, TSV",
        "rows/s",
        lambda _: timed(count, lambda: _feed(bench, count)),
        "COPY out of the same columns",
        lambda _: timed(count, lambda: _copy_out(bench.database("alpha"), _FEED_COPY)),
        0.60,
        operations=count,
        rounds=bench.sizes.rounds,
    )
    yield bench.measure(figure)


def listing(bench: Bench) -> Iterator[Row]:
    seed_once(bench)
    count = bench.known("alpha", ROWS)
    figure = Figure(
        "17",
        f"listing of {count:,} artifacts, NDJSON",
        "rows/s",
        lambda _: timed(count, lambda: _listing(bench, count)),
        "COPY out as JSON",
        lambda _: timed(count, lambda: _copy_out(bench.database("alpha"), _JSON_COPY)),
        0.60,
        operations=count,
        rounds=bench.sizes.rounds,
    )
    yield bench.measure(figure)


def validation(bench: Bench) -> Iterator[Row]:
    """Everything that alpha stores: each object with its facts beside its row. One limit lists names and sizes, one facts too."""
    # The site's own first run would have begun before the clock runs, and would have to be waited for.
    bench.await_condition("its first validation is over", lambda: bench.count("alpha", _RUNS_OVER) > 0)
    missing = bench.sizes.objects - bench.count("alpha", f"SELECT count(*) {_STORED}")
    if missing > 0:
        seed_objects(bench.database("alpha"), bench.objects, _OBJECTS, count=missing, length=16)()
        bench.await_condition("the global knows them", lambda: bench.known("global", _OBJECTS) == missing)
        # As a site is that did not get them a minute ago.
        bench.await_condition("scrub knows when to read them", lambda: bench.count("alpha", _READINGS) >= missing)
        bench.execute("alpha", "VACUUM (ANALYZE)", "CHECKPOINT")
    count = bench.count("alpha", f"SELECT count(*) {_STORED}")
    figure = Figure(
        "16",
        f"file validate of {count:,} objects",
        "objects/s",
        lambda _: _validate(bench, count),
        "sorted listing, ordered query",
        lambda _: timed(count, lambda: _list_both(bench, count, facts=False)),
        0.50,
        operations=count,
        rounds=bench.sizes.heavy_rounds,
    )
    yield bench.measure(figure)
    yield bench.measure(
        replace(
            figure,
            name="the same, beside a limit that reads facts",
            limit_name="sorted listing with facts, ordered query",
            limit=lambda _: timed(count, lambda: _list_both(bench, count, facts=True)),
            warm=False,
        )
    )


def _feed(bench: Bench, expected: int) -> None:
    cursor, seen, more = "", 0, True
    with closing(HttpSession(bench.alpha)) as session:
        while more:
            tail = _stream(session, f"/harvest/artifacts?limit={_PAGE}{cursor}", bench.headers)
            words = tail.rpartition(b"#end\t")[2].decode().split("\t")
            seen, cursor, more = seen + int(words[0]), f"&cursor={words[1]}", words[3].strip() == "1"
    if seen < AT_LEAST * expected:
        raise BenchError(f"the feed served {seen} of {expected} rows")


def _listing(bench: Bench, expected: int) -> None:
    lines = 0

    def count(block: memoryview) -> None:
        nonlocal lines
        lines += bytes(block).count(b"\n")

    with closing(HttpSession(bench.alpha)) as session:
        _stream(session, f"/artifacts?format=ndjson&namespace={ROWS}", bench.headers, each=count)
    if lines < AT_LEAST * expected:
        raise BenchError(f"the listing has {lines} of {expected} lines")


def _stream(
    session: HttpSession, path: str, headers: dict[str, str], *, each: Callable[[memoryview], None] = lambda _: None
) -> bytes:
    """The last bytes of an answer."""
    buffer, tail = bytearray(READ_SIZE), b""
    session.connection.request("GET", session.prefix + path, headers=headers)
    response = session.connection.getresponse()
    while size := response.readinto(buffer):
        each(memoryview(buffer)[:size])
        tail = (tail + bytes(buffer[max(size - 1024, 0) : size]))[-1024:]
    if response.status != 200:
        raise BenchError(f"GET {path}: {response.status} {tail!r}")
    return tail


def _copy_out(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url) as connection, connection.cursor().copy(statement) as copy:
        for _ in copy:
            pass


def _validate(bench: Bench, expected: int) -> float:
    """By the run's own clock: starting Python is not part of it. The command is no service: its processor time is not counted."""
    environment = {
        **os.environ,
        "INVENTORY_ROLE": "site",
        "INVENTORY_NAME": "alpha",
        "DATABASE_URL": bench.database("alpha"),
        "INVENTORY_STORAGE_DIR": str(bench.directory / "alpha" / "storage"),
    }
    subprocess.run(
        [sys.executable, "manage.py", "validate_files", "--show", "0"],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    with psycopg.connect(bench.database("alpha")) as connection:
        row = connection.execute(_LAST_RUN).fetchone()
    if row is None or row[0] != expected:
        raise BenchError(f"the validation saw {row} instead of {expected} objects")
    return expected / float(row[1])


def _list_both(bench: Bench, expected: int, *, facts: bool) -> None:
    """Names in order, the size of each, the record beside it as bytes if `facts`; the rows in the same order."""
    seen = 0
    for shard in sorted(os.listdir(bench.objects)):  # noqa: PTH208  # what the limit is made of
        for name in sorted(os.listdir(bench.objects / shard)):  # noqa: PTH208  # the same
            path = f"{bench.objects}/{shard}/{name}"
            if not name.endswith(".json"):
                seen += os.stat(path).st_size >= 0  # noqa: PTH116  # the same
            elif facts:
                _read_once(path)
    if seen != expected:
        raise BenchError(f"the store has {seen} of {expected} objects")
    _copy_out(
        bench.database("alpha"),
        f"COPY (SELECT l.storage_id, t.id, t.uri, t.content_checksum, t.content_length {_STORED} "
        "ORDER BY l.storage_bucket, l.storage_id) TO STDOUT",
    )


def _read_once(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.read(descriptor, _RECORD_SIZE)
    os.close(descriptor)
