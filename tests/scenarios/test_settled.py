"""A federation in which nothing happens says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import urllib3

from harvest.demo.peer import Peer
from tests.scenarios.federation import Demo, eventually, put

pytestmark = pytest.mark.xdist_group("federation")

# Longer than the news take, and than a row that is echoed once would.
SILENCE = 4.0
STREAMS = ("sites", "deleted-locations", "locations", "deleted-artifacts", "artifacts")


def read_feed(peer: Peer, stream: str, cursor: str | None) -> tuple[int, str]:
    """All rows after the cursor: their number, and the cursor after them."""
    rows = 0
    while True:
        fields = {"limit": "10000"} | ({"cursor": cursor} if cursor else {})
        headers = {"Authorization": f"Bearer {peer.token}"}
        answer = urllib3.request("GET", f"{peer.url}/harvest/{stream}", fields=fields, headers=headers)
        assert answer.status == 200, answer.data
        word, count, cursor, _, more = answer.data.decode().splitlines()[-1].split("\t")
        assert word == "#end"
        rows += int(count)
        if more == "0":
            return rows, cursor


def test_a_settled_federation_sends_no_rows(demo: Demo) -> None:
    namespace = demo.namespace()
    for number in range(5):
        put(demo.alpha, f"{namespace}{number}", b"%d" % number)
        put(demo.beta, f"{namespace}beta {number}".replace(" ", "-"), b"%d" % number)
    eventually(lambda: len(list(demo.beta.listing(namespace))) == 10, "beta does not hold all")
    peers = (demo.all_sites, demo.alpha, demo.beta)
    cursors: dict[tuple[str, str], str | None] = {(peer.name, stream): None for peer in peers for stream in STREAMS}

    def sent() -> dict[tuple[str, str], int]:
        counts = {}
        for peer in peers:
            for stream in STREAMS:
                counts[peer.name, stream], cursors[peer.name, stream] = read_feed(
                    peer, stream, cursors[peer.name, stream]
                )
        return {key: count for key, count in counts.items() if count}

    assert sent(), "a feed from its start sends what there is"
    eventually(lambda: _is_silent_for(1.0, sent), "the federation goes on talking", 30)
    # Had harvesting stamped a row again, somebody would have been sent it by now.
    time.sleep(SILENCE)
    assert sent() == {}


def _is_silent_for(seconds: float, sent: Callable[[], object]) -> bool:
    time.sleep(seconds)
    return not sent()
