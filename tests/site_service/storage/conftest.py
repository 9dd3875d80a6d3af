"""A POSIX store in a temporary directory, and how to look into it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from site_service.storage.contract import ContentFacts, StoredObject
from site_service.storage.filesystem import FilesystemStore

MIB = 1024 * 1024
CONTENT = b"x" * 5000
FACTS = ContentFacts(uuid.UUID(int=1), "cadc:TEST/a.fits", "application/fits")
OTHER_FACTS = ContentFacts(uuid.UUID(int=2), "cadc:TEST/b.fits")
PROJECT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> FilesystemStore:
    return FilesystemStore.create(root)


def tomorrow() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def files(root: Path) -> set[str]:
    """Every file of the store except its mark."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - {"store.json"}


def place(stored: StoredObject) -> str:
    return f"objects/{stored.storage_bucket}/{stored.storage_id}"


def read(store: FilesystemStore, stored: StoredObject) -> bytes:
    with store.open(stored.storage_id, expected_length=stored.length) as reader:
        return reader.read()
