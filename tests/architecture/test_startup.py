"""What programs load when they start: pages are for who serves them, and Django's models for who stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.architecture.source import PROJECT

WORKER = "from celery.app.utils import find_app; find_app({package!r}).loader.import_default_modules()"


def loaded_by(program: str) -> set[str]:
    """Names of the modules that it has loaded at its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "CELERY_"))}
    environment.pop("INVENTORY_ROLE", None)
    argv = [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"]
    done = subprocess.run(argv, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["site_service", "global_inventory"])
def test_a_celery_worker_loads_its_tasks_and_no_pages(package: str) -> None:
    loaded = loaded_by(WORKER.format(package=package))
    assert "harvest.tasks" in loaded
    assert not loaded & {f"{package}.urls", "datamodel.admin"}


def test_a_command_that_becomes_another_process_loads_no_models() -> None:
    assert "django.db.models" not in loaded_by("import manage, datamodel.management.commands.serve")
