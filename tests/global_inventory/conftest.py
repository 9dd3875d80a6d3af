"""A global inventory with sites, callers and signing keys, over HTTP as clients speak it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from django.test import Client
from pytest_django import Settings

from datamodel import auth, keys, rules
from datamodel.models import InventoryIdentity, RemoteInventory, SiteLocation, StorageSite
from datamodel.permissions import ALL_GRANTS, Grant
from datamodel.rows import database_now, insert_artifact
from datamodel.rules import ArtifactRow
from global_inventory.locate.freshness import questions
from global_inventory.sites.queries import site_table_cache
from tests.factories import artifact_row
from tests.fakes.site import FakeSite, fake_site


@pytest.fixture(autouse=True)
def _as_global(settings: Settings) -> Iterator[None]:
    settings.ROOT_URLCONF = "global_inventory.urls"
    settings.INVENTORY_PUBLIC_URL = "http://global.test"
    site_table_cache.clear()
    questions.clear()
    yield
    site_table_cache.clear()
    questions.clear()


@dataclass(frozen=True)
class Federation:
    """What the global knows; each method adds to it."""

    identity: InventoryIdentity

    def add_site(
        self, name: str, url: str = "", *, allow_read: bool = True, allow_write: bool = True
    ) -> RemoteInventory:
        site_id = uuid.uuid4()
        resource_id = f"ivo://test.example/{name}"
        checksum = rules.site_meta_checksum(
            site_id, allow_read=allow_read, allow_write=allow_write, name=name, resource_id=resource_id
        )
        site = StorageSite.objects.create(
            id=site_id,
            resource_id=resource_id,
            name=name,
            allow_read=allow_read,
            allow_write=allow_write,
            last_modified=database_now(),
            meta_checksum=checksum,
        )
        site_table_cache.clear()
        return RemoteInventory.objects.create(
            name=name, role="site", url=url or f"http://{name}.test/site", inventory_id=site_id, site=site
        )

    def add_artifact(
        self, uri: str, *holders: RemoteInventory, data: bytes = b"content", **changes: object
    ) -> ArtifactRow:
        row = artifact_row(uri, data, **changes)
        insert_artifact(row, None)
        for holder in holders:
            assert holder.site is not None
            SiteLocation.objects.create(artifact_id=row.id, site=holder.site)
        return row


@pytest.fixture
def federation(inventory: InventoryIdentity) -> Federation:
    now = datetime.now(UTC)
    keys.create_key_pair(now=now, active_from=now)
    return Federation(inventory)


def _caller(name: str, grants: frozenset[Grant]) -> Client:
    token = auth.create_api_token(name=name, grants=grants, now=datetime.now(UTC))
    return Client(headers={"authorization": f"Bearer {token}"})


@pytest.fixture
def operator(federation: Federation) -> Client:
    """May do everything."""
    return _caller("operator", ALL_GRANTS)


@pytest.fixture
def reader(federation: Federation) -> Client:
    return _caller("reader", frozenset({Grant.READ}))


@pytest.fixture
def writer(federation: Federation) -> Client:
    """May read and write, but not delete."""
    return _caller("writer", frozenset({Grant.READ, Grant.WRITE}))


@pytest.fixture
def alpha() -> Iterator[FakeSite]:
    with fake_site() as site:
        yield site


@pytest.fixture
def beta() -> Iterator[FakeSite]:
    with fake_site() as site:
        yield site
