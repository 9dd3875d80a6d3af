"""What this machine can do at most, without the product: the limits that the figures are held against."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable
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
    """Commits rows shaped like an artifact and its location into tables of the bench's own, one connection per thread."""

    def __init__(self, database_url: str, *, every: int) -> None:
        self.url = database_url
        self.every = every
        self.local = threading.local()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS bench_location, bench_artifact")
            connection.execute("CREATE TABLE bench_artifact (LIKE artifact INCLUDING ALL)")
            connection.execute("CREATE TABLE bench_location (LIKE storage_location INCLUDING ALL)")

    def __call__(self, number: int) -> None:
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = psycopg.connect(self.url)
            self.local.pending = 0
        identity = uuid.uuid4()
        connection.execute(
            "INSERT INTO bench_artifact SELECT %s, %s, '00000', 'md5:' || md5(%s), inventory_now(), 4096, NULL, NULL, "
            "inventory_now(), 'md5:' || md5(%s), NULL, inventory_now(), NULL, 0",
            [identity, f"bench:limit/{identity}", str(identity), str(identity)],
        )
        connection.execute(
            "INSERT INTO bench_location VALUES (%s, %s, %s, inventory_now())",
            [identity, identity.hex, identity.hex[:3]],
        )
        self.local.pending += 1
        if self.local.pending >= self.every:
            connection.commit()
            self.local.pending = 0

    def close(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS bench_location, bench_artifact")


def copy_into_final_tables(database_url: str, count: int) -> float:
    """Rows per second of COPY into a copy of the artifact table with its indexes, with one site location per row, all verified."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS bench_artifact, bench_site_location")
        connection.execute("CREATE TABLE bench_artifact (LIKE artifact INCLUDING ALL)")
        connection.execute("CREATE TABLE bench_site_location (LIKE site_location INCLUDING ALL)")
        try:
            lines = list(_artifact_lines(count))
            started = time.perf_counter()
            with connection.transaction():
                for table, part in (("bench_artifact", 0), ("bench_site_location (artifact_id, site_id)", 1)):
                    with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                        for pair in lines:
                            copy.write(pair[part])
                connection.execute(
                    "SELECT count(*) FROM bench_artifact WHERE meta_checksum <> artifact_meta_checksum(id, uri, uri_bucket, "
                    "content_checksum, content_last_modified, content_length, content_type, content_encoding)"
                )
            return count / (time.perf_counter() - started)
        finally:
            connection.execute("DROP TABLE bench_artifact, bench_site_location")


def _artifact_lines(count: int) -> list[tuple[bytes, bytes]]:
    site = uuid.uuid4()
    when = "2026-01-01 00:00:00.000+00"
    lines = []
    for number in range(count):
        identity = uuid.uuid4()
        checksum = "md5:" + hashlib.md5(identity.bytes, usedforsecurity=False).hexdigest()
        row = (
            f"{identity}\tbench:copy/{identity}\t{number % 0xFFFFF:05x}\t{checksum}\t{when}\t4096\t\\N\t\\N\t{when}\t"
            f"{checksum}\t\\N\t{when}\t\\N\t0\n"
        )
        lines.append((row.encode(), f"{identity}\t{site}\n".encode()))
    return lines
