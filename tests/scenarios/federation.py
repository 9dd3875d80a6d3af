"""A demo as another program sees it: a process, three base URLs, process groups that can be killed, and databases."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import urllib3

from datamodel import embedded
from datamodel.processes import wait_until
from harvest.demo import groups
from harvest.demo.federation import KEPT, unreadiness
from harvest.demo.peer import Digests, Listed, Peer, PeerError, Stored
from harvest.demo.records import Records
from tests.ports import free_ports

PROJECT = Path(__file__).parents[2]
# Generous: two cores may be doing the tests of several rooms at once.
SECONDS = 60.0
START_SECONDS = 150.0
SITES = ("alpha", "beta")


# A demo must not outlive the tests: whoever kills them would leave a whole federation running.
_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"


def demo_command(directory: Path, *options: str) -> list[str]:
    """The command of a demo that is sent SIGTERM when this process dies."""
    python = sys.executable
    return [python, "-c", _WITH_PARENT, python, "manage.py", "demo", "--dir", str(directory), *options]


def environment() -> dict[str, str]:
    """Ours without what the tests are configured by."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("INVENTORY_", "DJANGO_", "DATABASE_", "REDIS_"))
    }


@dataclass(frozen=True, slots=True)
class File:
    """Content that was stored, and what alpha or beta said."""

    uri: str
    content: bytes
    digests: Digests
    stored: Stored


class Demo:
    """One `manage.py demo --no-ingest --json`."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.log = directory.with_name(f"{directory.name}.log")
        self.left_by_killed: set[Path] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait for its first line."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                demo_command(self.directory, "--no-ingest", "--json", "--port", str(self.port)),
                cwd=PROJECT,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the demo did not become ready:\n{self.log.read_text()}"
        facts = json.loads(line)
        self.token: str = facts["token"]
        self.facts: dict[str, str] = facts
        peers = {name: Peer(name, facts[name], self.token) for name in ("global", *SITES)}
        self.all_sites, self.alpha, self.beta = peers["global"], peers["alpha"], peers["beta"]

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with self._process:
            return self._process.wait(SECONDS)

    def kill(self) -> None:
        """End the demo itself, at once, and nothing that it has started."""
        assert self._process is not None
        with self._process:
            self._process.kill()

    def said(self) -> str:
        return self.log.read_text()

    # --- its processes

    def group(self, service: str) -> groups.Group:
        return Records(self.directory).left_behind()[service]

    def living(self) -> dict[str, list[int]]:
        """All that runs in recorded groups."""
        return {name: groups.living_members(group) for name, group in Records(self.directory).left_behind().items()}

    def kill_service(self, service: str) -> None:
        """SIGKILL for the service and all it has started, and wait until the supervisor has put another in its place."""
        killed = self.group(service)
        groups.kill(killed)
        wait_until(lambda: self.group(service) != killed, SECONDS, f"{service} was not restarted:\n{self.said()}")

    def kill_postgres(self, name: str, how: signal.Signals = signal.SIGKILL) -> int:
        """The signal for the postmaster (SIGINT: it shuts down, cutting off whoever is connected); its pid."""
        pid = int((self.servers(name) / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, how)
        return pid

    def servers(self, name: str) -> Path:
        return self.directory / name / "servers"

    def await_ready(self) -> None:
        eventually_at(self.everybody, lambda peer: not unreadiness(peer.url), "not ready")

    @property
    def everybody(self) -> tuple[Peer, ...]:
        return self.alpha, self.all_sites, self.beta

    # --- its data

    def sql(self, name: str, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """What an operator could ask the database of an inventory."""
        url = embedded.location(self.servers(name)).database_url
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def redis(self, name: str, *words: str) -> bytes:
        """One command to the Redis of an inventory."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(embedded.location(self.servers(name)).redis_socket))
            connection.sendall(
                b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)
            )
            return connection.recv(65536)

    def namespace(self) -> str:
        """One that nobody has used and that beta wants."""
        return f"{KEPT}{secrets.token_hex(6)}/"


def put(peer: Peer, uri: str, content: bytes) -> File:
    digests = Digests.of(BytesIO(content))
    return File(uri, content, digests, peer.put(uri, BytesIO(content), digests))


def read(peer: Peer, uri: str, position: str = "") -> bytes:
    with peer.opened(uri, position) as answer:
        return answer.read()


def eventually(condition: Callable[[], bool], complaint: str, seconds: float = SECONDS) -> float:
    """Wait for it, through answers of services that are being restarted; how long it took."""
    began = time.monotonic()
    last = ""

    def held() -> bool:
        nonlocal last
        try:
            return condition()
        except PeerError as error:
            last = str(error)
            return False

    try:
        wait_until(held, seconds, complaint)
    except TimeoutError as error:
        raise AssertionError(f"{complaint} {last}") from error
    return time.monotonic() - began


def eventually_at(peers: Iterable[Peer], condition: Callable[[Peer], bool], complaint: str) -> None:
    """Wait for it at one after the other."""
    for peer in peers:
        eventually(lambda peer=peer: condition(peer), f"{peer.name}: {complaint}")  # type: ignore[misc]  # a bound default


def shows(peer: Peer, file: File) -> bool:
    """Whether an inventory lists this very content."""
    listed = peer.look_up(file.uri)
    return listed is not None and (listed.checksum, listed.length) == (file.digests.checksum, file.digests.length)


def listing(peer: Peer, namespace: str) -> dict[str, Listed]:
    return {listed.uri: listed for listed in peer.listing(namespace)}


def get_json(peer: Peer, path: str) -> Any:
    answer = urllib3.request(
        "GET", f"{peer.url}{path}", headers={"Authorization": f"Bearer {peer.token}"}, retries=False
    )
    assert answer.status == 200, (path, answer.status, answer.data[:500])
    return answer.json()


@contextmanager
def running_demo(directory: Path) -> Iterator[Demo]:
    """A demo for as long as the block lasts; nothing is left of it."""
    demo = Demo(directory, free_ports(3))
    try:
        demo.start()
        yield demo
    finally:
        code = demo.stop()
        left = demo.living()
        assert code == 0, demo.said()
        assert not any(left.values()), left
