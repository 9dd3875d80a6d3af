"""A store per test, callers, and a real server per test process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from datamodel.auth import create_api_token
from datamodel.models import StorageSite
from datamodel.permissions import ALL_GRANTS
from site_service.storage import registry
from site_service.storage.contract import ArtifactStore
from site_service.storage.filesystem import FilesystemStore
from tests.ports import free_port
from tests.site_service.server import SiteProcess

TOKEN = "everything-" + "t" * 32


@pytest.fixture
def store(tmp_path: Path, settings: Settings) -> Iterator[ArtifactStore]:
    """A new file system store, and the one that the views use."""
    options = {"root": str(tmp_path / "storage")}
    FilesystemStore.create(tmp_path / "storage")
    settings.STORAGES = {
        **settings.STORAGES,
        "artifacts": {"BACKEND": "site_service.storage.filesystem.FilesystemStore", "OPTIONS": options},
    }
    settings.INVENTORY_PUT_FREE_BYTES = 0
    registry.get_store.cache_clear()
    yield registry.get_store()
    registry.get_store.cache_clear()


@pytest.fixture
def token(site: StorageSite) -> str:
    """A bearer token that may do everything here."""
    return create_api_token(name="everything", grants=ALL_GRANTS, now=datetime.now(UTC), token=TOKEN)


@pytest.fixture
def client(store: ArtifactStore, token: str) -> Client:
    """Django's test client, with that token."""
    return Client(headers={"authorization": f"Bearer {token}"})


@pytest.fixture(scope="session")
def running_site(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteProcess]:
    """One gunicorn for the tests of this process."""
    site = SiteProcess(tmp_path_factory.mktemp("site"), free_port())
    site.start()
    yield site
    site.stop()


@pytest.fixture
def live(running_site: SiteProcess, token: str) -> SiteProcess:
    """The running site over a clean database, knowing the token."""
    return running_site
