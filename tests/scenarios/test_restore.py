"""A site's database is lost after its backup: the guided way back loses nothing acknowledged and revives nothing deleted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import urllib3

from datamodel import embedded
from harvest.demo.federation import KEPT, PROJECT, Federation, Inventory, environment, neighbours, usual_inventories
from harvest.demo.peer import Peer
from tests.ports import free_ports
from tests.scenarios.federation import File, eventually, listing, put, read, shows

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("federation"), pytest.mark.timeout(600)]

NEVER = threading.Event()


@dataclass(frozen=True)
class Lossy:
    """A federation whose site alpha loses its database."""

    federation: Federation
    directory: Path

    def inventory(self, name: str) -> Inventory:
        return next(one for one in self.federation.inventories if one.name == name)

    def peer(self, name: str) -> Peer:
        return Peer(name, self.inventory(name).url, self.federation.secrets.token)

    def manage(self, *arguments: str) -> str:
        """A command of alpha's operator."""
        alpha = self.inventory("alpha")
        variables = environment(alpha, neighbours(alpha, self.federation.inventories), self.federation.secrets)
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def lose_database(self) -> None:
        alpha = self.inventory("alpha")
        self.federation.stop(alpha)
        shutil.rmtree(alpha.servers)
        embedded.start(alpha.servers)

    def sql(self, name: str, query: str) -> list[tuple[object, ...]]:
        url = embedded.location(self.inventory(name).servers).database_url
        with psycopg.connect(url, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()


@pytest.fixture
def lossy(tmp_path: Path) -> Iterator[Lossy]:
    federation = Federation(tmp_path, usual_inventories(tmp_path, free_ports(3)), lambda text: None)
    try:
        federation.launch(federation.inventories, NEVER)
        federation.await_ready(federation.inventories, NEVER)
        yield Lossy(federation, tmp_path)
    finally:
        federation.stop()


def test_after_the_guided_steps_nothing_acknowledged_is_lost_and_nothing_deleted_lives(lossy: Lossy) -> None:
    alpha, beta, all_sites = (lossy.peer(name) for name in ("alpha", "beta", "global"))
    before = [put(alpha, f"{KEPT}before/{number}", b"before %d" % number) for number in range(8)]
    eventually(lambda: all(shows(beta, file) for file in before), "beta does not pull")
    lossy.manage("backup", str(lossy.directory))

    kept = before[4:]
    deleted = [before[0], before[1]]
    for file in deleted:
        alpha.delete(file.uri)
    kept += [put(alpha, file.uri, b"replaced " + file.content) for file in before[2:4]]
    kept += [put(alpha, f"{KEPT}after/{number}", b"after %d" % number) for number in range(4)]
    short = put(alpha, f"{KEPT}after/deleted", b"put and deleted after the backup")
    put(alpha, f"{KEPT}after/twice", b"first of two")
    kept.append(put(alpha, f"{KEPT}after/twice", b"second of two"))
    eventually(lambda: shows(all_sites, short), "the global does not know")
    alpha.delete(short.uri)
    deleted.append(short)
    eventually(lambda: listing(all_sites, KEPT) == listing(alpha, KEPT) == listing(beta, KEPT), "they do not agree")
    # Nobody hears of these: only alpha's store knows them afterwards.
    lossy.federation.stop(lossy.inventory("global"), lossy.inventory("beta"))
    kept += [put(alpha, f"{KEPT}lone/{number}", b"lone %d" % number) for number in range(3)]
    kept.append(put(alpha, kept[0].uri, b"replaced when nobody heard"))
    kept.pop(0)

    lossy.lose_database()
    assert "step" not in lossy.manage("restore", str(lossy.directory), "--only-load").partition("\n")[0]
    lossy.federation.launch(lossy.federation.inventories, NEVER)
    eventually(lambda: status(alpha, "/harvest/artifacts") == 503, "alpha does not say that it is closed")
    assert "restoring: step 3 of 5" in problem(alpha, "/readyz")
    assert "restoring: step 3 of 5" in problem(alpha, f"/files/{kept[0].uri}")
    assert lossy.sql("alpha", "SELECT count(*) FROM restoration WHERE finished_at IS NULL") == [(1,)]
    eventually(lambda: status(all_sites, "/readyz") == 200, "the global does not start")
    said = lossy.manage("restore", "--resume")
    assert "open: the inventory is back in the federation" in said

    lossy.federation.await_ready(lossy.federation.inventories, NEVER)
    eventually(
        lambda: listing(all_sites, KEPT) == listing(alpha, KEPT) == listing(beta, KEPT), "they do not agree again"
    )
    assert_holds(lossy, kept, deleted)
    assert_sound(lossy)


def assert_holds(lossy: Lossy, kept: list[File], deleted: list[File]) -> None:
    for name in ("alpha", "beta", "global"):
        peer = lossy.peer(name)
        assert listing(peer, KEPT).keys() == {file.uri for file in kept}, name
        for file in kept:
            assert read(peer, file.uri) == file.content, (name, file.uri)
        assert {peer.status_of(file.uri) for file in deleted} == {404}


def assert_sound(lossy: Lossy) -> None:
    """No row without bytes was just seen; no bytes without a row that accounts for them; no event without change."""
    known = """SELECT storage_id FROM storage_location UNION ALL SELECT storage_id FROM obsolete_storage_location UNION ALL
        SELECT storage_id FROM retired_artifact WHERE state IN ('retained', 'removing', 'restored')"""
    rows = {row[0] for row in lossy.sql("alpha", known)}
    objects = (lossy.directory / "alpha" / "storage" / "objects").rglob("*")
    published = {path.name for path in objects if path.is_file() and path.suffix == ""}
    assert published <= rows
    living = "SELECT d.uri FROM deleted_artifact_event d JOIN artifact a ON a.id = d.id"
    assert [lossy.sql(name, living) for name in ("alpha", "beta", "global")] == [[], [], []]


def status(peer: Peer, path: str) -> int:
    try:
        return urllib3.request("GET", f"{peer.url}{path}", headers=ours(peer), retries=False).status
    except urllib3.exceptions.HTTPError:
        return 0


def problem(peer: Peer, path: str) -> str:
    answer = urllib3.request("GET", f"{peer.url}{path}", headers=ours(peer), retries=False)
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    return str(answer.json()["detail"])


def ours(peer: Peer) -> dict[str, str]:
    return {"Authorization": f"Bearer {peer.token}"}
