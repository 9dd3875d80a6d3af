"""What the demo runs: a global inventory and two sites, each with its own servers, from nothing to ready."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from datamodel import embedded
from harvest.demo import pairs
from harvest.demo.forkserver import Program
from harvest.demo.groups import Group
from harvest.demo.pairs import Side
from harvest.demo.records import DemoError, Secrets, replace_file
from harvest.demo.servers import Servers
from harvest.demo.supervisor import Report, Service, Supervisor, port_is_free

PROJECT = Path(__file__).resolve().parents[2]
GLOBAL, ALPHA, BETA = "global", "alpha", "beta"
ADMIN_USER = "admin"
# Beta wants the first from the beginning; the second it learns to want while it runs.
KEPT, LATER, EVERYTHING = "demo:kept/", "demo:later/", "demo:"
READY_SECONDS = 120.0
FREE_BYTES = 512 * 1024 * 1024
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.1
# What is stopped first: who decides and carries, who listens, who answers.
_STOP_ORDER = (("celery", "dramatiq"), ("listen", "provision"), ("web",))
_SETTINGS = ("INVENTORY_", "DATABASE_URL", "REDIS_URL", "DJANGO_", "GUNICORN_", "CELERY_", "dramatiq_", "PYTEST_")

_CONTACT = re.compile(r'^inventory_harvest_contact_age_seconds\{remote="([^"]+)"\}', re.MULTILINE)

_http = urllib3.PoolManager(timeout=urllib3.Timeout(2), retries=False)


@dataclass(frozen=True, slots=True)
class Inventory:
    """One inventory of the federation, before it runs."""

    name: str
    role: str
    port: int
    directory: Path
    policy: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """What its processes are told instead, or besides."""

    @property
    def base_path(self) -> str:
        return f"/{self.name}"

    @property
    def url(self) -> str:
        """Its base URL, with the base path."""
        return f"http://127.0.0.1:{self.port}{self.base_path}"

    @property
    def servers(self) -> Path:
        """The directory of its PostgreSQL and Redis."""
        return self.directory / "servers"

    @property
    def variables(self) -> Path:
        """The file from which a shell takes its environment, to run `manage.py` for it."""
        return self.directory / "environment"

    def remote(self) -> dict[str, str]:
        """How its peers are told of it, whom they are then paired with."""
        return {"name": self.name, "role": self.role, "url": self.url}


def usual_inventories(directory: Path, port: int) -> list[Inventory]:
    """The global, alpha that takes what it is given, and beta that pulls what its policy wants."""
    return [
        Inventory(GLOBAL, "global", port, directory / GLOBAL),
        Inventory(ALPHA, "site", port + 1, directory / ALPHA),
        Inventory(BETA, "site", port + 2, directory / BETA, policy=(KEPT,)),
    ]


def environment(inventory: Inventory, remotes: Iterable[Inventory], known: Secrets) -> dict[str, str]:
    """Everything that the processes of an inventory are told; nothing of our own configuration reaches them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    return inherited | own_variables(inventory, remotes, known)


def own_variables(inventory: Inventory, remotes: Iterable[Inventory], known: Secrets) -> dict[str, str]:
    """What makes an environment that of this inventory."""
    policy = [{"namespace": namespace, "wanted": True, "priority": 0} for namespace in inventory.policy]
    settings = {
        "INVENTORY_ROLE": inventory.role,
        "INVENTORY_NAME": inventory.name,
        "INVENTORY_BASE_PATH": inventory.base_path,
        "INVENTORY_PUBLIC_URL": inventory.url,
        "INVENTORY_BIND": f"127.0.0.1:{inventory.port}",
        "INVENTORY_SECRET_KEY": known.keys[inventory.name],
        "INVENTORY_OPERATOR_TOKEN": known.token,
        "INVENTORY_REMOTES": json.dumps([remote.remote() for remote in remotes]),
        "INVENTORY_ADMIN_USER": ADMIN_USER,
        "INVENTORY_ADMIN_PASSWORD": known.admin_password,
        "INVENTORY_NAMESPACES": ",".join(inventory.namespaces),
        "INVENTORY_GRACEFUL_SECONDS": "5",
        # Whoever kills a worker here wants to see what happens then.
        "INVENTORY_HARVEST_LEASE_SECONDS": "15",
        # A demo is small, and its disk may be.
        "INVENTORY_SYNC_FREE_BYTES": str(FREE_BYTES // 4),
        "INVENTORY_PUT_FREE_BYTES": str(FREE_BYTES // 8),
        "PYTHONUNBUFFERED": "1",
    }
    if inventory.role == "site":
        settings |= {
            "INVENTORY_STORAGE_DIR": str(inventory.directory / "storage"),
            "INVENTORY_RESOURCE_ID": f"ivo://demo.inventory/{inventory.name}",
            "INVENTORY_SYNC_POLICY": json.dumps(policy),
            "INVENTORY_SYNC_LEASE_SECONDS": "15",
        }
    return embedded.location(inventory.servers).environment | settings | dict(inventory.settings)


def services(inventory: Inventory, variables: dict[str, str], logs: Path) -> dict[str, Service]:
    """The processes of an inventory; `provision` ends by itself."""
    package = "site_service" if inventory.role == "site" else "global_inventory"
    schedule = str(inventory.directory / "beat-schedule")
    celery = [
        "-m",
        "celery",
        "-A",
        f"{package}.celery",
        "worker",
        "-B",
        "-s",
        schedule,
        "--concurrency",
        "2",
        "-l",
        "INFO",
    ]
    quick = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-n", f"{inventory.name}@demo"]
    programs = {
        "provision": ["manage.py", "provision"],
        # As `manage.py serve` would, without loading everything twice: its checks have been made by provision.
        "web": ["-m", "gunicorn", "-c", "python:datamodel.webserver", f"{package}.wsgi:application"],
        "celery": [*celery, *quick],
        "listen": ["manage.py", "listen"],
    }
    modules = [f"{package}.{module}" for module in ("wsgi", "urls", "celery")]
    if inventory.role == "site":
        programs["dramatiq"] = ["-m", "dramatiq", "site_service.broker", "--processes", "2", "--threads", "4"]
    announces = {"celery": "ready.", "dramatiq": "ready for action"}
    return {
        kind: Service(
            Program(
                name=f"{inventory.name}-{kind}",
                argv=[sys.executable, *argv],
                environment=variables,
                directory=PROJECT,
                log=logs / f"{inventory.name}-{kind}.log",
                modules=modules,
            ),
            port=inventory.port if kind == "web" else None,
            announces=announces.get(kind, ""),
        )
        for kind, argv in programs.items()
    }


def neighbours(inventory: Inventory, everybody: Iterable[Inventory]) -> list[Inventory]:
    """Whom an inventory is told of: a site its globals, a global its sites."""
    return [other for other in everybody if other.role != inventory.role]


class Federation:
    """Inventories of one state directory as running processes; the directory's lock must be held."""

    def __init__(self, directory: Path, inventories: list[Inventory], report: Report) -> None:
        self.inventories = inventories
        self.secrets = Secrets.of(directory, [inventory.name for inventory in inventories])
        self._logs = directory / "logs"
        self._supervisor = Supervisor(directory, secrets.token_hex(16), report)
        self._servers = Servers(report)
        self._running: set[str] = set()

    def start(self, stopping: threading.Event) -> None:
        """All inventories from nothing, or from whatever an earlier demo left, to ready.

        Raises DemoError, EmbeddedError or OSError, also when `stopping` is set meanwhile; call `stop` then too.
        """
        self._supervisor.prepare(self._services(inventory)["web"] for inventory in self.inventories)
        self._supervisor.end_left_behind(_GRACE_SECONDS)
        for inventory in self.inventories:
            if not port_is_free(inventory.port):
                raise DemoError(f"port {inventory.port} (for {inventory.name}) is in use: choose others with --port")
        self.launch(self.inventories, stopping)
        self.await_ready(self.inventories, stopping)

    def launch(self, inventories: Sequence[Inventory], stopping: threading.Event) -> None:
        """Start the processes of these inventories, without waiting until they are ready. Raises as `start`.

        Who runs is paired while workers and listeners start.
        """
        self._servers.create([inventory.servers for inventory in inventories])
        with ThreadPoolExecutor(len(inventories)) as executor:
            for outcome in [executor.submit(self._start, inventory, stopping) for inventory in inventories]:
                outcome.result()
        self._running |= {inventory.name for inventory in inventories}
        self._pair(inventories, stopping)

    def _pair(self, inventories: Sequence[Inventory], stopping: threading.Event) -> None:
        """Whoever is new with everybody who runs: globals invite, sites accept."""
        running = [inventory for inventory in self.inventories if inventory.name in self._running]
        pairs.pair_all(
            (
                (self._side(one), self._side(other))
                for one in running
                if one.role == GLOBAL
                for other in neighbours(one, running)
                if one in inventories or other in inventories
            ),
            stopping,
        )

    def _side(self, inventory: Inventory) -> Side:
        return Side(inventory.name, inventory.role, inventory.url, self.secrets.token)

    def _start(self, inventory: Inventory, stopping: threading.Event) -> None:
        inventory.directory.mkdir(exist_ok=True)
        own = own_variables(inventory, neighbours(inventory, self.inventories), self.secrets)
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(own.items())]
        replace_file(inventory.variables, "".join(lines))
        self._servers.start(inventory.servers)
        kept = self._services(inventory)
        if not stopping.is_set():
            self._supervisor.run(kept.pop("provision"))
        for service in kept.values():
            if not stopping.is_set():
                self._supervisor.start(service)

    def _services(self, inventory: Inventory) -> dict[str, Service]:
        variables = environment(inventory, neighbours(inventory, self.inventories), self.secrets)
        return services(inventory, variables, self._logs)

    def await_ready(self, inventories: Sequence[Inventory], stopping: threading.Event) -> None:
        """Until all services have connected and these inventories answer and have met. Raises DemoError."""
        deadline = time.monotonic() + READY_SECONDS
        while waiting := self._unready(inventories):
            if stopping.is_set():
                raise DemoError("stopped before the services were ready")
            if time.monotonic() > deadline:
                reasons = "; ".join(f"{name}: {reason}" for name, reason in waiting.items())
                raise DemoError(f"not ready after {READY_SECONDS:.0f} s: {reasons} (logs: {self._logs})")
            stopping.wait(_LOOK_SECONDS)

    def _unready(self, inventories: Sequence[Inventory]) -> dict[str, str]:
        waiting = dict.fromkeys(self._supervisor.unconnected(), "it is not connected")
        for inventory in inventories:
            peers = {peer.name for peer in neighbours(inventory, inventories)}
            if reason := unreadiness(inventory.url) or strangers(inventory.url, self.secrets.token, peers):
                waiting[inventory.name] = reason
        return waiting

    def groups(self) -> dict[str, Group]:
        """The process group of each service, as it runs now."""
        return self._supervisor.groups()

    def stop(self, *inventories: Inventory) -> None:
        """End these inventories, or all: workers, listeners, web, servers.

        Whatever goes wrong with one, the others are ended too. Raises the first EmbeddedError, TimeoutError or OSError.
        """
        ending = inventories or tuple(self.inventories)
        self._running -= {inventory.name for inventory in ending}
        with contextlib.ExitStack() as tiers:
            # Of a stack the last is first, and each is called even if those before it failed.
            if not inventories:
                tiers.callback(self._supervisor.close)
            tiers.callback(self._servers.stop, [inventory.servers for inventory in ending])
            for kinds in reversed(_STOP_ORDER):
                names = [f"{inventory.name}-{kind}" for inventory in ending for kind in kinds]
                tiers.callback(self._supervisor.stop, names, _GRACE_SECONDS)


def unreadiness(url: str) -> str:
    """Why the service at this base URL cannot work yet; "" when it can."""
    try:
        answer = _http.request("GET", f"{url}/readyz")
        return "" if answer.status == 200 else str(answer.json().get("detail", answer.status))
    except urllib3.exceptions.HTTPError:
        return "it does not answer"
    except ValueError:
        return "its answer cannot be understood"


def strangers(url: str, token: str, peers: set[str]) -> str:
    """Whom of its peers this inventory has not harvested yet, by its own metrics; "" when it knows them all."""
    try:
        answer = _http.request("GET", f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})
    except urllib3.exceptions.HTTPError:
        return "its metrics do not answer"
    known = set(_CONTACT.findall(answer.data.decode(errors="replace")))
    return f"it has not harvested {', '.join(sorted(peers - known))} yet" if peers - known else ""


def free_bytes(directory: Path) -> int:
    """The room that an ordinary user has on the disk of this directory."""
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize
