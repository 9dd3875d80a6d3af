"""Real Dramatiq workers of this site in child processes, over the test database, the test Redis and a store on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from site_service.storage.filesystem import FilesystemStore
from tests.site_service.server import PROJECT, site_environment


@dataclass(slots=True)
class SyncWorker:
    """`dramatiq site_service.broker`, as in production."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def storage(self) -> Path:
        return self.directory / "storage"

    @property
    def log(self) -> str:
        return (self.directory / "dramatiq.log").read_text()

    def start(self) -> None:
        FilesystemStore.create(self.storage)
        argv = [sys.executable, "-m", "dramatiq", "site_service.broker", "--processes", "1", "--threads", "2"]
        with (self.directory / "dramatiq.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, "--worker-shutdown-timeout", "5000"],
                cwd=PROJECT,
                env=self.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """kill -9 of the master and its workers at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def terminate(self) -> None:
        """SIGTERM to the master alone, as a supervisor or a container's end sends it; workers that get a second one just die."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def environment(self) -> dict[str, str]:
        return {
            **site_environment(self.storage),
            "INVENTORY_NAME": settings.INVENTORY_NAME,
            "INVENTORY_PUBLIC_URL": settings.INVENTORY_PUBLIC_URL,
            "INVENTORY_SYNC_FREE_BYTES": "0",
        }


def wait_for(condition: Callable[[], bool], what: str, worker: SyncWorker, seconds: float = 30) -> None:
    """Look until it holds; with the worker's log if it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen:\n{worker.log}")
        time.sleep(0.02)
