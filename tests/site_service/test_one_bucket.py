"""Two file services of one site over one bucket, with one database, as behind a load balancer; one of them is killed at work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from datamodel.models import ObsoleteStorageLocation, RetiredArtifact, StorageLocation
from datamodel.processes import wait_until
from site_service.file_validate import runs
from site_service.file_validate.models import ValidationFinding, ValidationRun
from site_service.file_validate.rules import Policy
from site_service.file_validate.surveyors import surveyor_of
from site_service.files import put_transactions
from site_service.storage import registry
from site_service.storage.objectstore import ObjectStore
from tests.ports import free_port
from tests.s3 import s3_bucket, s3_server
from tests.site_service.conftest import TOKEN
from tests.site_service.server import Answer, SiteProcess

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("objectstore"), pytest.mark.timeout(300)]

AUTH = {"Authorization": f"Bearer {TOKEN}"}
MIB = 1 << 20
CLIENTS = 8
# Acknowledged changes with both services, with one of them dead, and with both again.
CHANGES = 40
# What is longer goes into the bucket in parts; segments of at least this are copied inside it.
PART, SEGMENT = 16 * MIB, 5 * MIB


@dataclass(frozen=True)
class Pair:
    """Both services and what they write to."""

    services: tuple[SiteProcess, SiteProcess]
    store: ObjectStore

    def other(self, service: SiteProcess) -> SiteProcess:
        one, other = self.services
        return other if service is one else one


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(server: str) -> Iterator[dict[str, Any]]:
    with s3_bucket(server) as options:
        yield options


@pytest.fixture
def pair(bucket: dict[str, Any], tmp_path: Path, token: str, settings: Settings) -> Iterator[Pair]:
    del token
    names = {"bucket_name": "BUCKET", "endpoint_url": "ENDPOINT_URL", "region_name": "REGION"}
    keys = {"access_key": "ACCESS_KEY", "secret_key": "SECRET_KEY"}
    variables = {f"INVENTORY_S3_{name}": bucket[option] for option, name in (names | keys).items()}
    artifacts = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": bucket}
    settings.STORAGES = {**settings.STORAGES, "artifacts": artifacts}
    registry.get_store.cache_clear()
    store = registry.get_store()
    assert isinstance(store, ObjectStore)
    services = [SiteProcess(tmp_path / name, free_port(), variables) for name in ("one", "other")]
    with ExitStack() as stack:
        stack.callback(registry.get_store.cache_clear)
        stack.callback(store.bucket.client.close)
        for service in services:
            service.directory.mkdir()
            stack.callback(service.stop)
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(SiteProcess.start, services))
        one, other = services
        yield Pair((one, other), store)


@dataclass
class Ledger:
    """What clients were told: of each name the contents that it may have now, None for none."""

    may_be: dict[str, set[bytes | None]] = field(default_factory=dict)
    acknowledged: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, name: str, content: bytes | None) -> None:
        with self._lock:
            self.may_be.setdefault(name, {None}).add(content)

    def acknowledge(self, name: str, content: bytes | None) -> None:
        with self._lock:
            self.may_be[name] = {content}
            self.acknowledged += 1


class Unanswered(Exception):  # noqa: N818  # not an error of anybody's here
    """The service died after a request had reached it."""


@dataclass
class Client:
    """Does all there is to do, by either service in turn; a name whose state it was not told it never uses again."""

    number: int
    pair: Pair
    ledger: Ledger
    _turn: int = 0

    def work(self, is_over: Callable[[], bool]) -> None:
        self._turn = self.number
        step = 0
        while not is_over():
            step += 1
            try:
                self._live_and_die(f"{self.number}/{step}", is_deleted=step % 3 == 0)
                self._in_segments(f"{self.number}/{step}/segments", SEGMENT if step % 4 == 0 else 1000)
            except Unanswered:
                continue

    def _live_and_die(self, name: str, *, is_deleted: bool) -> None:
        for length in (4096, 70_000):
            content = os.urandom(length)
            self._change("PUT", name, content)
            assert self._ask("GET", name).body == content
        if is_deleted:
            self._change("DELETE", name, None)
            assert self._ask("GET", name).status == 404

    def _in_segments(self, name: str, length: int) -> None:
        segments = [os.urandom(length) for _ in range(3)]
        begun = self._ask("PUT", name, b"", {"x-put-txn-op": "start"})
        assert begun.status == 202
        named = {"x-put-txn-id": begun.headers["x-put-txn-id"]}
        for segment in segments:
            assert self._ask("PUT", name, segment, named).status == 202
        content = b"".join(segments)
        self.ledger.begin(name, content)
        assert self._ask("PUT", name, b"", named | {"x-put-txn-op": "commit"}).status == 201
        self.ledger.acknowledge(name, content)
        assert self._ask("GET", name).body == content

    def _change(self, method: str, name: str, content: bytes | None) -> None:
        self.ledger.begin(name, content)
        assert self._ask(method, name, content).status in {201, 204}
        self.ledger.acknowledge(name, content)

    def _ask(self, method: str, name: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """By the service whose turn it is, or by the other if that one does not take connections; a GET is asked again."""
        self._turn += 1
        chosen = self.pair.services[self._turn % 2]
        for service in (chosen, self.pair.other(chosen)):
            try:
                return service.request(method, path(name), body, AUTH | (headers or {}))
            except ConnectionRefusedError:
                continue
            except (OSError, HTTPException) as error:
                if method != "GET":
                    raise Unanswered from error
        raise AssertionError("neither service takes connections")


def path(name: str) -> str:
    return f"/files/cadc:TEST/{name}"


def test_what_either_service_has_acknowledged_both_have_whole_and_the_death_of_one_takes_nothing(pair: Pair) -> None:
    ledger, is_over = Ledger(), threading.Event()
    clients = [Client(number, pair, ledger) for number in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as threads:
        working = [threads.submit(client.work, is_over.is_set) for client in clients]
        try:
            one_is_killed_and_comes_back(pair, ledger, lambda: any(each.done() for each in working))
        finally:
            is_over.set()
        for each in working:
            each.result()
    for name, may_be in ledger.may_be.items():
        for service in pair.services:
            answer = service.request("GET", path(name), headers=AUTH)
            assert (answer.body if answer.status == 200 else None) in may_be, (name, answer.status)
    nothing_differs_but_what_was_not_acknowledged(pair, ledger)
    nothing_of_it_is_left_in_the_bucket(pair)


def one_is_killed_and_comes_back(pair: Pair, ledger: Ledger, has_failed: Callable[[], bool]) -> None:
    """While somebody sweeps, as the worker of a site does every five minutes."""
    living, mortal = pair.services

    def until(count: int) -> None:
        put_transactions.sweep(store=pair.store, now=datetime.now(UTC))
        wait_until(lambda: ledger.acknowledged >= count or has_failed(), 60, "the clients are stuck")

    until(CHANGES)
    with mortal.connect() as upload:
        uri = path("half")
        head = f"PUT {uri} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {3 * PART}\r\n\r\n"
        upload.sendall(head.encode())
        upload.sendall(os.urandom(PART + MIB))
        wait_until(lambda: has_uploads(pair), 30, "nothing of the upload has reached the bucket")
        mortal.kill()
    until(ledger.acknowledged + CHANGES)
    assert living.request("GET", uri, headers=AUTH).status == 404
    mortal.start()
    until(ledger.acknowledged + CHANGES)


def has_uploads(pair: Pair) -> bool:
    return any(upload.key.startswith("objects/") for upload in pair.store.bucket.pending_uploads())


def nothing_differs_but_what_was_not_acknowledged(pair: Pair, ledger: Ledger) -> None:
    alive = sum(may_be != {None} for may_be in ledger.may_be.values())
    found, run = validated(pair, timedelta(hours=1))
    assert {finding.label for finding in found} <= {"delay"}
    assert run.artifacts == StorageLocation.objects.count() <= alive
    # Nobody has recorded them: their writer was killed between the bytes and the row.
    orphans = {finding.storage_id for finding in found}
    objects = {each.storage_id for each in pair.store.iterate()}
    tables = StorageLocation.objects, RetiredArtifact.objects, ObsoleteStorageLocation.objects
    recorded = {storage_id for table in tables for storage_id in table.values_list("storage_id", flat=True)}
    assert objects == recorded | orphans
    assert not recorded & orphans


def validated(pair: Pair, grace: timedelta) -> tuple[list[ValidationFinding], ValidationRun]:
    """What a complete comparison of inventory and bucket finds."""
    run = runs.open_run(policy=Policy.INVENTORY_IS_ALWAYS_RIGHT, started_by="test")
    progress = runs.advance(run_id=run.id, surveyor=surveyor_of(pair.store), seconds=60, grace=grace)
    assert progress is not None
    assert progress.is_complete
    return list(ValidationFinding.objects.filter(state="open")), progress.run


def nothing_of_it_is_left_in_the_bucket(pair: Pair) -> None:
    """But objects, once everything is old enough."""
    put_transactions.sweep(store=pair.store, now=datetime.now(UTC) + timedelta(days=30))
    assert list(pair.store.bucket.pending_uploads()) == []
    assert list(pair.store.bucket.list("transactions/")) == []
    keys = [listed.key for listed in pair.store.bucket.list("objects/")]
    assert len(keys) == 2 * len(list(pair.store.iterate()))


def test_a_commit_that_is_repeated_at_the_other_service_at_once_makes_one_file(pair: Pair) -> None:
    for number in range(8):
        name, segments = f"twice/{number}", [os.urandom(SEGMENT if number % 2 else 1000) for _ in range(2)]
        begun = pair.services[0].request("PUT", path(name), b"", AUTH | {"x-put-txn-op": "start"})
        named = AUTH | {"x-put-txn-id": begun.headers["x-put-txn-id"]}
        for service, segment in zip(pair.services, segments, strict=True):
            assert service.request("PUT", path(name), segment, named).status == 202
        both = threading.Barrier(2)

        def commit(service: SiteProcess, both: threading.Barrier = both, name: str = name, named: Any = named) -> int:
            both.wait(30)
            return service.request("PUT", path(name), b"", named | {"x-put-txn-op": "commit"}).status

        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(commit, pair.services))
        assert 201 in answers
        assert set(answers) <= {201, 404, 409}
        for service in pair.services:
            assert service.request("GET", path(name), headers=AUTH).body == b"".join(segments)
    assert validated(pair, timedelta(hours=1))[0] == []
