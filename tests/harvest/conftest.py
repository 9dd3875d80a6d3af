"""Peers that speak the protocol, and the two roles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pytest_django.fixtures import Settings

from datamodel import auth, sealing
from datamodel.models import InventoryIdentity, RemoteInventory, StorageSite
from datamodel.permissions import Grant
from tests.fakes.feed import TOKEN, FakeInventory, serve
from tests.harvest import selections
from tests.harvest.selections import Wishes


@pytest.fixture
def peer() -> Iterator[FakeInventory]:
    """Another inventory."""
    with serve() as inventory:
        yield inventory


@pytest.fixture
def harvest_token(inventory: InventoryIdentity) -> str:
    """A token that may read the feed of the inventory under test."""
    return auth.create_api_token(name="peer", grants=frozenset({Grant.HARVEST}), now=datetime.now(UTC))


def remote_to(peer: FakeInventory, *, role: str, name: str = "peer") -> RemoteInventory:
    return RemoteInventory.objects.create(name=name, role=role, url=peer.url, token=sealing.seal(TOKEN.encode()))


@pytest.fixture
def from_site(inventory: InventoryIdentity, settings: Settings, peer: FakeInventory) -> RemoteInventory:
    """We are a global; the peer is a site with its own row."""
    settings.INVENTORY_ROLE = "global"
    settings.HARVEST_NUDGE = ""
    peer.add_site()
    return remote_to(peer, role="site")


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> Wishes:
    """What the site under test wants: everything in cadc:, until the test says otherwise."""
    wishes = Wishes()
    monkeypatch.setattr(selections, "wishes", wishes)
    return wishes


@pytest.fixture
def from_global(site: StorageSite, settings: Settings, peer: FakeInventory) -> RemoteInventory:
    """We are a site; the peer is a global."""
    settings.INVENTORY_ROLE = "site"
    settings.HARVEST_NUDGE = ""
    settings.HARVEST_SELECTION = "tests.harvest.selections.wished"
    return remote_to(peer, role="global")
