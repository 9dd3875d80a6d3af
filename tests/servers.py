"""One embedded PostgreSQL and Redis for each test process (each worker of xdist); removed when it ends.

How the parts fit:

- `tests/settings.py` takes its URLs from `test_server_location()`, which starts nothing: type checking, `manage.py check`
  and the controlling process of xdist import settings and need no server.
- A session fixture starts the pair when the first test needs it, and Django's own hook asks for it before the test
  database is made, so that a run of pure tests starts nothing and the controller (it runs no fixture) never does:

      @pytest.fixture(scope="session")
      def servers() -> Iterator[EmbeddedServers]:
          yield start_test_servers()
          stop_test_servers()

      @pytest.fixture(scope="session")
      def django_db_modify_db_settings(servers: EmbeddedServers) -> None: ...

  (This replaces the hook of pytest-django that gives each worker a database name of its own: each has its own cluster.)
- Children of a test process find its pair through INVENTORY_TEST_SERVERS.
- A pair whose test process was killed is stopped and removed by the next run.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
from pathlib import Path
from tempfile import gettempdir

from datamodel import embedded
from datamodel.clusters import EmbeddedError
from datamodel.embedded import EmbeddedServers

_VARIABLE = "INVENTORY_TEST_SERVERS"


def test_server_location() -> EmbeddedServers:
    """Where the pair of this test process is or will be; the same before and after the start."""
    return embedded.location(_directory())


def start_test_servers() -> EmbeddedServers:
    """Start the pair of this test process; a repeat returns it. Raises EmbeddedError."""
    directory = _directory()
    _root().mkdir(mode=0o700, exist_ok=True)
    if _root().lstat().st_uid != os.geteuid():
        raise EmbeddedError(f"{_root()} belongs to another user: set TMPDIR.")
    _remove_abandoned()
    servers = embedded.start(directory, durable=False)
    os.environ[_VARIABLE] = str(directory)
    atexit.register(stop_test_servers)
    return servers


def stop_test_servers() -> None:
    """Stop and remove what this process started; a child that inherited the pair leaves it alone."""
    if _owner(_directory()) == os.getpid():
        _remove(_directory())
        os.environ.pop(_VARIABLE, None)


def _root() -> Path:
    return Path(gettempdir()) / f"inventory-tests-{os.geteuid()}"


def _directory() -> Path:
    inherited = os.environ.get(_VARIABLE)
    return Path(inherited) if inherited else _root() / f"{os.getpid()}-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"


def _owner(directory: Path) -> int:
    return int(directory.name.partition("-")[0])


def _remove_abandoned() -> None:
    for directory in _root().iterdir():
        if not Path(f"/proc/{_owner(directory)}").exists():
            _remove(directory)


def _remove(directory: Path) -> None:
    # An immediate shutdown writes nothing of what is thrown away.
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((directory / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGQUIT)
    # Another worker may be removing it too.
    with contextlib.suppress(EmbeddedError):
        embedded.stop(directory)
    shutil.rmtree(directory, ignore_errors=True)
