"""A process that has loaded the libraries of our services once, and becomes any of them by forking: the import is most of a start.

What is loaded depends on no setting, so that copies can be of any role. A copy waits until its supervisor has written it down,
and ends by itself if the supervisor dies before. Requests and answers are Unix messages: one JSON object with two pipes.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# Whose value is in the environment of every copy and of what it starts in turn.
MARK_VARIABLE = "INVENTORY_DEMO_MARK"
_MESSAGE_BYTES = 128 * 1024
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
class Program:
    """What to run, where, and where its output goes. `argv[0]` is a program; Python's own is not executed but forked."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    directory: Path
    log: Path

    @property
    def message(self) -> bytes:
        """Raises ValueError if it is too large to send."""
        facts = [self.name, list(self.argv), dict(self.environment), str(self.directory), str(self.log)]
        message = json.dumps(facts).encode()
        if len(message) > _MESSAGE_BYTES:
            raise ValueError(f"the environment of {self.name} is too large")
        return message

    @classmethod
    def of(cls, message: bytes) -> Program:
        name, argv, environment, directory, log = json.loads(message)
        return cls(name, argv, environment, Path(directory), Path(log))


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

    def start(self) -> None:
        """Let the libraries be loaded while something else is done."""
        with self._lock:
            self._started()

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
                    socket.send_fds(self._started(), [message], [gate, report])
            except OSError:
                os.close(release)
                os.close(status)
                raise
        return Child(release, status)

    def close(self) -> None:
        """End the process; its copies go on."""
        with self._lock:
            if self._process is not None and self._requests is not None:
                self._requests.close()
                self._process.wait()
            self._process = self._requests = None

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


def serve(requests: socket.socket) -> tuple[Program, int] | None:
    """Fork for every request until there are none, and say how each copy ended. In a copy: its program and its gate."""
    reports: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    _report_end(*reports.pop(key.fd))
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    continue
                message, pipes, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 2)
                if not message:
                    return None
                gate, report = pipes
                pid = os.fork()
                if not pid:
                    return Program.of(message), gate
                os.close(gate)
                os.write(report, b"%d\n" % pid)
                descriptor = os.pidfd_open(pid)
                reports[descriptor] = pid, report
                selector.register(descriptor, selectors.EVENT_READ)


def _report_end(pid: int, report: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        os.write(report, b"%d\n" % code)
    os.close(report)


def become(program: Program, gate: int) -> None:
    """Run the program in this process once it is released; returns when a Python program has."""
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
    mark = os.environ[MARK_VARIABLE]
    os.environ.clear()
    os.environ.update({**program.environment, MARK_VARIABLE: mark})
    if program.argv[0] != sys.executable:
        os.execvp(program.argv[0], list(program.argv))  # noqa: S606  # an argv of the demo's own, without a shell
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


def main(descriptor: int) -> None:
    """Load the libraries, then serve; one that cannot be loaded is loaded by who needs it, who then says why."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with socket.socket(fileno=descriptor) as requests:
        copy = serve(requests)
        if copy is not None:
            # Its descriptors are closed with all others.
            requests.detach()
    if copy is not None:
        become(*copy)


if __name__ == "__main__":
    main(int(sys.argv[1]))
