"""Accounts, locks, asking, waiting and ending for the programs that `embedded.py` runs; knows nothing of what they serve.

Every failure here is an OSError with a message for the operator.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# The account nobody; initdb insists that its user has a name, and this one has it even in small containers.
_NOBODY = 65534
_UNSHARE = ("unshare", "-U", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}")


@dataclass(frozen=True, slots=True)
class Account:
    """As whom a program runs: PostgreSQL refuses root and the nameless; they lend it a user namespace or nobody's account."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @classmethod
    def choose(cls, directory: Path, owned: Path, program: Path) -> Account:
        """Who can run `program` in `directory`, whose content `owned` (if it exists) belongs to that account.

        Raises PermissionError if nobody fits.
        """
        if directory.stat().st_uid != os.geteuid():
            raise PermissionError("it belongs to another user: run as that user or choose another directory.")
        if os.geteuid() != 0 and _has_name(os.geteuid()):
            return cls()
        owners = {owned.stat().st_uid} if owned.exists() else {os.geteuid(), _NOBODY}
        unshared, nobody = cls(prefix=_UNSHARE), cls(uid=_NOBODY, gid=_NOBODY)
        if os.geteuid() in owners and unshared._succeeds("true"):
            return unshared
        needed = (directory, program)
        if (
            os.geteuid() == 0
            and _NOBODY in owners
            and all(nobody._succeeds("test", "-x", str(path)) for path in needed)
        ):
            return nobody
        raise PermissionError(
            f"{program.name} needs an ordinary user with a name, user namespaces are not allowed here, and root cannot "
            f"lend the account nobody, which must reach {directory} and {program}: "
            "run as an ordinary user, or set DATABASE_URL and REDIS_URL."
        )

    @property
    def owner(self) -> int:
        """Who owns what this account makes."""
        return os.geteuid() if self.uid is None else self.uid

    def own(self, path: Path) -> None:
        """Give `path` to the account."""
        if self.uid is not None:
            os.chown(path, self.uid, -1 if self.gid is None else self.gid, follow_symlinks=False)

    def make(self, directory: Path) -> None:
        """Make a directory that only the account enters."""
        directory.mkdir(mode=0o700, exist_ok=True)
        self.own(directory)

    def run(self, argv: Sequence[str], *, cwd: Path | None = None, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run to the end, or until the program has detached itself; the caller looks at the return code."""
        # Variables such as PGPORT or PGOPTIONS of the caller must not reach servers that others share.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return subprocess.run(
            [*self.prefix, *argv],
            cwd=cwd,
            input=text,
            env=environment | {"LC_ALL": "C"},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
            umask=0o077,
        )

    def _succeeds(self, *argv: str) -> bool:
        with contextlib.suppress(OSError):
            return self.run(argv).returncode == 0
        return False


def _has_name(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid).pw_name)
    return False


def works_in(pid: int, directory: Path, named: Path) -> bool:
    """Whether this process is alive (a zombie is not) and its working directory is this one.

    `named` is a path in its arguments: all that root of a container may see of another account's process.
    """
    process = Path("/proc") / str(pid)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        try:
            return (process / "cwd").readlink() == directory
        except PermissionError:
            return os.fsencode(named) in (process / "cmdline").read_bytes()
    return False


def answers(path: Path, request: bytes) -> bool:
    """Whether somebody listens on this socket and says anything to the request."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(request)
        return bool(connection.recv(1))
    return False


def end(pid: int | None, directory: Path, named: Path, signals: Sequence[signal.Signals]) -> bool:
    """Send the signals, the mildest first, until `works_in` says no; False if there is no process.

    Raises TimeoutError if it outlives the last signal by 30 seconds.
    """
    if pid is None:
        return False
    for number in signals:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not works_in(pid, directory, named), 30, "it still runs")
            return True
    raise TimeoutError(f"process {pid} does not stop: end it by hand.")


def wait_until(condition: Callable[[], bool], seconds: float, complaint: str) -> None:
    """Look at the condition until it holds. Raises TimeoutError with the complaint if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.02)


@contextlib.contextmanager
def locked(directory: Path, seconds: float) -> Iterator[None]:
    """Hold the directory's lock, which the kernel releases if this process dies. Raises TimeoutError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def taken() -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    try:
        wait_until(taken, seconds, "another process starts or stops these servers and does not end.")
        yield
    finally:
        os.close(descriptor)
