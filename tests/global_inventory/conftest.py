"""A global inventory with sites, callers and signing keys, over HTTP as clients speak it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from datamodel import auth, keys, rules
from datamodel.models import InventoryIdentity, RemoteInventory, SiteLocation, StorageSite
from datamodel.permissions import ALL_GRANTS, Grant
from datamodel.rows import database_now, insert_artifact
from datamodel.rules import ArtifactRow
from datamodel.sealing import seal
from global_inventory.locate.freshness import questions
from global_inventory.sites.queries import site_table_cache
from tests.factories import artifact_row
from tests.fakes.site import FakeSite, fake_site
from tests.ports import free_port
from tests.servers import test_server_location as server_location

PROJECT = Path(__file__).parents[2]
VERIFIED_AT = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
Pair = tuple[RemoteInventory, RemoteInventory]


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


def with_token(remote: RemoteInventory) -> RemoteInventory:
    remote.token = seal(f"token-of-{remote.name}".encode())
    remote.save()
    return remote


def confirm(site: FakeSite, row: ArtifactRow, *, verified_at: datetime = VERIFIED_AT, **changes: object) -> None:
    """The site says that it holds the artifact, verified at that time."""
    site.verified[row.uri] = {
        "uri": row.uri,
        "id": str(row.id),
        "contentChecksum": row.content_checksum,
        "contentSha256": None,
        "contentLength": row.content_length,
        "verifiedAt": verified_at.isoformat(timespec="milliseconds"),
        **changes,
    }


@pytest.fixture
def pair(federation: Federation, alpha: FakeSite, beta: FakeSite) -> tuple[RemoteInventory, RemoteInventory]:
    """Two sites with tokens."""
    return with_token(federation.add_site("alpha", alpha.url)), with_token(federation.add_site("beta", beta.url))


@pytest.fixture
def port(federation: Federation, tmp_path: Path) -> Iterator[int]:
    """Of a global over the test database."""
    port = free_port()
    servers = server_location().environment
    database = urlsplit(servers["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    environment = os.environ | servers
    environment |= {
        "DJANGO_SETTINGS_MODULE": "global_inventory.settings",
        "DATABASE_URL": database,
        "INVENTORY_ROLE": "global",
        "INVENTORY_BIND": f"127.0.0.1:{port}",
    }
    argv = [sys.executable, "-m", "gunicorn", "-c", "python:datamodel.webserver", "global_inventory.wsgi"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=PROJECT, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (tmp_path / "log").read_text()
            threading.Event().wait(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(30)
