"""The threads of a web server's worker: so many work at once; who waits for its peer makes room for another meanwhile.

Slow peers then cost memory (a thread each, up to a limit), and nobody else's turn. Knows nothing of connections.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any


@dataclass(frozen=True, slots=True)
class _Job:
    future: Future[Any]
    call: Callable[..., Any]
    arguments: tuple[Any, ...]

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.call(*self.arguments)
        except BaseException as error:  # noqa: BLE001  # it is the future's, as of every executor
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Crew:
    """What gunicorn uses of a `ThreadPoolExecutor`: `submit` and `shutdown`; `away` is ours.

    At most `working` threads run at a time, and at most `waiting` more exist. Jobs and those who come back take turns.
    """

    def __init__(self, *, working: int, waiting: int) -> None:
        self._working = working
        self._most = working + waiting
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._returning: deque[threading.Event] = deque()
        self._handed: SimpleQueue[_Job | None] = SimpleQueue()
        self._busy = self._idle = self._threads = 0
        self._is_returners_turn = True
        self._is_closed = False
        self._local = threading.local()

    def submit(self, call: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        job = _Job(Future(), call, arguments)
        with self._lock:
            self._jobs.append(job)
            self._let_go_on()
        return job.future

    def shutdown(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002  # as executors have it
        """Threads end as soon as they have nothing to do; they are daemons, and nobody is waited for."""
        del wait
        with self._lock:
            self._is_closed = True
            self._end_idle()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Around a wait: somebody else may work; afterwards it is waited for a place. Of other threads than ours nothing is known."""
        if not getattr(self._local, "is_member", False):
            yield
            return
        with self._lock:
            self._busy -= 1
            self._let_go_on()
        try:
            yield
        finally:
            self._come_back()

    def _come_back(self) -> None:
        turn = threading.Event()
        with self._lock:
            self._returning.append(turn)
            self._let_go_on()
        turn.wait()

    def _let_go_on(self) -> None:
        """Whoever can, while there are places; with the lock held."""
        while self._busy < self._working:
            can_begin = bool(self._jobs) and (self._idle > 0 or self._threads < self._most)
            if self._returning and (self._is_returners_turn or not can_begin):
                self._returning.popleft().set()
            elif can_begin:
                self._begin(self._jobs.popleft())
            else:
                return
            self._busy += 1
            self._is_returners_turn = not self._is_returners_turn

    def _begin(self, job: _Job) -> None:
        if self._idle:
            self._idle -= 1
            self._handed.put(job)
        else:
            self._threads += 1
            threading.Thread(target=self._run, args=(job,), name=f"request-{self._threads}", daemon=True).start()

    def _run(self, job: _Job | None) -> None:
        self._local.is_member = True
        while job is not None:
            job.run()
            del job
            with self._lock:
                self._busy -= 1
                self._idle += 1
                self._let_go_on()
                if self._is_closed:
                    self._end_idle()
            job = self._handed.get()

    def _end_idle(self) -> None:
        for _ in range(self._idle):
            self._handed.put(None)
        self._threads -= self._idle
        self._idle = 0
