"""Process groups of this machine by /proc: who is in one, whether a recorded one still lives, and how to end it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_DEAD = frozenset("ZX")
_LOOK_SECONDS = 0.02
# How long the kernel may need to end what was sent SIGKILL.
_KILLED_SECONDS = 10.0
# How long members without their leader get for their own clean-up.
_ORPHANS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Group:
    """A process that leads a session and group of its own; the start time tells it from a later process of that number.

    `mark` is a word in the environment of all its members.
    """

    pid: int
    started: int
    boot: str
    mark: str

    @classmethod
    def led_by(cls, pid: int, mark: str) -> Group:
        """Raises ProcessLookupError if there is no such process."""
        status = _status(pid)
        if status is None:
            raise ProcessLookupError(f"there is no process {pid}")
        return cls(pid, status.started, boot_id(), mark)


@dataclass(frozen=True, slots=True)
class _Status:
    state: str
    group: int
    started: int


def boot_id() -> str:
    """Start times count from the boot, so a record of an earlier boot names nothing."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def living_members(group: Group) -> list[int]:
    """The processes of this group that still run; none if the number now belongs to somebody else."""
    if group.boot != boot_id():
        return []
    leader = _status(group.pid)
    if leader is not None and leader.started != group.started:
        return []
    members = [pid for pid, status in _all() if status.group == group.pid and status.state not in _DEAD]
    # While the leader lives its start time is proof; for orphans of a dead one it is the mark.
    if leader is not None and leader.state not in _DEAD:
        return members
    return [pid for pid in members if _carries(pid, group.mark)]


def end(group: Group, grace_seconds: float) -> bool:
    """Ask the leader to end, after the grace kill the whole group; True if anything was running.

    The leader alone is asked, because it ends its own children in order. Raises TimeoutError if SIGKILL does not help.
    """
    members = living_members(group)
    if not members:
        return False
    if group.pid in members:
        _send(group.pid, signal.SIGTERM)
        _wait(lambda: group.pid not in living_members(group), grace_seconds)
    elif members:
        _send_all(members, signal.SIGTERM)
        _wait(lambda: not living_members(group), min(grace_seconds, _ORPHANS_SECONDS))
    kill(group)
    return True


def kill(group: Group) -> None:
    """End every member at once. Raises TimeoutError if one does not go."""
    _send_all(living_members(group), signal.SIGKILL)
    if not _wait(lambda: not living_members(group), _KILLED_SECONDS):
        raise TimeoutError(f"the processes {living_members(group)} do not end: end them by hand.")


def _status(pid: int) -> _Status | None:
    with contextlib.suppress(OSError):
        # The name in parentheses may hold anything; what follows it is numbered from field 3.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return _Status(fields[0], int(fields[2]), int(fields[19]))
    return None


def _all() -> Iterator[tuple[int, _Status]]:
    for process in _PROC.iterdir():
        if process.name.isdigit() and (status := _status(int(process.name))) is not None:
            yield int(process.name), status


def _carries(pid: int, mark: str) -> bool:
    with contextlib.suppress(OSError):
        return mark.encode() in (_PROC / str(pid) / "environ").read_bytes()
    return False


def _send_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        _send(pid, number)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return held
