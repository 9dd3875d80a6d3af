"""Processes are killed in the middle of their work; the supervisor puts others in their place, and nothing is lost."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from harvest.demo import groups
from harvest.demo.peer import PeerError
from tests.scenarios.federation import Demo, File, eventually, listing, put, read, shows
from tests.scenarios.invariants import assert_sound

pytestmark = pytest.mark.xdist_group("federation")

MANY = 40
CONTENT = bytes(range(256)) * 2048


@contextlib.contextmanager
def putting(demo: Demo, namespace: str) -> Iterator[Future[list[File]]]:
    """Somebody puts many files at alpha while the block does its worst; the result are those that alpha took."""

    def run() -> list[File]:
        taken = []
        for number in range(MANY):
            with contextlib.suppress(PeerError):
                taken.append(put(demo.alpha, f"{namespace}{number}", b"%d:" % number + CONTENT))
            begun.set()
        return taken

    begun = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(run)
        begun.wait()
        yield future


def send_half(demo: Demo, uri: str) -> socket.socket:
    """A PUT at alpha of which only the beginning has been sent."""
    parts = urlsplit(demo.alpha.file_url(uri))
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
    head = f"PUT {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {demo.token}\r\n"
    connection.sendall(f"{head}Content-Length: {2 * len(CONTENT)}\r\n\r\n".encode() + CONTENT)
    return connection


def test_a_site_killed_in_the_middle_of_a_put_has_stored_nothing_of_it(demo: Demo) -> None:
    namespace = demo.namespace()
    uri = f"{namespace}half"
    temporary = demo.directory / "alpha" / "storage" / "temporary"
    with send_half(demo, uri):
        eventually(lambda: any(temporary.iterdir()), "alpha does not write what it receives")
        demo.kill_service("alpha-web")
    demo.await_ready()
    assert demo.alpha.status_of(uri) == 404
    put(demo.alpha, uri, b"whole")
    assert read(demo.alpha, uri) == b"whole"
    assert_sound(demo, namespace, killed=["alpha"])


def test_a_site_killed_among_many_puts_keeps_each_it_has_acknowledged(demo: Demo) -> None:
    namespace = demo.namespace()
    with putting(demo, namespace) as taken:
        demo.kill_service("alpha-web")
    files = taken.result()
    assert files
    demo.await_ready()
    for file in files:
        assert read(demo.alpha, file.uri) == file.content
    assert_sound(demo, namespace, killed=["alpha"])


def test_a_worker_killed_during_sync_has_a_successor_that_completes_it(demo: Demo) -> None:
    namespace = demo.namespace()
    with putting(demo, namespace) as taken:
        eventually(lambda: bool(listing(demo.beta, namespace)), "beta pulls nothing")
        demo.kill_service("beta-dramatiq")
    assert len(taken.result()) == MANY
    assert_sound(demo, namespace, killed=["beta"])


def test_postgres_killed_during_harvest_is_started_again_and_the_harvest_completes(demo: Demo) -> None:
    namespace = demo.namespace()
    with putting(demo, namespace) as taken:
        eventually(lambda: bool(listing(demo.all_sites, namespace)), "the global harvests nothing")
        killed = demo.kill_postgres("global")
        eventually(lambda: f"{killed}" not in postmaster(demo, "global"), "PostgreSQL was not started again")
    assert len(taken.result()) == MANY
    assert_sound(demo, namespace)


def postmaster(demo: Demo, name: str) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (demo.servers(name) / "postgres" / "postmaster.pid").read_text().splitlines()[0]
    return f"{None}"


def test_a_flushed_broker_loses_nothing(demo: Demo) -> None:
    namespace = demo.namespace()
    with putting(demo, namespace) as taken:
        for _ in range(5):
            for name in ("global", "alpha", "beta"):
                assert demo.redis(name, "FLUSHALL").startswith(b"+OK")
    assert len(taken.result()) == MANY
    assert_sound(demo, namespace)


def test_a_site_that_is_down_in_mid_transfer_completes_it_when_it_is_back(demo: Demo) -> None:
    namespace = demo.namespace()
    with putting(demo, namespace) as taken:
        eventually(lambda: bool(listing(demo.beta, namespace)), "beta pulls nothing")
        for service in ("beta-web", "beta-dramatiq", "beta-celery", "beta-listen"):
            demo.kill_service(service)
    assert len(taken.result()) == MANY
    assert_sound(demo, namespace, killed=["beta"])


def test_a_source_that_stalls_in_mid_transfer_delays_the_sync_and_no_more(demo: Demo) -> None:
    namespace = demo.namespace()
    with putting(demo, namespace) as taken:
        pass
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in demo.living()["alpha-web"]:
            os.kill(pid, number)
        if number is signal.SIGSTOP:
            # A stopped process still takes connections; whoever waits for its answer must give up by itself.
            with contextlib.suppress(PeerError):
                demo.all_sites.status_of(f"{namespace}nothing")
    assert len(taken.result()) == MANY
    assert_sound(demo, namespace)


def test_a_killed_demo_is_taken_over_by_the_next_with_its_data(demo: Demo) -> None:
    namespace = demo.namespace()
    file = put(demo.alpha, f"{namespace}file", b"from before")
    eventually(lambda: shows(demo.beta, file), "beta does not pull it")
    demo.kill()
    left = {name: demo.group(name) for name in demo.living()}
    assert {"alpha-web", "beta-dramatiq", "global-listen"} <= left.keys()
    assert all(groups.living_members(group) for group in left.values())
    demo.start()
    assert "a demo here was killed; ending what it left" in demo.said()
    assert not any(groups.living_members(group) for group in left.values())
    assert hashlib.md5(read(demo.all_sites, file.uri)).digest() == file.digests.md5
    assert_sound(demo, namespace)
