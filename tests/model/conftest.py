"""The federation that every example of a model test begins anew in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from datamodel.embedded import EmbeddedServers
from tests.model.world import World, running_world


@pytest.fixture(scope="module")
def world(
    servers: EmbeddedServers,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """Three inventories that know each other, and nothing else."""
    with django_db_blocker.unblock():
        template = connection.settings_dict["NAME"]
        connection.close()
    with running_world(tmp_path_factory.mktemp("model"), servers=servers.environment, template=template) as world:
        yield world
