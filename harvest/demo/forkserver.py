"""A process that has loaded the libraries of our services once, and becomes any of them by forking: the import is most of a start.

What is loaded first depends on no setting. For each environment with which programs are started it forks a branch: a fork server
too, which loads the application once for all its programs. A copy waits until its supervisor has written it down, and ends by itself
if the supervisor dies before. Requests are Unix messages, a JSON object each: a program comes with two pipes, a branch with a socket.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

# Whose value is in the environment of every copy and of what it starts in turn.
MARK_VARIABLE = "INVENTORY_DEMO_MARK"
_MESSAGE_BYTES = 128 * 1024
# Objects between two looks for garbage (700 is Python's own): loading an application makes objects that stay.
_GARBAGE_THRESHOLD = 20_000
_PROJECT = Path(__file__).resolve().parents[2]
# What loads most of the rest; none of them may read Django's settings when it is loaded (a test sees to that).
LIBRARIES = (
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.components",
    "celery.worker.consumer",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.ciphers.aead",
    "django.contrib.admin.options",
    "django.contrib.auth.hashers",
    "django.core.cache.backends.redis",
    "django.core.handlers.wsgi",
    "django.core.management.commands.migrate",
    "django.db.backends.postgresql.base",
    "django.test.signals",
    "django.views.debug",
    "dramatiq.brokers.redis",
    "dramatiq.cli",
    "drf_spectacular.utils",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "kombu.transport.redis",
    "prometheus_client.exposition",
    "psycopg_pool",
    "requests",
    "rest_framework.serializers",
    "urllib3.contrib",
    "whitenoise.middleware",
    "yaml",
)


@dataclass(frozen=True, slots=True)
class Application:
    """Modules of a program that read its environment when they are loaded."""

    environment: Mapping[str, str] = field(repr=False)
    modules: Sequence[str]

    @property
    def message(self) -> bytes:
        """Raises ValueError if it is too large to send."""
        return _message({"environment": dict(self.environment), "modules": list(self.modules)})

    @classmethod
    def of(cls, message: bytes) -> Self | None:
        """None if the message is a program."""
        facts = json.loads(message)
        return cls(facts["environment"], facts["modules"]) if "modules" in facts else None


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, where, and where its output goes. `argv[0]` is a program; Python's own is not executed but forked, from
    a branch that has loaded `modules` in its environment, if there are any.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    log: Path
    modules: Sequence[str] = ()

    @property
    def application(self) -> Application | None:
        """What a branch loads for it."""
        return Application(self.environment, self.modules) if self.modules else None

    @property
    def message(self) -> bytes:
        """Raises ValueError if it is too large to send."""
        facts = {"name": self.name, "argv": list(self.argv), "environment": dict(self.environment)}
        return _message(facts | {"directory": str(self.directory), "log": str(self.log)})

    @classmethod
    def of(cls, message: bytes) -> Self:
        facts = json.loads(message)
        return cls(**facts | {"directory": Path(facts["directory"]), "log": Path(facts["log"])})


def _message(facts: Mapping[str, object]) -> bytes:
    message = json.dumps(facts).encode()
    if len(message) > _MESSAGE_BYTES:
        raise ValueError("the environment of a program is too large")
    return message


class Child:
    """A copy, which waits until `release`; it leads a session of its own. If it is never released, it ends."""

    def __init__(self, gate: int, status: int) -> None:
        self._gate = os.fdopen(gate, "wb", buffering=0)
        self._status = os.fdopen(status, "rb")
        try:
            self.pid = int(self._status.readline() or 0)
            if not self.pid:
                raise ChildProcessError("the fork server has died")
        except BaseException:
            self._gate.close()
            self._status.close()
            raise

    def release(self) -> None:
        """Let it run."""
        with self._gate, contextlib.suppress(BrokenPipeError):
            self._gate.write(b"\n")

    def abandon(self) -> None:
        """Let it end without having run."""
        self._gate.close()

    def wait(self) -> int:
        """Its exit code once it has ended, negative for a signal; 255 if nobody can know."""
        with self._status:
            return int(self._status.readline() or 255)


class ForkServer:
    """The client. Starts its process when it is first needed, and again after that died."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self._branches: dict[bytes, socket.socket] = {}

    def start(self, programs: Iterable[Program] = ()) -> None:
        """Let the libraries, and what these programs load, be loaded while something else is done. Raises OSError or ValueError."""
        with self._lock:
            self._started()
            for program in programs:
                self._server(program)

    def launch(self, program: Program) -> Child:
        """A copy that will be this program once it is released. Raises OSError or ValueError."""
        message = program.message
        with contextlib.ExitStack() as ours:
            gate, release = os.pipe()
            ours.callback(os.close, gate)
            status, report = os.pipe()
            ours.callback(os.close, report)
            try:
                with self._lock:
                    self._send(program, message, [gate, report])
            except OSError:
                os.close(release)
                os.close(status)
                raise
        return Child(release, status)

    def close(self) -> None:
        """End the process and its branches; the copies go on."""
        with self._lock:
            for branch in self._branches.values():
                branch.close()
            self._branches.clear()
            if self._process is not None and self._requests is not None:
                self._requests.close()
                self._process.wait()
            self._process = self._requests = None

    def _send(self, program: Program, message: bytes, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._server(program), [message], descriptors)
        except OSError:
            # A branch that was killed is grown again.
            if program.application is None or not (branch := self._branches.pop(program.application.message, None)):
                raise
            branch.close()
            socket.send_fds(self._server(program), [message], descriptors)

    def _server(self, program: Program) -> socket.socket:
        if program.application is None:
            return self._started()
        message = program.application.message
        if message not in self._branches:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                socket.send_fds(self._started(), [message], [theirs.fileno()])
            self._branches[message] = ours
        return self._branches[message]

    def _started(self) -> socket.socket:
        if self._requests is None or self._process is None or self._process.poll() is not None:
            if self._requests is not None:
                self._requests.close()
            self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(theirs.fileno())],
                    cwd=_PROJECT,
                    # The kernel shows the environment of a copy as what its original was given.
                    env={**os.environ, MARK_VARIABLE: self._mark},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    # Ctrl-C is for the supervisor, which ends its services in order.
                    start_new_session=True,
                )
        return self._requests


# --- the process itself


def serve(requests: socket.socket) -> tuple[bytes, list[int]] | None:
    """Fork for every request until there are none, and say how each copy ended. In a copy: its request and what came with it."""
    reports: dict[int, tuple[int, list[int]]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    _report_end(*reports.pop(key.fd))
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    continue
                message, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 2)
                if not message:
                    return None
                pid = os.fork()
                if not pid:
                    return message, descriptors
                first, *report = descriptors
                os.close(first)
                for descriptor in report:
                    os.write(descriptor, b"%d\n" % pid)
                ended = os.pidfd_open(pid)
                reports[ended] = pid, report
                selector.register(ended, selectors.EVENT_READ)


def _report_end(pid: int, reports: list[int]) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    for report in reports:
        with contextlib.suppress(BrokenPipeError):
            os.write(report, b"%d\n" % code)
        os.close(report)


def become(program: Program, gate: int, failure: str) -> None:
    """Run the program in this process once it is released; returns when a Python program has.

    Its log begins with what could not be loaded for it, if anything.
    """
    os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if not os.read(gate, 1):
        return
    log = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for output in (1, 2):
        os.dup2(log, output)
    # Nothing of the fork server's own must outlive it here, least of all the pipes of other copies.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(program.directory)
    _set_environment(program.environment)
    if program.argv[0] != sys.executable:
        os.execvp(program.argv[0], list(program.argv))  # noqa: S606  # an argv of the demo's own, without a shell
    sys.stderr.write(failure)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # both are files
    # For who looks at the processes of the machine.
    Path("/proc/self/comm").write_text(program.name[:15])
    if program.argv[1] == "-m":
        sys.argv = list(program.argv[2:])
        runpy.run_module(program.argv[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(program.argv[1:])
        runpy.run_path(program.argv[1], run_name="__main__")


def _set_environment(variables: Mapping[str, str]) -> None:
    mark = os.environ[MARK_VARIABLE]
    os.environ.clear()
    os.environ.update({**variables, MARK_VARIABLE: mark})


def load(names: Iterable[str]) -> str:
    """Load these modules; why one could not be loaded, for whoever needs it."""
    # What is loaded stays: to look through it for garbage again and again would be an eighth of every start.
    gc.disable()
    failure = ""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001  # whatever it is, the program that needs the module meets it again
            failure = traceback.format_exc()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    gc.enable()
    return failure


def branch_off(application: Application, descriptor: int) -> tuple[socket.socket, str]:
    """Make of this copy a fork server for one application: where its requests come from, and what `load` says."""
    os.dup2(descriptor, 3)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    _set_environment(application.environment)
    return socket.socket(fileno=3), load(application.modules)


def main(descriptor: int) -> None:
    """Load the libraries, then serve."""
    requests, failure = socket.socket(fileno=descriptor), load(LIBRARIES)
    while copy := serve(requests):
        # Its descriptors are closed with all others.
        requests.detach()
        message, (first, *_) = copy
        if (application := Application.of(message)) is None:
            become(Program.of(message), first, failure)
            return
        requests, failure = branch_off(application, first)
    requests.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
