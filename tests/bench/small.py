"""Files of 4 KiB: durable writes, reads, looking them up, and how soon the federation knows of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from tests.bench import limits
from tests.bench.client import BenchError, Request, ask, rate
from tests.bench.load import Figure, Row
from tests.bench.running import Bench, raw_peer, second_site

_BULK_URIS = 1000
_CORES = str(os.cpu_count() or 1)
_PER_CORE = ", a worker per core"


def put(bench: Bench) -> Iterator[Row]:
    """By the site as it is, and by a file service of its with INVENTORY_WORKERS."""
    yield from _put(bench, bench.alpha, "bench:put/", "")
    with second_site(bench, INVENTORY_WORKERS=_CORES) as site:
        yield from _put(bench, site, "bench:put-per-core/", _PER_CORE)


def _put(bench: Bench, site: str, prefix: str, by: str) -> Iterator[Row]:
    count, scratch = bench.sizes.small_files, bench.directory / "limit"
    committer = limits.RowCommitter(bench.database("alpha"), every=1)

    def act(number: int) -> float:
        requests = [bench.put(f"{prefix}{number}/{n}", bench.small) for n in range(count)]
        return rate(site, requests, in_flight=8)

    figure = Figure(
        "5",
        f"PUT 4 KiB, 8 in flight, durable{by}",
        "files/s",
        act,
        "fsync + rename + commit, 8 threads",
        lambda _: limits.durable_files(scratch, count, threads=8, commit=committer),
        0.45,
        operations=count,
        rounds=bench.sizes.rounds,
    )
    yield bench.measure(figure)
    committer.close()


def get(bench: Bench) -> Iterator[Row]:
    yield from _reads(bench, "GET")


def head(bench: Bench) -> Iterator[Row]:
    yield from _reads(bench, "HEAD")


def _reads(bench: Bench, method: str) -> Iterator[Row]:
    yield bench.measure(_read(bench, method, bench.alpha, bench.peer, ""))
    with second_site(bench, INVENTORY_WORKERS=_CORES) as site, raw_peer(bench, INVENTORY_WORKERS=_CORES) as peer:
        yield bench.measure(_read(bench, method, site, peer, _PER_CORE))


def _read(bench: Bench, method: str, site: str, peer: str, by: str) -> Figure:
    """The raw application answers with the same bytes, or none, too."""
    names = bench.small_names()
    asked = [Request(method, f"/files/{name}", bench.headers) for name in names]
    raw = [Request(method, f"/files/{name}", {}) for name in names]
    return Figure(
        "6",
        f"{method} 4 KiB, 32 in flight, authorised{by}",
        "requests/s",
        lambda _: rate(site, asked, in_flight=32),
        "raw WSGI app, one look-up",
        lambda _: rate(peer, raw, in_flight=32),
        0.50,
        operations=len(names),
        rounds=bench.sizes.rounds,
    )


def locate(bench: Bench) -> Iterator[Row]:
    """Of files that both sites hold: two signed URLs."""
    names = _names_held_twice(bench)
    headers = {**bench.headers, "Content-Type": "application/json"}
    asked = [
        Request("POST", "/locate", headers, json.dumps({"uri": name, "direction": "get"}).encode()) for name in names
    ]
    raw = [Request("GET", f"/locate/{name}", {}) for name in names]
    for base, request in ((bench.hub, asked[0]), (bench.peer, raw[0])):
        if len(json.loads(ask(base, request))["urls"]) != 2:
            raise BenchError(f"{base} does not name two copies")
    figure = Figure(
        "7",
        "locate one URI, 2 signed URLs, 32 in flight",
        "requests/s",
        lambda _: rate(bench.hub, asked, in_flight=32),
        "raw WSGI app: look-up, 2 signatures, JSON",
        lambda _: rate(bench.peer, raw, in_flight=32),
        0.50,
        operations=len(names),
        rounds=bench.sizes.rounds,
    )
    yield bench.measure(figure)


def bulk(bench: Bench) -> Iterator[Row]:
    """Of files that one site holds: one signed URL each."""
    uris = (bench.small_names() * _BULK_URIS)[:_BULK_URIS]
    headers = {**bench.headers, "Content-Type": "application/json"}
    asked = [Request("POST", "/locate", headers, json.dumps({"uris": uris, "direction": "get"}).encode())]
    raw = [Request("POST", "/bulk", {}, json.dumps(uris).encode())]
    if any(len(result["urls"]) != 1 for result in json.loads(ask(bench.hub, asked[0]))["results"]):
        raise BenchError("the global does not name one copy of each")
    calls = bench.sizes.bulk_calls
    figure = Figure(
        "8",
        f"bulk locate, {_BULK_URIS:,} URIs a call",
        "URIs/s",
        lambda _: _BULK_URIS * rate(bench.hub, asked * calls, in_flight=2),
        f"raw WSGI app: one look-up, {_BULK_URIS:,} signatures",
        lambda _: _BULK_URIS * rate(bench.peer, raw * calls, in_flight=2),
        0.40,
        operations=_BULK_URIS * calls,
        rounds=bench.sizes.rounds,
        least=15_000,
    )
    yield bench.measure(figure)


def _names_held_twice(bench: Bench) -> list[str]:
    prefix, count, reads = "bench:twice/", bench.sizes.twice, bench.sizes.small_reads
    names = [f"{prefix}{n}" for n in range(count)]
    if prefix not in bench.made:
        bench.let_beta_want(prefix)
        rate(bench.alpha, [bench.put(name, bench.small) for name in names], in_flight=8)
        twice = (
            "SELECT count(*) FROM (SELECT FROM artifact a JOIN site_location l ON l.artifact_id = a.id "
            f"WHERE a.uri >= '{prefix}' AND a.uri < '{prefix}~' GROUP BY a.id HAVING count(*) = 2) held"
        )
        bench.await_condition("both sites hold them", lambda: bench.count("global", twice) == count)
        bench.made.add(prefix)
    return [names[n % count] for n in range(reads)]
