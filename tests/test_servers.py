"""The pair of a test process: one per process, known before it starts, removed even when the process was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datamodel import embedded

PROJECT = Path(__file__).parents[1]
START = "from tests.servers import start_test_servers, test_server_location as where; before = where(); "
START += "servers = start_test_servers(); assert before == servers == where(); print(servers.directory, flush=True); "


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The children must neither see nor clean the pair of this test process."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("INVENTORY_TEST_SERVERS", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)


def test_the_pair_is_removed_when_its_process_ends() -> None:
    outcome = run(START)
    assert outcome.returncode == 0, outcome.stderr
    assert not Path(outcome.stdout.strip()).exists()


def test_a_child_uses_the_pair_of_its_parent_and_leaves_it() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {START!r}], check=True); "
    outcome = run(
        START + child + "from datamodel import embedded; assert embedded.status(servers.directory) == servers"
    )
    assert outcome.returncode == 0, outcome.stderr
    assert len(set(outcome.stdout.split())) == 1
    assert len(outcome.stdout.split()) == 2


def test_the_pair_of_a_killed_process_is_removed_by_the_next() -> None:
    killed = run(START + f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    abandoned = Path(killed.stdout.strip())
    assert embedded.status(abandoned) is not None
    assert run(START).returncode == 0
    assert not abandoned.exists()


def test_each_worker_has_a_directory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    where = "from tests.servers import test_server_location as where; print(where().directory.name)"
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    name = run(where).stdout.strip()
    assert name.endswith("-gw1")
    assert name.split("-")[0] != str(os.getpid())
