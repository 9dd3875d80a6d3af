"""What the bench runs: the demo's federation, servers beside it, and what the figures need of them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from datamodel import embedded
from tests.bench.client import BenchError, Request, ask, rate
from tests.bench.costs import Meter
from tests.bench.load import PROJECT, Figure, Row
from tests.ports import free_port, free_ports
from tests.programs import NGINX

MIB = 1 << 20
GIB = 1 << 30
WAIT_SECONDS = 1800.0
_POLL_SECONDS = 0.02
_POLL_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work each figure does; smaller with --quick. What takes minutes has its `heavy_rounds` and does not warm up."""

    large: int
    stream: int
    small_files: int
    small_reads: int
    twice: int
    bulk_calls: int
    rows: int
    objects: int
    sync_files: int
    sync_large: int
    idle_changes: int
    loaded_seconds: int
    rounds: int
    heavy_rounds: int


FULL = Sizes(GIB, 64 * MIB, 2_000, 4_000, 500, 20, 1_000_000, 1_000_000, 20_000, 4, 100, 20, 3, 2)
QUICK = Sizes(64 * MIB, 16 * MIB, 200, 400, 50, 3, 10_000, 2_000, 200, 2, 10, 2, 1, 1)


@dataclass
class Bench:
    """The running federation and what the figures need of it; `made` are the files that a figure has left for others."""

    directory: Path
    sizes: Sizes
    meter: Meter
    hub: str
    alpha: str
    beta: str
    headers: dict[str, str]
    peer: str = ""
    block: bytes = field(default_factory=lambda: os.urandom(16 * MIB))
    small: bytes = field(default_factory=lambda: os.urandom(4096))
    made: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, directory: Path, ready: dict[str, str], sizes: Sizes, service: int) -> Bench:
        meter = Meter([service], [_postmaster(directory / name) for name in ("global", "alpha", "beta")])
        headers = {"Authorization": f"Bearer {ready['token']}"}
        return cls(directory, sizes, meter, ready["global"], ready["alpha"], ready["beta"], headers)

    @property
    def objects(self) -> Path:
        """What alpha stores."""
        return self.directory / "alpha" / "storage" / "objects"

    def database(self, name: str) -> str:
        return embedded.location(self.directory / name / "servers").database_url

    def variables(self, name: str) -> dict[str, str]:
        """The environment of an inventory's processes."""
        lines = (self.directory / name / "environment").read_text().splitlines()
        return dict(shlex.split(line)[1].split("=", 1) for line in lines)

    def measure(self, figure: Figure) -> Row:
        return figure.measure(self.meter)

    def put(self, name: str, body: bytes) -> Request:
        return Request("PUT", f"/files/{name}", self.headers, body, expect=201)

    def await_condition(self, what: str, holds: Callable[[], bool]) -> float:
        """Seconds until `holds()`, which is asked more rarely as time goes by. Raises `BenchError` after half an hour."""
        started = time.perf_counter()
        while not holds():
            waited = time.perf_counter() - started
            if waited > WAIT_SECONDS:
                raise BenchError(f"still not so after {WAIT_SECONDS:.0f} s: {what}")
            time.sleep(max(_POLL_SECONDS, _POLL_SHARE * waited))
        return time.perf_counter() - started

    def count(self, name: str, query: str) -> int:
        with psycopg.connect(self.database(name), autocommit=True) as connection:
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def execute(self, name: str, *statements: str) -> None:
        with psycopg.connect(self.database(name), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def known(self, name: str, prefix: str) -> int:
        """How many artifacts an inventory knows below a prefix."""
        return self.count(name, f"SELECT count(*) FROM artifact WHERE uri >= '{prefix}' AND uri < '{prefix}~'")

    def stored_at_beta(self, prefix: str) -> int:
        return self.count(
            "beta",
            "SELECT count(*) FROM artifact a JOIN storage_location l ON l.artifact_id = a.id "
            f"WHERE a.uri >= '{prefix}' AND a.uri < '{prefix}~'",
        )

    def let_beta_want(self, prefix: str) -> None:
        policy = json.dumps({"namespace": prefix, "wanted": True, "priority": 1}).encode()
        ask(self.beta, Request("PUT", "/policy", {**self.headers, "Content-Type": "application/json"}, policy))

    def small_names(self) -> list[str]:
        """Files of 4 KiB at alpha that the global knows: as many as `small_files`, in as many requests as `small_reads`."""
        prefix, sizes = "bench:read/", self.sizes
        names = [f"{prefix}{n}" for n in range(sizes.small_files)]
        if prefix not in self.made:
            rate(self.alpha, [self.put(name, self.small) for name in names], in_flight=8)
            self.await_condition("the global knows the small files", lambda: self.known("global", prefix) == len(names))
            self.made.add(prefix)
        return [names[n % len(names)] for n in range(sizes.small_reads)]


@contextmanager
def federation(directory: Path) -> Iterator[tuple[dict[str, str], int]]:
    """`manage.py demo` without files, as shipped, and its pid; stopped at the end, also by SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    argv = [sys.executable, "manage.py", "demo", "--no-ingest", "--json"]
    argv += ["--dir", str(directory), "--port", str(free_ports(3))]
    with subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, stderr=sys.stderr, text=True) as demo:
        try:
            line = demo.stdout.readline() if demo.stdout else ""
            if not line:
                raise BenchError("the demo did not start; see above")
            yield json.loads(line), demo.pid
        finally:
            demo.send_signal(signal.SIGTERM)
            demo.wait(timeout=60)


@contextmanager
def raw_peer(bench: Bench, **changes: str) -> Iterator[str]:
    """The raw WSGI applications, on the product's server with the product's settings, or others."""
    variables = {
        "BENCH_SITE_DATABASE": bench.database("alpha"),
        "BENCH_GLOBAL_DATABASE": bench.database("global"),
        "BENCH_OBJECTS": str(bench.objects),
        **changes,
    }
    with _gunicorn(bench, "tests.bench.peer:application", variables) as (port, _):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def second_site(bench: Bench, **changes: str) -> Iterator[str]:
    """One more file service of alpha, with other settings: the same database, the same store."""
    variables = bench.variables("alpha") | changes
    with _gunicorn(bench, "site_service.wsgi", variables) as (port, pid):
        bench.meter.services.append(pid)
        try:
            yield f"http://127.0.0.1:{port}{variables['INVENTORY_BASE_PATH']}"
        finally:
            bench.meter.services.remove(pid)


@contextmanager
def _gunicorn(bench: Bench, application: str, variables: dict[str, str]) -> Iterator[tuple[int, int]]:
    port = free_port()
    environment = os.environ | variables | {"INVENTORY_BIND": f"127.0.0.1:{port}"}
    argv = [sys.executable, "-m", "gunicorn", "-c", "python:datamodel.webserver", application]
    with (
        (bench.directory / f"{port}.log").open("wb") as log,
        subprocess.Popen(argv, cwd=PROJECT, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            bench.await_condition(f"{application} listens", lambda: _listens(port))
            yield port, server.pid
        finally:
            server.terminate()


_NGINX_CONF = """
daemon off; pid {directory}/pid; worker_processes auto; {user}
events {{}}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {directory}/1; proxy_temp_path {directory}/2; fastcgi_temp_path {directory}/3;
  uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@contextmanager
def static_nginx(bench: Bench) -> Iterator[str]:
    """The machine's nginx on alpha's store; "" where there is none."""
    if NGINX is None:
        yield ""
        return
    directory, port = bench.directory / "nginx", free_port()
    directory.mkdir(exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""
    text = _NGINX_CONF.format(directory=directory, port=port, root=bench.objects, user=user)
    (directory / "nginx.conf").write_text(text)
    argv = [NGINX, "-e", str(directory / "error.log"), "-c", str(directory / "nginx.conf"), "-p", str(directory)]
    with subprocess.Popen(argv) as server:
        try:
            bench.await_condition("nginx listens", lambda: _listens(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)
            shutil.rmtree(directory, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _postmaster(service: Path) -> int:
    return int((service / "servers" / "postgres" / "postmaster.pid").read_text().splitlines()[0])
