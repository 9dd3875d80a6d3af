"""What this machine can do at most, without the product: the limits that the figures are held against."""

from __future__ import annotations

import hashlib
import os
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

_MIB = 1 << 20
_ROTATING = 16 * _MIB


def both_digests(length: int) -> float:
    """Bytes per second of MD5 on one thread while SHA-256 of the same bytes runs on another, over a rotating buffer."""
    buffer = memoryview(os.urandom(_ROTATING))

    def run(name: str) -> None:
        digest = hashlib.new(name, usedforsecurity=False)
        for offset in range(0, length, _MIB):
            start = offset % _ROTATING
            digest.update(buffer[start : start + _MIB])

    threads = [threading.Thread(target=run, args=(name,)) for name in ("md5", "sha256")]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return length / (time.perf_counter() - started)


def md5_alone(length: int) -> float:
    """Bytes per second of MD5 on one thread over a 16 MiB rotating buffer."""
    buffer = memoryview(os.urandom(_ROTATING))
    digest = hashlib.md5(usedforsecurity=False)
    started = time.perf_counter()
    for offset in range(0, length, _MIB):
        start = offset % _ROTATING
        digest.update(buffer[start : start + _MIB])
    return length / (time.perf_counter() - started)


def durable_files(directory: Path, count: int, *, threads: int, commit: Callable[[int], None]) -> float:
    """Files of 4 KiB per second: create, fsync, rename, fsync of the directory, then `commit(1)`, in several threads."""
    directory.mkdir(parents=True, exist_ok=True)
    data = os.urandom(4096)

    def one(number: int) -> None:
        temporary, final = directory / f"t{number}", directory / uuid.uuid4().hex
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(final)
        parent = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
        commit(number)

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(count)))
    return count / (time.perf_counter() - started)


class RowCommitter:
    """Commits the rows of a PUT (artifact, location, audit entry) into tables of the bench's own, one connection per thread."""

    def __init__(self, database_url: str, *, every: int) -> None:
        self.url = database_url
        self.every = every
        self.local = threading.local()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {', '.join(_COPIES)}")
            for copy, table in _COPIES.items():
                connection.execute(f"CREATE TABLE {copy} (LIKE {table} INCLUDING ALL)")

    def __call__(self, number: int) -> None:
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = psycopg.connect(self.url, autocommit=True)
            self.local.pending = 0
        if self.every > 1 and not self.local.pending:
            connection.execute("BEGIN")
        connection.execute(_ONE_PUT, {"id": uuid.uuid4()})
        self.local.pending += 1
        if self.every > 1 and self.local.pending == self.every:
            connection.execute("COMMIT")
            self.local.pending = 0

    def close(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {', '.join(_COPIES)}")


_COPIES = {"bench_artifact": "artifact", "bench_location": "storage_location", "bench_entry": "audit_entry"}
_ARTIFACT = (
    "id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified, meta_checksum, "
    "content_sha256, meta_modified_at, txid"
)
_ONE_PUT = f"""
    WITH one AS (SELECT %(id)s::uuid AS id, 'bench:limit/' || %(id)s::uuid AS uri, inventory_now() AS at),
    born AS (INSERT INTO bench_artifact ({_ARTIFACT}) SELECT id, uri, '00000', 'md5:' || md5(uri), at, 4096, at,
        'md5:' || md5(uri), sha256(uri::bytea), at, 0 FROM one),
    placed AS (INSERT INTO bench_location SELECT id, id::text, left(id::text, 3), at FROM one)
    INSERT INTO bench_entry (txid, at, who, method, address, action, subject, outcome, reason, request_id, count, details)
    SELECT 0, at, 'bench', 'token', '127.0.0.1', 'put', uri, 'done', '', id::text, 1, '{{}}' FROM one
"""
# Of ten thousand rows: what the product takes at once.
_BLOCK_ROWS = 10_000
_FINAL = {"bench_artifact": "artifact", "bench_site_location": "site_location"}
_PROOF = (
    "SELECT count(*) FROM {} WHERE meta_checksum <> artifact_meta_checksum(id, uri, uri_bucket, content_checksum, "
    "content_last_modified, content_length, content_type, content_encoding)"
)


class FinalTables:
    """Copies of the tables that harvested rows go into, with their indexes, and so many rows as COPY takes them."""

    def __init__(self, database_url: str, count: int) -> None:
        self._url, self._count = database_url, count
        self._blocks = list(_blocks(count))

    def copy_in(self) -> float:
        """Rows per second of COPY into both, empty, all verified."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            self._empty(connection)
            started = time.perf_counter()
            with connection.transaction():
                for number, table in enumerate(_FINAL):
                    self._copy(connection, table, [block[number] for block in self._blocks])
                connection.execute(_PROOF.format("bench_artifact"))
            return self._count / (time.perf_counter() - started)

    def copy_in_again(self) -> float:
        """Rows per second of COPY into a staging table, verification and a merge that changes nothing; needs `copy_in` before."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            started = time.perf_counter()
            for rows, locations in self._blocks:
                with connection.transaction():
                    connection.execute("CREATE TEMP TABLE staged (LIKE artifact) ON COMMIT DROP")
                    connection.execute(
                        "CREATE TEMP TABLE staged_place (LIKE site_location INCLUDING DEFAULTS) ON COMMIT DROP"
                    )
                    self._copy(connection, "staged", [rows])
                    self._copy(connection, "staged_place", [locations])
                    connection.execute(_PROOF.format("staged"))
                    connection.execute(_NO_MERGE)
                    connection.execute(
                        "INSERT INTO bench_site_location SELECT * FROM staged_place ON CONFLICT DO NOTHING"
                    )
            return self._count / (time.perf_counter() - started)

    def drop(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {', '.join(_FINAL)}")

    def _empty(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        connection.execute(f"DROP TABLE IF EXISTS {', '.join(_FINAL)}")
        for copy, table in _FINAL.items():
            connection.execute(f"CREATE TABLE {copy} (LIKE {table} INCLUDING ALL)")

    def _copy(self, connection: psycopg.Connection[tuple[object, ...]], table: str, blocks: list[bytes]) -> None:
        columns = "artifact_id, site_id" if "place" in table or "location" in table else _ARTIFACT
        with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for block in blocks:
                copy.write(block)


_NO_MERGE = f"""
    INSERT INTO bench_artifact ({_ARTIFACT}) SELECT {_ARTIFACT} FROM staged
    ON CONFLICT (id) DO UPDATE SET meta_checksum = excluded.meta_checksum
    WHERE bench_artifact.meta_checksum <> excluded.meta_checksum
"""


def _blocks(count: int) -> Iterator[tuple[bytes, bytes]]:
    """Artifacts and their locations at one site."""
    site, when = uuid.uuid4(), "2026-01-01 00:00:00.000+00"
    for start in range(0, count, _BLOCK_ROWS):
        rows, locations = [], []
        for number in range(start, min(start + _BLOCK_ROWS, count)):
            identity = uuid.uuid4()
            checksum = "md5:" + hashlib.md5(identity.bytes, usedforsecurity=False).hexdigest()
            rows.append(
                f"{identity}\tbench:copy/{identity}\t{number % 0xFFFFF:05x}\t{checksum}\t{when}\t4096\t{when}\t"
                f"{checksum}\t\\N\t{when}\t0\n"
            )
            locations.append(f"{identity}\t{site}\n")
        yield "".join(rows).encode(), "".join(locations).encode()


def commit_and_round_trip(database_url: str, ask: Callable[[], object], count: int) -> float:
    """Milliseconds of one commit and one loopback request, the median."""
    committer, taken = RowCommitter(database_url, every=1), []
    for number in range(count):
        started = time.perf_counter()
        committer(number)
        ask()
        taken.append(1000 * (time.perf_counter() - started))
    committer.close()
    return statistics.median(taken)
