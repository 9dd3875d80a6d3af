"""The contracts in pyproject.toml, which `make check` asks, see what they should see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.architecture.source import PACKAGES, PROJECT

PLANTED = {
    "datamodel/tasks.py": "",
    "datamodel/rules.py": "import django",
    "datamodel/models/site.py": "import datamodel.operations",
    "datamodel/operations.py": "import datamodel.tasks",
    "datamodel/queries.py": "import urllib3",
    "datamodel/pages.py": "import allauth",
    "datamodel/uris.py": "import harvest.apps",
    "harvest/rules.py": "import celery",
    "harvest/apps.py": "import global_inventory.apps",
    "site_service/apps.py": "import dramatiq",
    "site_service/storage/contract.py": "import site_service.files",
    "global_inventory/apps.py": "import site_service.apps",
    "global_inventory/locate/urls.py": "import rest_framework, boto3, datamodel.embedded",
    "global_inventory/sites/apps.py": "import global_inventory.locate",
}


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(directory), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_contract_names_a_violation_planted_in_a_copy(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    for name, line in PLANTED.items():
        target = tmp_path / name
        kept = target.read_text(encoding="utf-8") if target.exists() else ""
        target.write_text(f"{kept}\n{line}\n", encoding="utf-8")
    outcome = lint(tmp_path)
    assert outcome.returncode != 0
    verdicts = re.findall(r"^(.*) (KEPT|BROKEN)(?: \(.*\))?$", outcome.stdout, re.MULTILINE)
    contracts = (PROJECT / "pyproject.toml").read_text(encoding="utf-8").count("[[tool.importlinter.contracts]]")
    assert len(verdicts) == contracts
    assert [name for name, verdict in verdicts if verdict == "KEPT"] == []
    for name in filter(PLANTED.get, PLANTED):
        assert name.removesuffix(".py").replace("/", ".") in outcome.stdout
