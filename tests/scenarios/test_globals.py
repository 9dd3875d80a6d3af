"""A federation with more than one global: one that comes late, one that goes, one that knows only a part."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harvest.demo.federation import KEPT, Federation, Inventory, usual_inventories
from harvest.demo.peer import Peer
from harvest.demo.supervisor import port_is_free
from tests.ports import free_ports
from tests.scenarios.federation import eventually, eventually_at, listing, put, read, shows

pytestmark = [pytest.mark.xdist_group("federation"), pytest.mark.timeout(300)]

PART = f"{KEPT}part/"


@dataclass(frozen=True)
class Globals:
    """Two sites that were told of three globals, of which only the first runs yet."""

    federation: Federation
    second: Inventory
    limited: Inventory

    def peer(self, name: str) -> Peer:
        url = next(inventory.url for inventory in self.federation.inventories if inventory.name == name)
        return Peer(name, url, self.federation.secrets.token)

    def launch(self, inventory: Inventory) -> Peer:
        never = threading.Event()
        self.federation.launch([inventory], never)
        self.federation.await_ready([inventory], never)
        return self.peer(inventory.name)


@pytest.fixture
def globals_(tmp_path: Path) -> Iterator[Globals]:
    first, alpha, beta = usual_inventories(tmp_path, free_ports(3))
    ports = free_ports(2)
    second = Inventory("second", "global", ports, tmp_path / "second")
    limited = Inventory("limited", "global", ports + 1, tmp_path / "limited", namespaces=(PART,))
    said: list[str] = []
    federation = Federation(tmp_path, [first, alpha, beta, second, limited], said.append)
    never = threading.Event()
    try:
        federation.launch([first, alpha, beta], never)
        federation.await_ready([first, alpha, beta], never)
        yield Globals(federation, second, limited)
    finally:
        federation.stop()
    assert not [line for line in said if "restarted" in line or "died" in line]


def test_a_second_global_catches_up_takes_over_and_a_third_knows_only_its_namespace(globals_: Globals) -> None:
    alpha, beta, first = globals_.peer("alpha"), globals_.peer("beta"), globals_.peer("global")
    files = [put(alpha, f"{namespace}{number}", b"%d" % number) for number in range(10) for namespace in (KEPT, PART)]
    eventually(lambda: all(shows(beta, file) for file in files), "no sync while two globals are unreachable")

    second = globals_.launch(globals_.second)
    eventually(lambda: listing(second, KEPT) == listing(first, KEPT), "the second global does not catch up")
    limited = globals_.launch(globals_.limited)
    eventually(lambda: listing(limited, KEPT) == listing(first, PART), "the limited global does not come to its part")

    stopped = globals_.federation.inventories[0]
    globals_.federation.stop(stopped)
    assert port_is_free(stopped.port)
    assert read(second, files[0].uri) == files[0].content
    late = put(alpha, f"{PART}late", b"after the first global was gone")
    eventually_at((second, limited, beta), lambda peer: shows(peer, late), "nothing is learnt without the first global")
    assert read(second, late.uri) == read(limited, late.uri) == late.content
    replaced = put(alpha, files[0].uri, b"replaced")
    eventually(lambda: shows(second, replaced) and shows(beta, replaced), "a replacement does not travel any more")
