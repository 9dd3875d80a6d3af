"""Real processes under the supervisor: started once on record, restarted, ended with all they started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from datamodel.processes import wait_until
from harvest.demo import forkserver, groups
from harvest.demo.federation import environment, services, usual_inventories
from harvest.demo.forkserver import ForkServer, Program
from harvest.demo.groups import Group
from harvest.demo.records import DemoError, Records, Secrets, locked
from harvest.demo.supervisor import Service, Supervisor, next_delay

SECONDS = 30


class Reports:
    """What a supervisor said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, text: str) -> None:
        self.lines.append(text)

    def wait_for(self, words: str, times: int = 1) -> None:
        wait_until(
            lambda: sum(words in line for line in self.lines) >= times, SECONDS, f"{words!r} not in {self.lines}"
        )


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def supervisor(tmp_path: Path, reports: Reports) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path, "mark-of-a-test", reports)
    yield supervisor
    supervisor.stop(["one", "two"], 0.2)
    supervisor.close()


def program(tmp_path: Path, *argv: str, name: str = "one") -> Program:
    return Program(name, argv, dict(os.environ), tmp_path, tmp_path / f"{name}.log")


def service(tmp_path: Path, script: str, name: str = "one", **more: object) -> Service:
    base = Service(program(tmp_path, "/bin/sh", "-c", script, name=name))
    return replace(base, **more)  # type: ignore[arg-type]  # the caller names real fields


def recorded(tmp_path: Path, name: str = "one") -> Group | None:
    return Records(tmp_path).left_behind().get(name)


def log_lines(tmp_path: Path, count: int, name: str = "one") -> list[str]:
    log = tmp_path / f"{name}.log"
    wait_until(
        lambda: log.exists() and len(log.read_text().splitlines()) >= count, SECONDS, f"{log} has no {count} lines"
    )
    return log.read_text().splitlines()


def is_alive(pid: int) -> bool:
    # Grandchildren become zombies of whoever adopts them, which in a container may be nobody.
    status = groups._status(pid)
    return status is not None and status.state not in "ZX"


def is_dead(pid: int) -> bool:
    return not is_alive(pid)


def test_a_service_is_on_record_before_its_program_runs(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.start(service(tmp_path, "cat services.json; exec sleep 600", announces='"one"'))
    wait_until(lambda: not supervisor.unconnected(), SECONDS, "it did not read its own record")


@pytest.fixture
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer("mark-of-a-test")
    yield server
    server.close()


def test_a_service_whose_supervisor_dies_before_the_record_never_runs(tmp_path: Path, fork_server: ForkServer) -> None:
    child = fork_server.launch(program(tmp_path, "touch", "ran"))
    child.abandon()
    assert child.wait() == 0
    assert not (tmp_path / "ran").exists()


def test_a_python_program_finds_all_as_python_itself_would_give_it(tmp_path: Path, fork_server: ForkServer) -> None:
    (tmp_path / "own.py").write_text(
        "import atexit, os, sys, threading\n"
        "atexit.register(print, 'the end')\n"
        "print(__name__, sys.argv, os.getcwd(), os.environ['OWN'], sys.stdin.read() == '')\n"
        "print(sorted(os.listdir('/proc/self/fd')), os.getsid(0) == os.getpid(), threading.active_count())\n"
        "print(open('/proc/self/environ').read().count('mark-of-a-test'), open('/proc/self/comm').read().strip())\n"
        "print('a complaint', file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    own = replace(program(tmp_path, sys.executable, "own.py", "x y"), environment={**os.environ, "OWN": "value"})
    child = fork_server.launch(own)
    child.release()
    assert child.wait() == 7
    assert own.log.read_text().splitlines() == [
        f"__main__ ['own.py', 'x y'] {tmp_path} value True",
        # The third is the listing itself.
        "['0', '1', '2', '3'] True 1",
        "1 one",
        "a complaint",
        "the end",
    ]


def test_a_python_module_runs_as_with_m(tmp_path: Path, fork_server: ForkServer) -> None:
    child = fork_server.launch(program(tmp_path, sys.executable, "-m", "json.tool", "--help"))
    child.release()
    assert child.wait() == 0
    assert "usage: " in (tmp_path / "one.log").read_text()


def test_a_fork_server_that_was_killed_is_started_again_and_what_it_started_is_known_to_have_no_parent(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    child = fork_server.launch(program(tmp_path, "sleep", "600"))
    child.release()
    assert fork_server._process is not None
    fork_server._process.kill()
    assert child.wait() == 255
    os.kill(child.pid, signal.SIGKILL)
    fork_server._process.wait()
    second = fork_server.launch(program(tmp_path, "false"))
    second.release()
    assert second.wait() == 1


def test_programs_of_one_environment_are_forked_from_one_branch_that_loaded_their_application_in_it(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    (tmp_path / "own.py").write_text(
        "import os, sys\nprint(os.getppid(), sys.modules['datamodel.webserver'].threads, os.environ['INVENTORY_THREADS'])\n"
    )
    seen = []
    for name, threads in (("one", "7"), ("two", "7"), ("three", "8")):
        variables = {**os.environ, "INVENTORY_THREADS": threads}
        own = program(tmp_path, sys.executable, "own.py", name=name)
        child = fork_server.launch(replace(own, environment=variables, modules=["datamodel.webserver"]))
        child.release()
        assert child.wait() == 0
        seen.append(own.log.read_text().split())
    assert seen[0] == seen[1]
    assert seen[2][0] != seen[0][0]
    assert [threads for _, *threads in seen] == [["7", "7"], ["7", "7"], ["8", "8"]]


@pytest.mark.parametrize("role", ["site", "global"])
def test_an_application_that_is_loaded_for_all_its_programs_has_no_thread_and_no_connection(
    tmp_path: Path, fork_server: ForkServer, role: str
) -> None:
    inventory = next(one for one in usual_inventories(tmp_path, 1) if one.role == role)
    known = Secrets.of(tmp_path, [inventory.name])
    web = services(inventory, environment(inventory, [], known), tmp_path)["web"].program
    (tmp_path / "own.py").write_text(
        "import os, sys, threading\n"
        f"assert {[*web.modules]!r} == [name for name in {[*web.modules]!r} if name in sys.modules]\n"
        # The third is the listing itself.
        "print(threading.active_count(), sorted(os.listdir('/proc/self/fd')))\n"
    )
    child = fork_server.launch(replace(web, argv=[sys.executable, str(tmp_path / "own.py")]))
    child.release()
    assert child.wait() == 0
    assert web.log.read_text() == "1 ['0', '1', '2', '3']\n"


def test_a_branch_that_was_killed_is_grown_again(tmp_path: Path, fork_server: ForkServer) -> None:
    (tmp_path / "parent.py").write_text("import os\nprint(os.getppid(), os.getpid() != os.getppid())\n")
    own = replace(program(tmp_path, sys.executable, "parent.py"), modules=["json"])
    for _ in range(2):
        child = fork_server.launch(own)
        child.release()
        assert child.wait() == 0
        *_, branch, is_other = own.log.read_text().split()
        assert is_other == "True"
        os.kill(int(branch), signal.SIGKILL)
        wait_until(partial(is_dead, int(branch)), SECONDS, "the branch lives")
    assert len({line.split()[0] for line in own.log.read_text().splitlines()}) == 2


def test_what_could_not_be_loaded_in_advance_is_in_the_log_of_who_needed_it(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    own = replace(program(tmp_path, sys.executable, "-m", "json.tool", "--help"), modules=["no.such.module", "json"])
    child = fork_server.launch(own)
    child.release()
    assert child.wait() == 0
    assert "No module named 'no'" in own.log.read_text()
    assert "usage: " in own.log.read_text()


def test_what_is_loaded_in_advance_exists_and_depends_on_no_setting() -> None:
    """In a process of its own: this one has settings."""
    script = (
        "import importlib, sys, threading\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "from django.conf import settings\n"
        "assert not settings.configured\n"
        "assert threading.active_count() == 1\n"
        "assert not [name for name in sys.modules if name.startswith(('datamodel', 'harvest', 'site_service', 'global_'))]\n"
    )
    without = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    subprocess.run([sys.executable, "-c", script, *forkserver.LIBRARIES], env=without, check=True)


def test_a_killed_service_is_restarted_visibly_after_its_whole_group_has_ended(
    tmp_path: Path, supervisor: Supervisor, reports: Reports
) -> None:
    supervisor.start(service(tmp_path, "sleep 600 & echo $$ $!; wait"))
    leader, child = map(int, log_lines(tmp_path, 1)[0].split())
    os.kill(leader, signal.SIGKILL)
    reports.wait_for("one was killed by signal 9; it is restarted")
    assert not is_alive(child)
    second = log_lines(tmp_path, 2)[1]
    assert int(second.split()[0]) != leader


def test_a_service_that_crashes_is_shown_with_the_end_of_its_log_each_time(
    tmp_path: Path, supervisor: Supervisor, reports: Reports
) -> None:
    supervisor.start(service(tmp_path, "echo no such database; exit 3"))
    for delay in ("0.25", "0.5"):
        reports.wait_for(f"one ended with code 3; it is restarted in {delay} s; the end of")
    assert all("no such database" in line for line in reports.lines)


@pytest.mark.parametrize(
    ("delay", "lived", "expected"),
    [(0.0, 60.0, 0.0), (0.0, 1.0, 0.25), (0.25, 1.0, 0.5), (12.0, 1.0, 15.0), (15.0, 11.0, 0.0)],
)
def test_restarts_slow_down_until_a_service_has_lived_for_a_while(delay: float, lived: float, expected: float) -> None:
    assert next_delay(delay, lived) == expected


def test_a_restart_waits_until_the_port_is_free(tmp_path: Path, supervisor: Supervisor, reports: Reports) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        supervisor.start(service(tmp_path, "echo up; exec sleep 600", port=other.getsockname()[1]))
        log_lines(tmp_path, 1)
        group = recorded(tmp_path)
        assert group is not None
        os.kill(group.pid, signal.SIGKILL)
        reports.wait_for("restarted")
        time.sleep(0.5)  # long enough for a restart that does not wait
        assert len(log_lines(tmp_path, 1)) == 1
    log_lines(tmp_path, 2)


def test_a_service_that_ignores_the_request_to_end_is_killed_with_its_children(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    supervisor.start(service(tmp_path, "trap '' TERM; sleep 600 & echo $$ $!; while :; do wait; done"))
    pids = [int(pid) for pid in log_lines(tmp_path, 1)[0].split()]
    supervisor.stop(["one"], 0.2)
    assert not any(is_alive(pid) for pid in pids)
    assert recorded(tmp_path) is None


def test_a_program_that_fails_is_an_error_with_the_end_of_its_log(tmp_path: Path, supervisor: Supervisor) -> None:
    supervisor.run(service(tmp_path, "echo fine", "two"))
    with pytest.raises(DemoError, match=r"one failed with code 4(?s:.*)half way"):
        supervisor.run(service(tmp_path, "echo half way; exit 4"))
    assert recorded(tmp_path) is None


ABANDON = """
import sys, os, signal, time
from pathlib import Path
from harvest.demo.forkserver import Program
from harvest.demo.supervisor import Service, Supervisor
directory = Path(sys.argv[1])
supervisor = Supervisor(directory, "an earlier mark", print)
argv = ["/bin/sh", "-c", "sleep 600 & echo $$ $!; wait"]
supervisor.start(Service(Program("one", argv, dict(os.environ), directory, directory / "one.log"), announces=" "))
while supervisor.unconnected():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def abandoned(tmp_path: Path) -> list[int]:
    """Leader and child of a group whose supervisor was killed."""
    subprocess.run([sys.executable, "-c", ABANDON, str(tmp_path)], check=False, cwd=Path(__file__).parents[3])
    return [int(pid) for pid in log_lines(tmp_path, 1)[0].split()]


def test_what_a_killed_supervisor_left_is_ended_by_the_next(
    tmp_path: Path, supervisor: Supervisor, reports: Reports, abandoned: list[int]
) -> None:
    assert all(is_alive(pid) for pid in abandoned)
    supervisor.end_left_behind(0.2)
    assert not any(is_alive(pid) for pid in abandoned)
    assert "a demo here was killed; ending what it left: one" in reports.lines


def test_orphans_of_a_dead_leader_are_ended_too(tmp_path: Path, supervisor: Supervisor, abandoned: list[int]) -> None:
    leader, child = abandoned
    os.kill(leader, signal.SIGKILL)
    wait_until(partial(is_dead, leader), SECONDS, "the leader lives")
    assert is_alive(child)
    supervisor.end_left_behind(0.2)
    assert not is_alive(child)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda group: replace(group, started=group.started - 1), id="another process has the number now"),
        pytest.param(lambda group: replace(group, boot="before"), id="the machine was booted since"),
    ],
)
def test_a_process_that_only_has_the_recorded_number_is_left_alone(
    tmp_path: Path, supervisor: Supervisor, change: Callable[[Group], Group]
) -> None:
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        Records(tmp_path).add("one", change(Group.led_by(stranger.pid, "any")), [])
        supervisor.end_left_behind(0.2)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_record_that_cannot_be_understood_is_a_clear_error(tmp_path: Path, supervisor: Supervisor) -> None:
    (tmp_path / "services.json").write_text(json.dumps({"one": {"pid": 1}}))
    with pytest.raises(DemoError, match=r"services\.json cannot be understood"):
        supervisor.end_left_behind(0.2)


def test_a_second_demo_in_one_directory_is_refused_and_the_lock_ends_with_the_first(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(DemoError, match=rf"another demo \(process {os.getpid()}\) runs in"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first = Secrets.of(tmp_path, ["alpha"])
    second = Secrets.of(tmp_path, ["alpha", "beta"])
    assert (first.token, first.admin_password, first.keys["alpha"]) == (
        second.token,
        second.admin_password,
        second.keys["alpha"],
    )
    assert len({*second.keys.values(), second.token, second.admin_password}) == 4
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
