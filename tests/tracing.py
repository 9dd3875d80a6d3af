"""What a running process asks of the kernel, in order: `strace` attached to it for a while."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
import pytest

_CALLS = "write,pwrite64,sendto,sendmsg,recvfrom,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat"
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_UNFINISHED = re.compile(r"(?P<rest>.*?) *<(?:unfinished|detached) \.\.\.>\)?\Z")
_ATTACH_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that has returned; descriptors are told with their paths."""

    thread: int
    name: str
    arguments: str
    result: int


@dataclass(slots=True)
class Trace:
    """Filled when the block is over: the calls of each thread in the order in which it made them."""

    calls: list[Call] = field(default_factory=list)

    def thread_of(self, name: str, words: str) -> list[Call]:
        """All calls of the one thread that made such a call."""
        threads = {call.thread for call in self.calls if call.name == name and words in call.arguments}
        assert len(threads) == 1, (name, words, threads)
        return [call for call in self.calls if call.thread in threads]


@contextmanager
def traced(master: int) -> Iterator[Trace]:
    """Watch the children of a process (all their threads) while the block runs. Skips the test where that is not possible."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed (Debian package strace): the order of durability is not proven here")
    pids = [child.pid for child in psutil.Process(master).children(recursive=True)]
    argv = [program, "-f", "-y", "-s", "4096", "-e", f"trace={_CALLS}", "-e", "signal=none"]
    for pid in pids:
        argv += ["-p", str(pid)]
    trace = Trace()
    # Not a pipe: a full one would stop strace, and with it whom it watches.
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output)
        try:
            _await_attached(process, pids, output)
            yield trace
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=_ATTACH_SECONDS)
        trace.calls.extend(_calls(_text_of(output)))


def _text_of(output: IO[str]) -> str:
    output.seek(0)
    return output.read()


def _await_attached(process: subprocess.Popen[bytes], pids: list[int], output: IO[str]) -> None:
    """Every thread is traced when the kernel says so; strace's own word comes before the last of them."""
    deadline = time.monotonic() + _ATTACH_SECONDS
    while not all(_is_traced(task) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()):
        if process.poll() is not None:
            pytest.skip(f"strace may not trace here (ptrace is not allowed?): {_text_of(output).strip()}")
        assert time.monotonic() < deadline, "strace does not attach"
        time.sleep(0.01)


def _is_traced(task: Path) -> bool:
    try:
        return "TracerPid:\t0" not in (task / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def _calls(text: str) -> Iterator[Call]:
    begun: dict[int, str] = {}
    for line in text.splitlines():
        words = re.match(r"(?:\[pid +(\d+)\] )?(.*)", line)
        assert words is not None
        thread, rest = int(words[1] or 0), words[2]
        if resumed := _RESUMED.match(rest):
            rest = begun.pop(thread, "") + resumed["rest"]
        if unfinished := _UNFINISHED.match(rest):
            begun[thread] = unfinished["rest"]
        elif found := _CALL.match(rest):
            yield Call(thread, found["name"], found["arguments"], int(found["result"]))
    # What was still under way when we left: whoever it spoke to may have been faster than its own return.
    for thread, rest in begun.items():
        if found := _CALL.match(f"{rest}) = 0"):
            yield Call(thread, found["name"], found["arguments"], 0)
