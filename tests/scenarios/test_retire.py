"""Two sites retire the same files at once: each file keeps a copy, whatever dies or is cut off; nothing comes back unasked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
import urllib3

from harvest.demo.peer import Peer
from tests.scenarios.federation import SITES, Demo, File, eventually, eventually_at, get_json, put, read, shows

pytestmark = pytest.mark.xdist_group("federation")

FILES = 60


def send(peer: Peer, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Authorization": f"Bearer {peer.token}", "Content-Type": "application/json"}
    data = json.dumps(body) if body is not None else None
    answer = urllib3.request(method, f"{peer.url}{path}", body=data, headers=headers, retries=False)
    assert answer.status < 300, (path, answer.status, answer.data[:500])
    return answer.json()


@pytest.fixture
def namespace(demo: Demo) -> Iterator[str]:
    """One whose files beta has pulled, by a policy of which this part is about to be narrowed."""
    name = demo.namespace()
    yield name
    send(demo.beta, "DELETE", f"/policy?namespace={quote(name)}")


@pytest.fixture
def files(demo: Demo, namespace: str) -> list[File]:
    """At both sites, known to the global, wanted nowhere any more."""
    with ThreadPoolExecutor(8) as executor:
        found = list(
            executor.map(
                lambda n: put(demo.alpha, f"{namespace}{n:03}", f"content {namespace}{n}".encode()), range(FILES)
            )
        )
    eventually_at((demo.beta,), lambda peer: all(shows(peer, file) for file in found), "beta has not pulled all")
    eventually(lambda: copies(demo, namespace) == {("alpha", "beta"): FILES}, "the global does not know all copies")
    send(demo.beta, "PUT", "/policy", {"namespace": namespace, "wanted": False, "priority": 0})
    return found


def copies(demo: Demo, namespace: str) -> dict[tuple[str, ...], int]:
    """How many files are located at which sites."""
    counts: dict[tuple[str, ...], int] = {}
    for item in get_json(demo.all_sites, f"/artifacts?namespace={quote(namespace)}&limit=10000")["items"]:
        where = tuple(item["copies"])
        counts[where] = counts.get(where, 0) + 1
    return counts


def begin(demo: Demo, namespace: str) -> dict[str, str]:
    """A run at each site; their ids."""
    asked = {"namespace": namespace, "apply": True, "reason": "a scenario"}
    with ThreadPoolExecutor(2) as executor:
        runs = executor.map(lambda peer: send(peer, "POST", "/retire", asked), (demo.alpha, demo.beta))
    return dict(zip(SITES, (run["id"] for run in runs), strict=True))


def run_of(demo: Demo, name: str, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = get_json(demo.alpha if name == "alpha" else demo.beta, f"/retire/{run_id}")
    return found


def stored(demo: Demo, name: str, namespace: str) -> int:
    query = (
        "SELECT count(*) FROM storage_location l JOIN artifact a ON a.id = l.artifact_id WHERE starts_with(a.uri, %s)"
    )
    return int(demo.sql(name, query, namespace)[0][0])


def assert_one_copy_of_each(demo: Demo, files: list[File], namespace: str, runs: dict[str, str]) -> None:
    """And that is how it stays: the drops have been looked at by file sync, and nothing is queued."""
    eventually(lambda: all(run_of(demo, *run)["state"] == "finished" for run in runs.items()), "the runs do not end")
    ended = [run_of(demo, *run) for run in runs.items()]
    assert sum(run["droppedFiles"] for run in ended) == sum(run["refusedFiles"] for run in ended) == FILES
    seen = """SELECT s.lost_txid >= (SELECT max(txid) FROM deleted_storage_location_event) FROM sync_scan s"""
    for name, run in zip(SITES, ended, strict=True):
        if run["droppedFiles"]:
            eventually(lambda name=name: demo.sql(name, seen) == [(True,)], "file sync does not look")  # type: ignore[misc]  # a bound default
        query = "SELECT count(*) FROM sync_attempt WHERE starts_with(uri, %s)"
        assert demo.sql(name, query, namespace) == [(0,)]
        assert stored(demo, name, namespace) == FILES - run["droppedFiles"]
    located = {(name,): FILES - run["droppedFiles"] for name, run in zip(SITES, ended, strict=True)}
    located = {where: count for where, count in located.items() if count}
    eventually(lambda: copies(demo, namespace) == located, "the global does not come to know it")
    for file in files:
        assert read(demo.all_sites, file.uri) == file.content


def test_two_sites_that_retire_at_once_leave_one_copy_of_each_file(
    demo: Demo, files: list[File], namespace: str
) -> None:
    assert_one_copy_of_each(demo, files, namespace, begin(demo, namespace))


def test_workers_killed_on_the_way_change_nothing(demo: Demo, files: list[File], namespace: str) -> None:
    runs = begin(demo, namespace)
    for name in SITES:
        demo.kill_service(f"{name}-celery")
    # A question that was out waits for its time: nobody may ask it meanwhile.
    for name in SITES:
        demo.sql(name, "UPDATE copy_release SET next_try_at = inventory_now()")
    assert_one_copy_of_each(demo, files, namespace, runs)


def test_with_the_network_cut_neither_drops(demo: Demo, files: list[File], namespace: str) -> None:
    urls = {name: demo.sql(name, "SELECT url FROM remote_inventory WHERE role = 'global'")[0][0] for name in SITES}
    try:
        for name in SITES:
            demo.sql(name, "UPDATE remote_inventory SET url = 'http://127.0.0.1:1' WHERE role = 'global'")
        runs = begin(demo, namespace)
        unanswered = "SELECT count(*) FROM copy_release WHERE run_id = %s AND state = 'asked' AND reason = 'unanswered'"
        eventually(
            lambda: all(demo.sql(run[0], unanswered, run[1]) == [(FILES,)] for run in runs.items()), "nobody was asked"
        )
        assert [stored(demo, name, namespace) for name in SITES] == [FILES, FILES]
    finally:
        for name, url in urls.items():
            demo.sql(name, "UPDATE remote_inventory SET url = %s WHERE role = 'global'", url)
            demo.sql(name, "UPDATE copy_release SET next_try_at = inventory_now()")
    assert_one_copy_of_each(demo, files, namespace, runs)
