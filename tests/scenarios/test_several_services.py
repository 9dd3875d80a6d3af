"""Two file services of one site, with one database, one Redis and one store, behind the shipped nginx configuration."""

from __future__ import annotations

import http.client
import os
import secrets
import shlex
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import urllib3

from datamodel.processes import wait_until
from harvest.demo.federation import unreadiness
from harvest.demo.peer import Peer
from harvest.demo.supervisor import port_is_free
from tests.ports import free_ports
from tests.scenarios.federation import PROJECT, Demo, environment, eventually, put, read
from tests.scenarios.invariants import assert_sound
from tests.scenarios.test_proxy import certify, running_nginx

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("federation"), pytest.mark.timeout(300)]

# Wrong credentials of one address, counted by both services together.
FAILURES = 10
BLOCK = 64 * 1024
# Nobody else of this machine comes from here.
STRANGER = "127.0.0.77"


@dataclass
class Service:
    """One `manage.py serve` of alpha."""

    port: int
    variables: Mapping[str, str]
    log: Path
    peer: Peer
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "serve"],
                cwd=PROJECT,
                env={**self.variables, "INVENTORY_BIND": f"127.0.0.1:{self.port}"},
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: not unreadiness(self.peer.url), 60, f"not ready: {self.log.read_text()}")

    def end(self, how: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, how)
        self._process.wait(30)
        wait_until(lambda: port_is_free(self.port), 30, "a process of it lives on")

    def writes(self, directory: Path) -> bool:
        """Whether a process of this service has a file of this directory open."""
        assert self._process is not None
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and os.getpgid(int(process.name)) == self._process.pid:
                    links = [link.readlink() for link in (process / "fd").iterdir()]
                    if any(link.is_relative_to(directory) for link in links):
                        return True
            except OSError:
                continue
        return False


@dataclass(frozen=True)
class Pair:
    """Both services, and the balancer before them."""

    one: Service
    other: Service
    balanced: Peer
    port: int
    trust: ssl.SSLContext

    @property
    def both(self) -> tuple[Service, Service]:
        return self.one, self.other

    def ask(
        self,
        method: str,
        uri: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        source: str = "",
    ) -> tuple[int, bytes]:
        """By the balancer, by a connection of its own; with our token unless the headers have another."""
        connection = http.client.HTTPSConnection(
            "localhost", self.port, timeout=60, context=self.trust, source_address=(source, 0) if source else None
        )
        try:
            ours = {"Authorization": f"Bearer {self.balanced.token}"} | dict(headers or {})
            connection.request(method, f"/alpha/files/{uri}", body=body, headers=ours)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def variables(demo: Demo) -> dict[str, str]:
    """What alpha's processes are told, and that a proxy stands before them."""
    lines = (demo.directory / "alpha" / "environment").read_text().splitlines()
    own = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    return environment() | own | {"INVENTORY_TRUSTED_PROXIES": "127.0.0.1", "INVENTORY_RATE_FAILED": f"{FAILURES}/600"}


@pytest.fixture
def pair(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    certify(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
    first = free_ports(2)
    services = [
        Service(
            port, variables(demo), tmp_path / f"{port}.log", Peer("alpha", f"http://127.0.0.1:{port}/alpha", demo.token)
        )
        for port in (first, first + 1)
    ]
    with ExitStack() as stack:
        for service in services:
            service.start()
            stack.callback(service.end, signal.SIGTERM)
        one, other = services
        port, _ = stack.enter_context(
            running_nginx(tmp_path, alpha=one.port, all_sites=demo.port, second_alpha=other.port)
        )
        trust = ssl.create_default_context(cafile=str(tmp_path / "localhost.pem"))
        yield Pair(one, other, Peer("alpha", f"https://localhost:{port}/alpha", demo.token), port, trust)


def test_two_services_of_one_site_are_one_site(demo: Demo, pair: Pair) -> None:
    namespace = demo.namespace()
    what_one_does_the_other_knows(pair, namespace)
    a_put_transaction_goes_on_at_the_other(pair, namespace)
    of_many_that_create_one_wins(pair, f"{namespace}created")
    nothing_is_torn_while_all_write(pair, namespace)
    a_switch_holds_in_both_at_once(demo, pair, namespace)
    wrong_credentials_are_counted_together(pair, namespace)
    an_upload_whose_process_dies_is_sent_again(demo, pair, namespace)
    assert_sound(demo, namespace, killed=["alpha"])


def what_one_does_the_other_knows(pair: Pair, namespace: str) -> None:
    for writer, reader in (pair.both, pair.both[::-1]):
        file = put(writer.peer, f"{namespace}{writer.port}", bytes(range(256)) * 1000)
        assert read(reader.peer, file.uri) == file.content
        answer = urllib3.request(
            "GET",
            reader.peer.file_url(file.uri),
            headers={"Authorization": f"Bearer {reader.peer.token}", "Range": "bytes=1000-1999"},
        )
        assert (answer.status, answer.data) == (206, file.content[1000:2000])
        reader.peer.delete(file.uri)
        assert writer.peer.status_of(file.uri) == 404


def a_put_transaction_goes_on_at_the_other(pair: Pair, namespace: str) -> None:
    uri, ours = f"{namespace}transaction", {"Authorization": f"Bearer {pair.balanced.token}"}
    begun = urllib3.request("PUT", pair.one.peer.file_url(uri), headers=ours | {"x-put-txn-op": "start"})
    assert begun.status == 202
    named = ours | {"x-put-txn-id": begun.headers["x-put-txn-id"]}
    for service, part in ((pair.other, b"one "), (pair.one, b"other")):
        assert urllib3.request("PUT", service.peer.file_url(uri), body=part, headers=named).status == 202
    commit = named | {"x-put-txn-op": "commit", "Content-Length": "0"}
    assert urllib3.request("PUT", pair.other.peer.file_url(uri), headers=commit).status == 201
    assert read(pair.one.peer, uri) == b"one other"


def of_many_that_create_one_wins(pair: Pair, uri: str) -> None:
    contents = [b"%d" % number * 1000 for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda content: pair.ask("PUT", uri, content, {"If-None-Match": "*"})[0], contents))
    assert sorted(answers) == [201] + [412] * 15
    winner = contents[answers.index(201)]
    assert [read(service.peer, uri) for service in pair.both] == [winner, winner]


def nothing_is_torn_while_all_write(pair: Pair, namespace: str) -> None:
    """Eight write, delete and read the same two uris through the balancer: whatever is read was written so, whole."""
    written: set[bytes] = set()
    lock = threading.Lock()

    def version() -> bytes:
        with lock:
            content = secrets.token_bytes(16) * (BLOCK // 4)
            written.add(content)
        return content

    def work(number: int) -> list[int]:
        statuses = []
        for step in range(12):
            uri = f"{namespace}torn/{(number + step) % 2}"
            if step % 4 == 3:
                statuses.append(pair.ask("DELETE", uri)[0])
            elif step % 2:
                status, content = pair.ask("GET", uri)
                assert status == 404 or content in written
                statuses.append(status)
            else:
                statuses.append(pair.ask("PUT", uri, version())[0])
        return statuses

    with ThreadPoolExecutor(8) as threads:
        answers = {status for statuses in threads.map(work, range(8)) for status in statuses}
    # 409: a race was lost, and is said to be.
    assert answers <= {200, 201, 204, 404, 409}
    assert answers >= {200, 201}
    for number in range(2):
        last = version()
        assert pair.ask("PUT", f"{namespace}torn/{number}", last)[0] == 201
        assert [read(service.peer, f"{namespace}torn/{number}") for service in pair.both] == [last, last]


def a_switch_holds_in_both_at_once(demo: Demo, pair: Pair, namespace: str) -> None:
    file = put(pair.balanced, f"{namespace}switched", b"content")
    eventually(lambda: read(demo.all_sites, file.uri) == file.content, "the global does not know it")
    try:
        demo.sql("alpha", "UPDATE storage_site SET allow_read = false")
        assert [service.peer.status_of(file.uri) for service in pair.both] == [403, 403]
    finally:
        demo.sql("alpha", "UPDATE storage_site SET allow_read = true")
    assert [service.peer.status_of(file.uri) for service in pair.both] == [200, 200]


def wrong_credentials_are_counted_together(pair: Pair, namespace: str) -> None:
    wrong = {"Authorization": "Bearer nobody's"}
    answers = [pair.ask("GET", f"{namespace}x", headers=wrong, source=STRANGER)[0] for _ in range(2 * FAILURES)]
    assert answers == [401] * FAILURES + [429] * FAILURES


def an_upload_whose_process_dies_is_sent_again(demo: Demo, pair: Pair, namespace: str) -> None:
    uri, content = f"{namespace}killed", secrets.token_bytes(64 * BLOCK)
    temporary = demo.directory / "alpha" / "storage" / "temporary"
    half_way, outcome = threading.Event(), []

    def pieces() -> Iterator[bytes]:
        yield content[: 32 * BLOCK]
        half_way.wait(60)
        yield content[32 * BLOCK :]

    def send(body: Callable[[], Iterator[bytes]]) -> int:
        headers = {"Authorization": f"Bearer {demo.token}", "Content-Length": str(len(content))}
        try:
            return urllib3.request(
                "PUT", pair.balanced.file_url(uri), body=body(), headers=headers, retries=False
            ).status
        except urllib3.exceptions.HTTPError:
            return 0

    uploader = threading.Thread(target=lambda: outcome.append(send(pieces)))
    uploader.start()
    found: list[Service] = []

    def somebody_writes() -> bool:
        found.extend(service for service in pair.both if service.writes(temporary))
        return bool(found)

    wait_until(somebody_writes, 60, "nobody writes")
    dead, living = pair.both if found[0] is pair.one else pair.both[::-1]
    dead.end(signal.SIGKILL)
    half_way.set()
    uploader.join()
    assert outcome[0] in {0, 502}
    assert living.peer.status_of(uri) == 404, "half an upload is no file"
    # The balancer may have to learn that one is dead; then whoever is left takes it whole.
    eventually(lambda: send(lambda: iter([content])) == 201, "the upload cannot be repeated")
    assert read(living.peer, uri) == content
    dead.start()
    assert read(dead.peer, uri) == content
