"""One inventory of a model test, as a process that does one act at a time: `python -m tests.model.node`.

It loads Django once and forks a copy for every act, so that a crash is what it is in production: the process is gone between
two steps, with nothing cleaned up, and its database learns it from a closed connection. The steps are SQL statements, commits, and
whatever changes the disk. A second copy is the web server, gunicorn as shipped. It is told what to do by lines of JSON on stdin:

    {"act": "put", "with": {...}, "crash": 7}   →   {"result": ...} | {"failed": "..."} | {"crashed": true}
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, TextIO

import django
from django.conf import settings
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.urls import get_resolver

# Loaded when it is first needed; every act would need it anew.
_LATE = (
    "celery.apps.task",
    "django.test.client",
    "django.contrib.auth.backends",
    "psycopg.adapt",
    "rest_framework.views",
    "tests.model.faulty",
    "urllib3.response",
)


class Steps:
    """Counts what this process does, and kills it before step number `last` (from 0)."""

    def __init__(self, last: int) -> None:
        self._left = last

    def step(self) -> None:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def count(self) -> None:
        """From now on; the process is doomed, so nothing is ever put back."""
        connections["default"].execute_wrappers.append(self._statement)
        self._before_and_after(BaseDatabaseWrapper, "commit")
        with contextlib.suppress(ImportError):
            disk = importlib.import_module("site_service.storage.disk").Disk
            for name in importlib.import_module("tests.faults").CHANGES:
                self._before_and_after(disk, name)

    def _statement(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.step()
        return execute(*arguments)

    def _before_and_after(self, owner: type, name: str) -> None:
        method = getattr(owner, name)

        def counted(this: Any, *arguments: Any) -> Any:
            self.step()
            result = method(this, *arguments)
            self.step()
            return result

        setattr(owner, name, counted)


def main() -> None:
    """Serve orders until there are no more."""
    orders, answers = sys.stdin, os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # A copy must not outlive the test: nobody reaps what it would leave behind.
    os.setpgid(0, 0)
    django.setup()
    acts = _loaded()
    server = 0
    _answer(answers, {"result": os.getpid()})
    for line in orders:
        order = json.loads(line)
        if order["act"] == "serve":
            server = _served(server)
            _answer(answers, {"result": server})
            continue
        pid = os.fork()
        if not pid:
            _act(acts, order, answers)
        if os.waitpid(pid, 0)[1]:
            _answer(answers, {"crashed": True})
    _ended(server)


def _loaded() -> ModuleType:
    for name in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert get_resolver().url_patterns
    return importlib.import_module("tests.model.acts")


def _act(acts: ModuleType, order: dict[str, Any], answers: TextIO) -> None:
    """In a copy, which ends here."""
    # One act needs one connection, not a pool with its threads.
    connections["default"].settings_dict["OPTIONS"].pop("pool", None)
    try:
        if order.get("crash") is not None:
            Steps(order["crash"]).count()
        answer = {"result": getattr(acts, order["act"])(**order["with"])}
    except BaseException:  # noqa: BLE001  # whatever it was, the test shall see it
        answer = {"failed": traceback.format_exc()}
    _answer(answers, answer)
    os._exit(0)


def _answer(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _served(former: int) -> int:
    """The process id of a new web server; the former is gone before."""
    _ended(former)
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    sys.argv = ["gunicorn", "-c", "python:datamodel.webserver", "tests.model.faulty:application"]
    importlib.import_module("gunicorn.app.wsgiapp").run()
    os._exit(0)


def _ended(server: int) -> None:
    if server:
        # The master with its worker, as an operator's last resort: it must not need to be asked nicely.
        os.killpg(server, signal.SIGKILL)
        os.waitpid(server, 0)


if __name__ == "__main__":
    assert settings.INVENTORY_ROLE
    main()
