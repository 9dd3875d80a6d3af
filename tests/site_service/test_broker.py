"""The broker: its name in Redis, its explicit middleware, and the commands that operators run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pytest_django import Settings

from datamodel.embedded import EmbeddedServers
from site_service.broker import broker

PROJECT = Path(__file__).parents[2]


def run(*argv: str, servers: EmbeddedServers) -> str:
    environment = {**os.environ, **servers.environment, "INVENTORY_ROLE": "site", "INVENTORY_SECRET_KEY": "x" * 50}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, *argv], cwd=PROJECT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_queues_of_several_inventories_never_meet(settings: Settings) -> None:
    assert broker.namespace == f"{settings.INVENTORY_NAME}:dramatiq"


def test_middleware_is_explicit() -> None:
    names = [type(middleware).__name__ for middleware in broker.middleware]
    assert "Prometheus" not in names
    assert {"AgeLimit", "TimeLimit", "Retries", "DatabaseConnections", "Memory"} <= set(names)


def test_every_actor_has_a_time_limit_of_its_own() -> None:
    assert broker.actors
    assert all("time_limit" in actor.options for actor in broker.actors.values())


def test_worker_module_starts_django_and_knows_the_actors(servers: EmbeddedServers) -> None:
    found = run("-c", "import site_service.broker as b; print(*sorted(b.broker.actors))", servers=servers)
    assert {"purge_retired", "remove_obsolete", "follow_facts"} <= set(found.split())


def test_celery_finds_the_app_and_its_tasks(servers: EmbeddedServers) -> None:
    program = "from celery.app.utils import find_app; app = find_app('site_service'); app.loader.import_default_modules(); print(*app.tasks)"
    tasks = set(run("-c", program, servers=servers).split())
    assert {"site_service.files.tasks.sweep_transactions", "site_service.retention.tasks.enqueue_removals"} <= tasks
