"""The threads of a web server's worker: so many work; who is away makes room, and comes back in its turn."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

import pytest

from datamodel.crew import Crew

SECONDS = 20


class Gate:
    """Jobs that say that they have begun, and end when told."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()

    def job(self) -> str:
        self.begun.release()
        assert self.may_end.wait(SECONDS)
        return "done"

    def has_begun(self, seconds: float = SECONDS) -> bool:
        return self.begun.acquire(timeout=seconds)


def test_no_more_work_at_a_time_than_may() -> None:
    crew, gate = Crew(working=2, waiting=10), Gate()
    jobs = [crew.submit(gate.job) for _ in range(5)]
    assert gate.has_begun()
    assert gate.has_begun()
    assert not gate.has_begun(0.1)
    gate.may_end.set()
    assert [job.result(SECONDS) for job in jobs] == ["done"] * 5


def test_who_is_away_makes_room_and_comes_back_when_there_is_a_place() -> None:
    crew, gate = Crew(working=1, waiting=1), Gate()
    is_away, may_come_back, is_back = threading.Event(), threading.Event(), threading.Event()

    def wait_for_peer() -> None:
        with crew.away():
            is_away.set()
            assert may_come_back.wait(SECONDS)
        is_back.set()

    waiter = crew.submit(wait_for_peer)
    assert is_away.wait(SECONDS)
    job = crew.submit(gate.job)
    assert gate.has_begun()
    may_come_back.set()
    assert not is_back.wait(0.1)
    gate.may_end.set()
    wait([waiter, job], SECONDS)
    assert is_back.is_set()


def test_so_many_may_be_away_and_then_the_next_waits_for_a_thread() -> None:
    crew, gate, may_come_back = Crew(working=1, waiting=3), Gate(), threading.Event()
    away = threading.Semaphore(0)

    def wait_for_peer() -> None:
        with crew.away():
            away.release()
            assert may_come_back.wait(SECONDS)

    waiters = [crew.submit(wait_for_peer) for _ in range(4)]
    for _ in waiters:
        assert away.acquire(timeout=SECONDS)
    gate.may_end.set()
    job = crew.submit(gate.job)
    assert not gate.has_begun(0.1)
    may_come_back.set()
    assert job.result(SECONDS) == "done"
    wait(waiters, SECONDS)


def test_many_who_go_away_again_and_again_all_end() -> None:
    crew = Crew(working=3, waiting=20)
    working, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal working, most
        for _ in range(20):
            with lock:
                working += 1
                most = max(most, working)
            with lock:
                working -= 1
            with crew.away():
                pass

    jobs: list[Future[None]] = [crew.submit(work) for _ in range(50)]
    for job in jobs:
        job.result(SECONDS)
    assert 1 <= most <= 3


def test_an_error_is_the_jobs_own() -> None:
    crew = Crew(working=1, waiting=0)
    with pytest.raises(ZeroDivisionError):
        crew.submit(lambda: 1 // 0).result(SECONDS)
    assert crew.submit(int, "7").result(SECONDS) == 7


def test_a_thread_of_others_is_nobody_of_the_crew() -> None:
    crew, gate = Crew(working=1, waiting=0), Gate()
    crew.submit(gate.job)
    assert gate.has_begun()
    with crew.away():
        job = crew.submit(gate.job)
        assert not gate.has_begun(0.1)
    gate.may_end.set()
    assert job.result(SECONDS) == "done"


def test_threads_end_with_the_crew_once_they_have_nothing_to_do() -> None:
    crew = Crew(working=2, waiting=0)
    go_on = threading.Event()
    idle = crew.submit(threading.current_thread).result(SECONDS)
    busy = crew.submit(lambda: (go_on.wait(SECONDS), threading.current_thread())[1])
    crew.shutdown(wait=False)
    go_on.set()
    for thread in (idle, busy.result(SECONDS)):
        thread.join(SECONDS)
        assert not thread.is_alive()
