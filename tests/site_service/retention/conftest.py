"""A site with copies, and a global that says whether they may go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from django.db import connection

from datamodel import operations
from datamodel.models import RemoteInventory, StorageSite
from datamodel.rules import ArtifactRow
from datamodel.sealing import seal
from datamodel.uris import ArtifactUri, Namespace
from site_service.retention import retire
from site_service.retention.models import CopyRelease, RetireRun
from tests.factories import new_content
from tests.fakes.releasing import FakeReleasing, fake_releasing

NAMESPACE = "cadc:TEST/"


def meet(inventory: FakeReleasing, name: str = "global") -> None:
    """From now on the site knows this global."""
    RemoteInventory.objects.create(name=name, role="global", url=inventory.url, token=seal(f"for-{name}".encode()))


@pytest.fixture
def inventory_of_all(site: StorageSite) -> Iterator[FakeReleasing]:
    """The one global of the site."""
    with fake_releasing() as inventory:
        meet(inventory)
        yield inventory


@pytest.fixture
def second_global(site: StorageSite) -> Iterator[FakeReleasing]:
    """Another one, not met yet."""
    with fake_releasing() as inventory:
        yield inventory


@dataclass(frozen=True)
class Copies:
    """What is stored at the site."""

    def store(self, uri: str = f"{NAMESPACE}1", data: bytes | None = None) -> ArtifactRow:
        content = new_content(uri.encode() if data is None else data)
        return operations.record_stored(uri=ArtifactUri.parse(uri), content=content).artifact

    def fill(self, count: int, namespace: str = NAMESPACE) -> list[ArtifactRow]:
        return [self.store(f"{namespace}{number:04}") for number in range(count)]


@pytest.fixture
def copies(site: StorageSite) -> Copies:
    return Copies()


def begin(namespace: str = NAMESPACE) -> RetireRun:
    return retire.begin_run(namespace=Namespace(namespace), reason="full", started_by="jane")


def advance_to_the_end() -> None:
    while retire.advance(seconds=30):
        pass


def retired(namespace: str = NAMESPACE) -> RetireRun:
    """A run, carried on until nothing can be done now."""
    run = begin(namespace)
    advance_to_the_end()
    run.refresh_from_db()
    return run


def let_time_pass() -> None:
    """Everything that waits is due."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE copy_release SET next_try_at = inventory_now()")


def outcomes(run: RetireRun) -> dict[str, str]:
    """By uri: the state and, if there is one, the reason."""
    rows = CopyRelease.objects.filter(run=run).order_by("uri").values_list("uri", "state", "reason")
    return {uri: f"{state} {reason}".rstrip() for uri, state, reason in rows}
