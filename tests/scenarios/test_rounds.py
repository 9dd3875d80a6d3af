"""A hundred rounds of kill -9 under load: whatever was acknowledged is there, whatever was not is old or new, never anything else."""

from __future__ import annotations

import itertools
import random
import signal
import threading
from types import TracebackType
from typing import Self

import pytest

from harvest.demo.peer import PeerError
from tests.scenarios.federation import Demo, eventually, put, read
from tests.scenarios.invariants import assert_sound
from tests.scenarios.test_faults import postmaster

pytestmark = [pytest.mark.xdist_group("federation"), pytest.mark.timeout(3600)]

ROUNDS = 100
FILES = 30
# PostgreSQL is killed, and shut down as for a restart.
POSTGRES = {"postgres": signal.SIGKILL, "postgres shut down": signal.SIGINT}
SERVICES = [
    f"{name}-{kind}"
    for name in ("alpha", "beta", "global")
    for kind in ("web", "celery", "listen", "dramatiq", *POSTGRES)
    if (name, kind) != ("global", "dramatiq")
]


class Writer:
    """Puts, replaces and deletes at alpha all the time, and remembers for each uri what may be there now (None: nothing)."""

    def __init__(self, demo: Demo, namespace: str) -> None:
        self.allowed: dict[str, set[bytes | None]] = {f"{namespace}{number}": {None} for number in range(FILES)}
        self.acknowledged = 0
        self._demo = demo
        self._random = random.Random(1)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            if self._ending.is_set():
                return
            uri = self._random.choice(list(self.allowed))
            is_deletion = self._random.random() < 0.2 and None not in self.allowed[uri]
            content = None if is_deletion else b"%d:" % number + self._random.randbytes(self._random.randrange(20_000))
            # From the moment it is sent until it is acknowledged nobody knows.
            self.allowed[uri] = self.allowed[uri] | {content}
            try:
                if content is None:
                    self._demo.alpha.delete(uri)
                else:
                    put(self._demo.alpha, uri, content)
            except PeerError:
                continue
            self.allowed[uri] = {content}
            self.acknowledged += 1


def kill(demo: Demo, service: str) -> None:
    name, _, kind = service.partition("-")
    if kind not in POSTGRES:
        demo.kill_service(service)
        return
    killed = demo.kill_postgres(name, POSTGRES[kind])
    eventually(lambda: postmaster(demo, name) not in {f"{killed}", f"{None}"}, f"PostgreSQL of {name} does not return")


@pytest.mark.long
def test_nothing_acknowledged_is_ever_lost_in_a_hundred_rounds_of_kill_9(demo: Demo) -> None:
    namespace = demo.namespace()
    with Writer(demo, namespace) as writer:
        for service in itertools.islice(itertools.cycle(SERVICES), ROUNDS):
            before = writer.acknowledged
            kill(demo, service)
            eventually(lambda before=before: writer.acknowledged > before, f"alpha takes nothing more after {service}")  # type: ignore[misc]  # bound now
    assert writer.acknowledged >= ROUNDS
    assert_sound(demo, namespace, killed=["alpha", "beta"])
    for uri, allowed in writer.allowed.items():
        for peer in demo.everybody:
            found = read(peer, uri) if peer.status_of(uri) == 200 else None
            assert found in allowed, f"{uri} at {peer.name}"
