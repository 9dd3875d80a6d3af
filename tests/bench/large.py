"""Large files: in, out, a range, several at once, and from site to site."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.bench import limits
from tests.bench.load import Figure, Row, download, upload
from tests.bench.running import MIB, Bench, second_site, static_nginx

_BOTH, _ONE = "md5 + sha-256", "md5 only"
_STREAMS = 8


def put_with_one_digest(bench: Bench) -> Iterator[Row]:
    """By a file service of alpha with INVENTORY_SHA256 off, as a site that wants it so has it."""
    with second_site(bench, INVENTORY_SHA256="false") as site:
        yield bench.measure(_put(bench, "1", site, _ONE, target=0.75))


def put(bench: Bench) -> Iterator[Row]:
    yield bench.measure(_put(bench, "2", bench.alpha, _BOTH, target=0.65))


def _put(bench: Bench, work: str, site: str, digests: str, *, target: float) -> Figure:
    length = bench.sizes.large

    def act(number: int) -> float:
        path = f"/files/bench:large/{work}-{number}"
        return upload(site, path, bench.headers, length=length, block=bench.block) / MIB

    return Figure(
        work,
        f"PUT {length // MIB} MiB, one stream, {digests}",
        "MiB/s",
        act,
        "md5 on one thread",
        lambda _: limits.md5_alone(length) / MIB,
        target,
        operations=1,
        rounds=bench.sizes.rounds,
    )


def streams(bench: Bench) -> Iterator[Row]:
    """More streams than cores."""
    length = bench.sizes.stream

    def act(number: int) -> float:
        def one(stream: int) -> float:
            path = f"/files/bench:streams/{number}-{stream}"
            return upload(bench.alpha, path, bench.headers, length=length, block=bench.block)

        started = time.perf_counter()
        with ThreadPoolExecutor(_STREAMS) as pool:
            list(pool.map(one, range(_STREAMS)))
        return _STREAMS * length / MIB / (time.perf_counter() - started)

    figure = Figure(
        "3",
        f"PUT {length // MIB} MiB, {_STREAMS} streams, {_BOTH}",
        "MiB/s",
        act,
        "both digests on two threads",
        lambda _: limits.both_digests(_STREAMS * length) / MIB,
        0.55,
        operations=_STREAMS,
        rounds=bench.sizes.rounds,
    )
    yield bench.measure(figure)


def get(bench: Bench) -> Iterator[Row]:
    """A whole file, and as much out of the middle of a file that is a little larger."""
    whole, larger = bench.sizes.large, bench.sizes.large + 2 * MIB
    part = {"Range": f"bytes={MIB}-{MIB + whole - 1}"}
    files = {"bench:read-large/whole": whole, "bench:read-large/larger": larger}
    for name, length in files.items():
        if name not in bench.made:
            upload(bench.alpha, f"/files/{name}", bench.headers, length=length, block=bench.block)
            bench.made.add(name)
    with static_nginx(bench) as nginx:
        for name, text, asked in zip(files, ("GET", "GET a range of"), ({}, part), strict=True):
            yield bench.measure(_get(bench, nginx, name, text, asked))


def _get(bench: Bench, nginx: str, name: str, text: str, asked: dict[str, str]) -> Figure:
    length, stored = bench.sizes.large, _storage_id(bench, name)
    path = f"/{stored[:3]}/{stored}" if nginx else f"/object/{stored}"
    return Figure(
        "4",
        f"{text} {length // MIB} MiB, one stream",
        "MiB/s",
        lambda _: download(bench.alpha, f"/files/{name}", bench.headers | asked, length=length) / MIB,
        "nginx, the same file" if nginx else "sendfile by a raw WSGI app (there is no nginx here)",
        lambda _: download(nginx or bench.peer, path, asked, length=length) / MIB,
        0.95,
        operations=1,
        # Both are done within a second, and no two seconds are alike.
        rounds=3 * bench.sizes.rounds,
    )


def _storage_id(bench: Bench, name: str) -> str:
    with psycopg.connect(bench.database("alpha")) as connection:
        row = connection.execute(
            "SELECT l.storage_id FROM artifact a JOIN storage_location l ON l.artifact_id = a.id WHERE a.uri = %s",
            [name],
        ).fetchone()
    return str(row[0]) if row else ""


def sync(bench: Bench) -> Iterator[Row]:
    """From the moment that beta wants them to the last durable copy."""
    length, count = bench.sizes.large, bench.sizes.sync_large
    prefixes = [f"bench:sync-large/{uuid.uuid4().hex[:8]}/" for _ in range(bench.sizes.heavy_rounds)]

    def prepare(number: int) -> None:
        for n in range(count):
            upload(bench.alpha, f"/files/{prefixes[number]}{n}", bench.headers, length=length, block=bench.block)
        bench.await_condition("the global knows them", lambda: bench.known("global", prefixes[number]) == count)

    def act(number: int) -> float:
        started = time.perf_counter()
        bench.let_beta_want(prefixes[number])
        bench.await_condition(f"{count} copies at beta", lambda: bench.stored_at_beta(prefixes[number]) == count)
        return count * length / MIB / (time.perf_counter() - started)

    figure = Figure(
        "14",
        f"file sync of {count} x {length // MIB} MiB, wanted to stored",
        "MiB/s",
        act,
        "md5 on one thread",
        lambda _: limits.md5_alone(count * length) / MIB,
        0.60,
        operations=count,
        rounds=bench.sizes.heavy_rounds,
        warm=False,
        prepare=prepare,
    )
    yield bench.measure(figure)
