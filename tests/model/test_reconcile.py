"""Reconcile between real inventories: what differs is planted behind their cursors, and found and mended while they are in use."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import urllib3

from tests.model.world import ALL, GLOBAL, SITES, TOKEN, World

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("model"), pytest.mark.timeout(600)]

WANTED = "cadc:W/"
_PATIENT = 3
_META = """UPDATE artifact SET meta_checksum = artifact_meta_checksum(id, uri, uri_bucket, content_checksum,
    content_last_modified, content_length, content_type, content_encoding) WHERE id = '{one}'"""


class Planter:
    """Makes one inventory wrong about one artifact. Every method takes an artifact that all know and both sites store."""

    def __init__(self, world: World) -> None:
        self.world = world

    def at(self, name: str, *statements: str) -> None:
        """What no harvest will bring: without triggers a row keeps its place in the feed, which was passed long ago."""
        self.world.nodes[name].run(
            "DO $plant$ BEGIN SET LOCAL session_replication_role = replica; " + "; ".join(statements) + "; END $plant$"
        )

    def missing(self, name: str, one: str) -> None:
        """B0: the row and all that hangs on it have gone, without an event."""
        tables = ("site_location", "storage_location")
        self.at(
            name,
            *(f"DELETE FROM {t} WHERE artifact_id = '{one}'" for t in tables),
            f"DELETE FROM artifact WHERE id = '{one}'",
        )

    def copy_missing(self, name: str, one: str) -> None:
        """B5: a copy is not known of at the global, whoever is asked for."""
        self.at(GLOBAL, f"DELETE FROM site_location WHERE artifact_id = '{one}'")

    def copy_dropped(self, name: str, one: str) -> None:
        """A2: a site has said that it lost a copy, and nobody heard."""
        self.at(
            name if name in SITES else SITES[0],
            f"""INSERT INTO deleted_storage_location_event (id, uri, last_modified, meta_checksum, txid)
                SELECT id, uri, inventory_now(), event_meta_checksum(id, uri), 1 FROM artifact WHERE id = '{one}'""",
            f"DELETE FROM storage_location WHERE artifact_id = '{one}'",
            f"DELETE FROM storage_location_event WHERE id = '{one}'",
            # The site itself knows: what pulls there reads the same feed, and must not have passed this.
            "DELETE FROM sync_scan",
        )

    def deleted(self, name: str, one: str) -> None:
        """A1 for everybody else, B1 for this one: it is deleted for ever here, and nobody heard."""
        self.at(
            name,
            f"""INSERT INTO deleted_artifact_event (id, uri, last_modified, meta_checksum, deleted_at, txid)
                SELECT id, uri, inventory_now(), event_meta_checksum(id, uri), inventory_now(), 1 FROM artifact WHERE id = '{one}'""",
        )
        self.missing(name, one)

    def metadata(self, name: str, one: str) -> None:
        """C3 for everybody else, C4 here: somebody has changed the type here, and nobody heard."""
        self.at(
            name,
            f"""UPDATE artifact SET content_type = 'text/x-changed', meta_modified_at = meta_modified_at + interval '1 hour'
                WHERE id = '{one}'""",
            _META.format(one=one),
        )

    def collided_later(self, name: str, one: str) -> None:
        """C1 and C2: another artifact has the uri here, and wins."""
        self._collide(name, one, "+ interval '1 hour'")

    def collided_earlier(self, name: str, one: str) -> None:
        """C1 and C2: another artifact has the uri here, and loses."""
        self._collide(name, one, "- interval '1 hour'")

    def _collide(self, name: str, one: str, apart: str) -> None:
        other = str(uuid.uuid4())
        tables = {"artifact": "id", "site_location": "artifact_id", "storage_location": "artifact_id"}
        self.at(
            name,
            *(f"UPDATE {table} SET {column} = '{other}' WHERE {column} = '{one}'" for table, column in tables.items()),
            f"UPDATE artifact SET content_last_modified = content_last_modified {apart} WHERE id = '{other}'",
            _META.format(one=other),
        )


KINDS = ("missing", "copy_missing", "copy_dropped", "deleted", "metadata", "collided_later", "collided_earlier")
# What each kind must have been called by somebody.
LABELS = {
    "A1-deleted-there",
    "A2-copy-dropped-there",
    "A5-copy-unknown-there",
    "B0-missing-here",
    "B1-deleted-here",
    "B5-copy-missing-here",
    "C1-theirs-wins",
    "C2-ours-wins",
    "C3-newer-there",
    "C4-newer-here",
}


@contextmanager
def in_use(world: World) -> Iterator[None]:
    """Users put, replace and delete at both sites, over HTTP, until the block ends."""
    over = threading.Event()
    done = Counter[int]()

    def use() -> None:
        http = urllib3.PoolManager(headers={"Authorization": f"Bearer {TOKEN}"}, retries=False)
        number = 0
        while not over.is_set():
            number += 1
            site = world.nodes[SITES[number % 2]]
            url = f"{site.url}/files/{WANTED}busy/{number % 5}"
            answer = http.request("DELETE", url) if number % 3 == 0 else http.request("PUT", url, body=b"%d" % number)
            done[answer.status] += 1

    user = threading.Thread(target=use)
    user.start()
    try:
        yield
    finally:
        over.set()
        user.join()
    assert done[201] > 3, done
    assert done.keys() <= {201, 204, 404}, done


def compare(world: World, mode: str) -> Counter[str]:
    """Everybody with everybody; what was found, by label."""
    found = Counter[str]()
    for name in ALL:
        for remote in SITES if name == GLOBAL else [GLOBAL]:
            world.wait(name)
            answer = world.do(name, "reconcile", remote=remote, mode=mode)
            assert "refused" not in answer, answer
            found.update(answer)
    return found


def assert_agreed(world: World) -> None:
    at_global = world.artifacts(GLOBAL)
    for site in SITES:
        here = world.artifacts(site)
        assert {uri: one.artifact_id for uri, one in here.items()} == {
            uri: one.artifact_id for uri, one in at_global.items()
        }
        assert {one.uri for one in here.values() if one.storage_id is None} == set(), site
    assert world.holders() == {one.artifact_id: set(SITES) for one in at_global.values()}


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_every_difference_between_real_inventories_is_found_and_mended_under_change(world: World, seed: int) -> None:
    chance, planter = random.Random(seed), Planter(world)
    world.reset()
    for site in SITES:
        world.do(site, "policy", namespace=WANTED, wanted=True)
    cases = [(name, kind) for name in ALL for kind in KINDS]
    for number in range(len(cases)):
        assert world.do(SITES[number % 2], "put", uri=f"{WANTED}{number}", content=f"content {number}") == 201
    world.settle()
    known = list(world.artifacts(GLOBAL).values())
    chance.shuffle(known)
    for (name, kind), one in zip(cases, known, strict=True):
        getattr(planter, kind)(name, one.artifact_id)
    found = compare(world, "report")
    with in_use(world):
        for name in chance.sample(ALL, len(ALL)):
            for remote in SITES if name == GLOBAL else [GLOBAL]:
                world.do(name, "reconcile", remote=remote, mode="all")
    for _ in range(_PATIENT):
        world.settle()
        if not compare(world, "all"):
            break
    world.settle()
    assert compare(world, "report") == {}
    assert_agreed(world)
    assert found.keys() >= LABELS, (LABELS - found.keys(), found)
