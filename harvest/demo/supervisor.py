"""Keeps services running: each in a process group of its own, recorded, restarted visibly, and stopped in order.

A group is on record before its program starts: the process waits until the record is written, and ends by itself if the
supervisor dies before. So whatever a killed supervisor leaves is found by the next one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harvest.demo import groups
from harvest.demo.forkserver import Child, ForkServer, Program
from harvest.demo.groups import Group
from harvest.demo.records import DemoError, Records

_STEADY_SECONDS = 10.0
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 15.0
_PORT_SECONDS = 30.0
_TAIL_LINES = 5
_LOG_BYTES = 16 * 1024 * 1024

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Service:
    """One program to keep running. `announces` is what it writes to its log once it is connected."""

    program: Program
    port: int | None = None
    announces: str = ""

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def log(self) -> Path:
        return self.program.log


def next_delay(delay: float, lived: float) -> float:
    """How long to wait before a restart: at once after a long life, else longer each time."""
    if lived >= _STEADY_SECONDS:
        return 0.0
    return min(max(2 * delay, _FIRST_DELAY), _LONGEST_DELAY)


def port_is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """The last lines of a log."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        return "\n".join(file.read().decode(errors="replace").rstrip().splitlines()[-lines:])
    return ""


class _Kept:
    """One service and the thread that keeps it."""

    def __init__(self, service: Service, forkserver: ForkServer, records: Records, mark: str, report: Report) -> None:
        self.service = service
        self._forkserver = forkserver
        self._records = records
        self._mark = mark
        self._report = report
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._group: Group | None = None
        self._log_start = 0
        self._thread = threading.Thread(target=self._keep, name=f"keep-{service.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def is_connected(self) -> bool:
        """Whether the service has said in its log, since it was last started, what it says once it is connected."""
        if self._group is None:
            return False
        with contextlib.suppress(OSError), self.service.log.open("rb") as file:
            file.seek(self._log_start)
            return self.service.announces.encode() in file.read()
        return False

    def stop(self, grace_seconds: float) -> None:
        """End the service for good. Raises TimeoutError."""
        with self._lock:
            self._ending.set()
            group = self._group
        if group is not None:
            groups.end(group, grace_seconds)
        if self._thread.is_alive():
            self._thread.join()
        self._forget()

    def run_once(self) -> int:
        """Run a program that ends by itself; its exit code."""
        process = self._launch()
        if process is None:
            return 1
        code = process.wait()
        self._end_rest()
        self._forget()
        return code

    def _keep(self) -> None:
        delay = 0.0
        while True:
            began = time.monotonic()
            process = self._try_launch()
            if process is not None:
                code = process.wait()
                self._end_rest()
            if self._ending.is_set():
                return
            delay = next_delay(delay, lived=time.monotonic() - began)
            if process is not None:
                self._report_death(code, delay)
            if self._ending.wait(delay) or not self._await_port():
                return

    def _try_launch(self) -> Child | None:
        try:
            return self._launch()
        except OSError as error:
            self._report(f"{self.service.name} could not be started: {error}")
            return None

    def _launch(self) -> Child | None:
        service = self.service
        with self._lock:
            if self._ending.is_set():
                return None
            self._log_start = service.log.stat().st_size if service.log.exists() else 0
            child = self._forkserver.launch(service.program)
            try:
                self._group = Group.led_by(child.pid, self._mark)
                self._records.add(service.name, self._group, list(service.program.argv))
            except BaseException:
                child.abandon()
                raise
            child.release()
            return child

    def _end_rest(self) -> None:
        """What a dead leader has left must not live beside its successor."""
        if self._group is not None:
            try:
                groups.end(self._group, 0)
            except TimeoutError as error:
                self._report(f"{self.service.name}: {error}")

    def _forget(self) -> None:
        """A record that stays does no harm: its process is gone, and a full disk must not keep others from ending."""
        with contextlib.suppress(OSError):
            self._records.remove(self.service.name)

    def _report_death(self, code: int, delay: float) -> None:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        when = f"in {delay:g} s" if delay else "now"
        tells = code > 0 or delay > _FIRST_DELAY
        last = f"; the end of {self.service.log}:\n{tail(self.service.log)}" if tells else ""
        self._report(f"{self.service.name} {how}; it is restarted {when}{last}")

    def _await_port(self) -> bool:
        """Wait until the port is free; False if the service is being stopped."""
        port, complain_at = self.service.port, time.monotonic() + _PORT_SECONDS
        while port is not None and not port_is_free(port):
            if time.monotonic() > complain_at:
                self._report(f"{self.service.name} waits: port {port} is still in use")
                complain_at += _PORT_SECONDS
            if self._ending.wait(0.05):
                return False
        return not self._ending.is_set()


class Supervisor:
    """The services of one state directory."""

    def __init__(self, directory: Path, mark: str, report: Report) -> None:
        self._records = Records(directory)
        self._forkserver = ForkServer(mark)
        self._mark = mark
        self._report = report
        self._kept: dict[str, _Kept] = {}

    def prepare(self, services: Iterable[Service] = ()) -> None:
        """Load what these services need while they wait for something else. Raises OSError or ValueError."""
        self._forkserver.start(service.program for service in services)

    def close(self) -> None:
        """Call it when all services have ended."""
        self._forkserver.close()

    def end_left_behind(self, grace_seconds: float) -> None:
        """End what a killed demo left in this directory. Raises DemoError, TimeoutError."""
        left = {name: group for name, group in self._records.left_behind().items() if groups.living_members(group)}
        if left:
            self._report(f"a demo here was killed; ending what it left: {', '.join(sorted(left))}")
            with ThreadPoolExecutor(len(left)) as executor:
                list(executor.map(lambda group: groups.end(group, grace_seconds), left.values()))

    def run(self, service: Service) -> None:
        """Run a program that ends by itself. Raises DemoError with the end of its log if it fails."""
        kept = self._keeper(service)
        code = kept.run_once()
        if code:
            raise DemoError(
                f"{service.name} failed with code {code}; the end of {service.log}:\n{tail(service.log, 20)}"
            )

    def start(self, service: Service) -> None:
        """Start a program and keep it running."""
        self._keeper(service).start()

    def groups(self) -> dict[str, Group]:
        """Those of the services that run, or ran last."""
        return self._records.running()

    def unconnected(self) -> list[str]:
        """The services that have not announced themselves yet."""
        return [name for name, kept in self._kept.items() if kept.service.announces and not kept.is_connected()]

    def stop(self, names: Iterable[str], grace_seconds: float) -> None:
        """End these services together; those that outlive the grace are killed. Raises TimeoutError."""
        kept = [self._kept.pop(name) for name in list(names) if name in self._kept]
        if kept:
            with ThreadPoolExecutor(len(kept)) as executor:
                list(executor.map(lambda one: one.stop(grace_seconds), kept))

    def _keeper(self, service: Service) -> _Kept:
        service.log.parent.mkdir(parents=True, exist_ok=True)
        if service.log.exists() and service.log.stat().st_size > _LOG_BYTES:
            service.log.replace(service.log.with_suffix(".log.1"))
        kept = _Kept(service, self._forkserver, self._records, self._mark, self._report)
        self._kept[service.name] = kept
        return kept
