"""The byte plane on the server that ships: cut bodies, chunked bodies, early refusals, long transfers, kill -9."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from django.db import connection as django_connection

from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    ObsoleteStorageLocation,
    RetiredArtifact,
    StorageLocation,
    StorageLocationEvent,
)
from datamodel.rows import database_now
from site_service.storage.filesystem import FilesystemStore
from tests.ports import free_port
from tests.site_service.conftest import TOKEN
from tests.site_service.server import SiteProcess

AUTH = {"Authorization": f"Bearer {TOKEN}"}
PATH = "/files/cadc:TEST/live.bin"
MIB = 1024 * 1024
HEAD = f"PUT {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"


def stored_objects(site: SiteProcess) -> int:
    return len(list(FilesystemStore(site.directory / "storage").iterate()))


def temporary_files(site: SiteProcess) -> list[Path]:
    return list((site.directory / "storage" / "temporary").iterdir())


def wait_for(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def answer_status(connection: socket.socket) -> int:
    """The status of the final answer; interim ones are passed over."""
    with connection.makefile("rb") as answer:
        while True:
            status = int(answer.readline().split()[1])
            while answer.readline().strip():
                pass
            if status >= 200:
                return status


def test_put_with_length_and_chunked_store_every_byte(live: SiteProcess) -> None:
    data = os.urandom(3 * MIB + 17)
    assert live.request("PUT", PATH, data, AUTH).status == 201
    assert live.request("GET", PATH, headers=AUTH).body == data
    blocks = [os.urandom(size) for size in (1, 100_000, 7, MIB, 65_536)]
    assert live.request("PUT", PATH, iter(blocks), AUTH).status == 201
    got = live.request("GET", PATH, headers=AUTH)
    assert got.body == b"".join(blocks)
    assert got.headers["Content-Length"] == str(len(got.body))


def test_empty_chunked_body_is_an_empty_file(live: SiteProcess) -> None:
    assert live.request("PUT", PATH, iter(()), AUTH).status == 201
    assert live.request("HEAD", PATH, headers=AUTH).headers["Content-Length"] == "0"


def test_put_without_any_length_is_refused(live: SiteProcess) -> None:
    with live.connect() as connection:
        connection.sendall(f"{HEAD}\r\n".encode())
        assert answer_status(connection) == 400


def close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


CHUNKED = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize(
    "sent",
    [
        f"{HEAD}Content-Length: 1000\r\n\r\n".encode() + b"x" * 999,
        CHUNKED + b"400\r\n" + b"x" * 100,
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"5\r\nhello",
        CHUNKED,
    ],
)
def test_cut_body_of_either_kind_stores_nothing(
    live: SiteProcess, sent: bytes, end: Callable[[socket.socket], None]
) -> None:
    before, logged = stored_objects(live), live.log.count("reason=short_body")
    connection = live.connect()
    with closing(connection):
        connection.sendall(sent)
        end(connection)
        if end is close:
            assert answer_status(connection) == 400
    wait_for(lambda: live.log.count("reason=short_body") > logged)
    assert live.request("HEAD", PATH, headers=AUTH).status == 404
    assert stored_objects(live) == before
    wait_for(lambda: not temporary_files(live))


def test_broken_chunk_framing_stores_nothing(live: SiteProcess) -> None:
    with live.connect() as connection:
        connection.sendall(CHUNKED + b"5\r\nhelloXX5\r\nworld\r\n0\r\n\r\n")
        assert answer_status(connection) == 400
    assert live.request("HEAD", PATH, headers=AUTH).status == 404


def test_a_request_that_is_no_http_is_told_in_one_line_without_its_token(live: SiteProcess) -> None:
    token = f"1.k1.{'c' * 40}.{'s' * 86}"
    before = len(live.log)
    with live.connect() as connection:
        connection.sendall(f"GET /files/{token}/cadc:A/b\r\nHost: x\r\n\r\n".encode())
        assert answer_status(connection) == 400
    wait_for(lambda: "gunicorn.error" in live.log[before:])
    (line,) = live.log[before:].splitlines()
    assert "GET /files/***/cadc:A/b" in line
    assert token not in line


def test_silent_sender_is_given_up(live: SiteProcess) -> None:
    with live.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 1000\r\n\r\nxx".encode())
        assert answer_status(connection) == 400
    assert live.request("HEAD", PATH, headers=AUTH).status == 404


def test_expect_continue_is_answered_before_the_body(live: SiteProcess) -> None:
    with live.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(b"hello")
        assert answer_status(connection) == 201
    assert live.request("GET", PATH, headers=AUTH).body == b"hello"


def test_refused_sender_sees_the_status_though_it_is_still_sending(live: SiteProcess) -> None:
    for headers, status in [({}, 401), (AUTH | {"Content-Type": "None"}, 400), (AUTH | {"If-Match": '"x"'}, 412)]:
        assert live.request("PUT", PATH, b"x" * (MIB - 1), headers).status == status


def test_content_that_turns_out_too_large_is_413_and_nothing_stays(
    django_db_setup: None, tmp_path: Path, token: str
) -> None:
    site = SiteProcess(tmp_path, free_port(), {"INVENTORY_MAX_CONTENT_BYTES": str(MIB)})
    site.start()
    try:
        for body in (iter([b"x" * MIB, b"x", b"x" * MIB]), b"x" * 2 * MIB):
            answer = site.request("PUT", PATH, body, AUTH | {"User-Agent": "cadcutils"})
            assert answer.status == 413
            assert answer.body.startswith(str(MIB).encode())
        assert site.request("PUT", PATH, b"x" * MIB, AUTH).status == 201
        assert stored_objects(site) == 1
        assert not temporary_files(site)
    finally:
        site.stop()


def test_connection_is_usable_after_a_refusal(live: SiteProcess) -> None:
    with live.connect() as connection:
        connection.sendall(f'{HEAD}Content-Length: 5\r\nIf-Match: "x"\r\n\r\nhello'.encode())
        assert answer_status_and_body(connection) == 412
        connection.sendall(f"{HEAD}Content-Length: 5\r\n\r\nhello".encode())
        assert answer_status_and_body(connection) == 201


def test_a_request_that_came_with_the_end_of_a_body_is_the_next_one(live: SiteProcess) -> None:
    with live.connect() as connection:
        connection.sendall(
            f"{HEAD}Content-Length: 5\r\n\r\nhello{HEAD}Content-Length: 0\r\n\r\n{HEAD}Content-Length: 3\r\n\r\nb".encode()
        )
        assert answer_status_and_body(connection) == 201
        assert answer_status_and_body(connection) == 201
        connection.sendall(b"ye" + HEAD.encode() + b"Content-Length: 2\r\n\r\nno")
        assert answer_status_and_body(connection) == 201
        assert answer_status_and_body(connection) == 201
    assert live.request("GET", PATH, headers=AUTH).body == b"no"


def answer_status_and_body(connection: socket.socket) -> int:
    """Reads exactly one answer, so that the next one starts where it should."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(4096)
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if lengths:
        left = int(lengths[0].split(b":")[1]) - len(body)
        while left > 0:
            left -= len(connection.recv(left))
    elif b"transfer-encoding: chunked" in head.lower():
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(4096)
    return int(head.split()[1])


def test_ranges_over_the_wire(live: SiteProcess) -> None:
    data = os.urandom(200_000)
    live.request("PUT", PATH, data, AUTH)
    one = live.request("GET", PATH, headers=AUTH | {"Range": "bytes=1000-99999"})
    assert (one.status, one.body) == (206, data[1000:100_000])
    several = live.request("GET", PATH, headers=AUTH | {"Range": "bytes=0-9,100000-100009,-10"})
    assert several.status == 206
    assert int(several.headers["Content-Length"]) == len(several.body)
    for part in (data[:10], data[100_000:100_010], data[-10:]):
        assert part in several.body
    assert live.request("GET", PATH, headers=AUTH | {"Range": "bytes=200000-"}).status == 416


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/files/cadc%3ATEST%2Flive.bin", 200),
        ("/files/cadc:TEST/live.bin", 200),
        ("/files/cadc:TEST//live.bin", 404),
        ("/files//cadc:TEST/live.bin", 400),
        ("/files/cadc:TEST/live+bin", 404),
        ("/files/cadc:TEST/live%2Bbin", 404),
        ("/files/cadc:TEST/my%20file", 400),
        ("/files/cadc:TEST/new%0Aline", 400),
        ("/files/cadc:TEST/%E9", 400),
        ("/files/cadc:TEST/%C3%A9", 404),
        ("/files/cadc:TEST/%25C3%25A9", 404),
    ],
)
def test_paths_over_the_wire(live: SiteProcess, target: str, status: int) -> None:
    live.request("PUT", PATH, b"x", AUTH)
    assert live.request("HEAD", target, headers=AUTH).status == status


def test_plus_and_double_slash_are_names_of_their_own(live: SiteProcess) -> None:
    for name in ("a+b", "a%2Bb", "x//y", "caf%C3%A9"):
        assert live.request("PUT", f"/files/cadc:TEST/{name}", name.encode(), AUTH).status == 201
    assert sorted(Artifact.objects.values_list("uri", flat=True)) == [
        "cadc:TEST/a+b",
        "cadc:TEST/caf%C3%A9",
        "cadc:TEST/x//y",
    ]
    assert live.request("GET", "/files/cadc:TEST/a%2bb", headers=AUTH).body == b"a%2Bb"


@pytest.fixture
def own_site(django_db_setup: None, tmp_path: Path, token: str) -> Iterator[SiteProcess]:
    site = SiteProcess(tmp_path, free_port())
    site.start()
    yield site
    site.stop()


def worker_of(site: SiteProcess) -> psutil.Process:
    assert site.process is not None
    (worker,) = psutil.Process(site.process.pid).children()
    return worker


def test_memory_stays_flat_while_a_long_file_comes_and_goes(own_site: SiteProcess) -> None:
    own_site.request("PUT", PATH, b"warm", AUTH)
    own_site.request("GET", PATH, headers=AUTH)
    block, worker = os.urandom(MIB), worker_of(own_site)
    before, peak, digest = worker.memory_info().rss, 0, hashlib.md5()

    def blocks() -> Iterator[bytes]:
        nonlocal peak
        for index in range(160):
            digest.update(block)
            if index % 16 == 0:
                peak = max(peak, worker.memory_info().rss)
            yield block

    assert own_site.request("PUT", PATH, blocks(), AUTH).status == 201
    got = own_site.request("GET", PATH, headers=AUTH | {"Range": f"bytes=0-{160 * MIB - 2}"})
    assert len(got.body) == 160 * MIB - 1
    peak = max(peak, worker.memory_info().rss)
    assert peak - before < 48 * MIB
    assert got.headers["ETag"] == f'"md5:{digest.hexdigest()}"'


def test_kill_9_in_mid_put_leaves_no_row_without_bytes_and_the_old_content(own_site: SiteProcess) -> None:
    assert own_site.request("PUT", PATH, b"old", AUTH).status == 201
    with own_site.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: {2 * MIB}\r\n\r\n".encode() + b"x" * MIB)
        wait_for(lambda: any(path.stat().st_size for path in temporary_files(own_site)))
        own_site.kill()
    own_site.start()
    assert own_site.request("GET", PATH, headers=AUTH).body == b"old"
    check_invariants(own_site)
    assert own_site.request("PUT", PATH, b"new", AUTH).status == 201
    assert own_site.request("GET", PATH, headers=AUTH).body == b"new"
    check_invariants(own_site)


def check_invariants(site: SiteProcess) -> None:
    """No row without bytes; no published bytes without a row; no event without its change."""
    store = FilesystemStore(site.directory / "storage")
    objects = {stored.storage_id for stored in store.iterate()}
    live = set(StorageLocation.objects.values_list("storage_id", flat=True))
    kept = set(RetiredArtifact.objects.values_list("storage_id", flat=True))
    obsolete = set(ObsoleteStorageLocation.objects.values_list("storage_id", flat=True))
    assert live | kept <= objects
    assert objects == live | kept | obsolete
    gone = set(DeletedArtifactEvent.objects.values_list("id", flat=True))
    assert not gone & set(Artifact.objects.values_list("id", flat=True))
    assert gone == set(RetiredArtifact.objects.values_list("id", flat=True))
    assert not StorageLocationEvent.objects.exists()


def test_put_transaction_survives_kill_9_and_restart(own_site: SiteProcess) -> None:
    start = AUTH | {"x-put-txn-op": "start", "x-total-length": "10"}
    begun = own_site.request("PUT", PATH, b"hello", start)
    assert begun.status == 202
    identity = AUTH | {"x-put-txn-id": begun.headers["x-put-txn-id"]}
    with own_site.connect() as connection:
        connection.sendall(
            f"{HEAD}x-put-txn-id: {begun.headers['x-put-txn-id']}\r\nContent-Length: 5\r\n\r\nwor".encode()
        )
        own_site.kill()
    own_site.start()
    assert own_site.request("HEAD", PATH, headers=identity).headers["Content-Length"] == "5"
    assert own_site.request("PUT", PATH, b"world", identity).status == 202
    assert own_site.request("PUT", PATH, b"", identity | {"x-put-txn-op": "commit"}).status == 201
    assert own_site.request("GET", PATH, headers=AUTH).body == b"helloworld"


def test_two_first_puts_at_once_with_if_none_match_give_one_winner(live: SiteProcess) -> None:
    head = f"{HEAD}If-None-Match: *\r\nContent-Length: 4\r\n\r\n".encode()
    before = stored_objects(live)
    with live.connect() as one, live.connect() as two:
        # Both have passed every early check when the first byte of each has reached its temporary file or waits for more.
        one.sendall(head + b"on")
        two.sendall(head + b"tw")
        wait_for(lambda: len(temporary_files(live)) == 2)
        one.sendall(b"e!")
        first = answer_status(one)
        two.sendall(b"o!")
        second = answer_status(two)
    assert (first, second) == (201, 412)
    assert live.request("GET", PATH, headers=AUTH).body == b"one!"
    assert stored_objects(live) == before + 2
    assert ObsoleteStorageLocation.objects.count() == 1


def test_transfers_hold_no_database_connection(django_db_setup: None, tmp_path: Path, token: str) -> None:
    site = SiteProcess(tmp_path, free_port(), {"INVENTORY_DATABASE_POOL": "1"})
    site.start()
    try:
        assert site.request("PUT", PATH, b"x" * 16 * MIB, AUTH).status == 201
        with site.connect() as putting, site.connect() as getting:
            putting.sendall(f"{HEAD}Content-Length: 1000\r\n\r\nxx".encode())
            getting.sendall(HEAD.replace("PUT", "GET").encode() + b"\r\n")
            assert getting.recv(12) == b"HTTP/1.1 200"
            wait_for(lambda: bool(temporary_files(site)))
            for _ in range(3):
                assert site.request("HEAD", PATH, headers=AUTH).status == 200
    finally:
        site.stop()


def test_stalled_reader_gives_its_thread_back(own_site: SiteProcess) -> None:
    own_site.request("PUT", PATH, b"x" * 32 * MIB, AUTH)
    with own_site.connect() as reader:
        reader.sendall(HEAD.replace("PUT", "GET").encode() + b"\r\n")
        assert reader.recv(12) == b"HTTP/1.1 200"
        worker = worker_of(own_site)
        wait_for(lambda: not [file for file in worker.open_files() if "/objects/" in file.path])


def test_sigterm_lets_a_running_put_finish(own_site: SiteProcess) -> None:
    with own_site.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 10\r\n\r\nhello".encode())
        wait_for(lambda: bool(temporary_files(own_site)))
        assert own_site.process is not None
        own_site.process.terminate()
        wait_for(lambda: not accepts(own_site))
        connection.sendall(b"world")
        assert answer_status(connection) == 201
    own_site.stop()
    own_site.start()
    assert own_site.request("GET", PATH, headers=AUTH).body == b"helloworld"


def test_sigterm_is_not_kept_waiting_by_a_wait_for_news(own_site: SiteProcess) -> None:
    after = json.loads(own_site.request("GET", "/harvest/news", headers=AUTH).body)["settled"] + 1
    with own_site.connect() as waiting:
        begun = database_now()
        waiting.sendall(HEAD.replace(f"PUT {PATH}", f"GET /harvest/news?wait=30&after={after}").encode() + b"\r\n")
        wait_for(lambda: has_asked_since(begun))
        assert own_site.process is not None
        own_site.process.terminate()
        assert answer_status(waiting) == 200
        own_site.process.wait(15)


def has_asked_since(begun: datetime) -> bool:
    """Whether somebody else has asked the tables for news."""
    with django_connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query_start > %s AND pid <> pg_backend_pid() "
            "AND application_name <> 'inventory-news' AND query <> ''",
            [begun],
        )
        return bool(cursor.fetchone()[0])


def accepts(site: SiteProcess) -> bool:
    try:
        site.request("OPTIONS", "/files/", timeout=1)
    except OSError:
        return False
    return True


def test_empty_file_comes_back_empty(live: SiteProcess) -> None:
    assert live.request("PUT", PATH, b"", AUTH | {"Content-Length": "0"}).status == 201
    got = live.request("GET", PATH, headers=AUTH)
    assert (got.status, got.body, got.headers["Content-Length"]) == (200, b"", "0")
