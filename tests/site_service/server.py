"""A real site: gunicorn as shipped, on a free loopback port, over the test database and a store of its own."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from django.db import connection

from site_service.storage.filesystem import FilesystemStore
from tests.servers import test_server_location

PROJECT = Path(__file__).parents[2]
START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and the whole body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def site_environment(storage: Path) -> dict[str, str]:
    """Of a process of the site over the test database."""
    servers = test_server_location().environment
    url = urlsplit(servers["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()
    return {
        **os.environ,
        **servers,
        "DJANGO_SETTINGS_MODULE": "site_service.settings",
        "DATABASE_URL": url,
        "INVENTORY_ROLE": "site",
        "INVENTORY_NAME": "alpha",
        "INVENTORY_SECRET_KEY": "for-tests-only-" + "x" * 40,
        "INVENTORY_STORAGE_DIR": str(storage),
        "INVENTORY_PUT_FREE_BYTES": "0",
    }


@dataclass(slots=True)
class SiteProcess:
    """One gunicorn; `start` again after `kill` uses the same port and store."""

    directory: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "gunicorn.log").read_text()

    def start(self) -> None:
        """Returns when it answers."""
        FilesystemStore.create(self.directory / "storage")
        argv = [sys.executable, "-m", "gunicorn", "-c", "python:datamodel.webserver", "site_service.wsgi"]
        with (self.directory / "gunicorn.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, cwd=PROJECT, env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        self._await_answer()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(START_SECONDS)

    def kill(self) -> None:
        """kill -9 of the master and its workers at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(START_SECONDS)

    def connect(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 60,
    ) -> Answer:
        """One request on a connection of its own; an iterable body is sent chunked."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            client.request(method, path, body=body, headers=dict(headers or {}))
            answer = client.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            client.close()

    def _environment(self) -> dict[str, str]:
        return {
            **site_environment(self.directory / "storage"),
            "INVENTORY_BIND": f"127.0.0.1:{self.port}",
            "INVENTORY_PUBLIC_URL": self.url,
            "INVENTORY_READ_TIMEOUT_SECONDS": "5",
            **self.environment,
        }

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the site did not start:\n{self.log}")
            try:
                self.request("OPTIONS", "/files/")
            except OSError:
                time.sleep(0.05)
            else:
                return
