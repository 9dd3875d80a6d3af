"""`manage.py demo` from the shell: the whole job, its exit code, and what it refuses."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import urllib3

from harvest.demo import sources
from harvest.demo.board import Board
from harvest.demo.driver import Driver, Route
from harvest.demo.federation import EVERYTHING, KEPT, LATER
from harvest.demo.peer import Peer
from tests.ports import free_ports
from tests.scenarios.federation import PROJECT, START_SECONDS, Demo, demo_command, environment

pytestmark = [pytest.mark.xdist_group("federation"), pytest.mark.timeout(300)]


def run(directory: Path, *options: str, seconds: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
    """The command to its end; one that takes too long is asked to stop, so that it leaves nothing, and fails the test."""
    with subprocess.Popen(
        demo_command(directory, *options),
        cwd=PROJECT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            out, err = process.communicate()
            pytest.fail(f"it took more than {seconds} s:\n{out}\n{err}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def files_in(directory: Path) -> Path:
    """Twelve files of different sizes, and a symbolic link."""
    directory.mkdir()
    for number in range(12):
        (directory / f"file {number}").write_bytes(os.urandom(1000 * number))
    (directory / "link").symlink_to("file 1")
    return directory


@pytest.mark.long
def test_the_command_does_the_whole_job_twice_on_one_directory_and_every_check_holds(tmp_path: Path) -> None:
    files = files_in(tmp_path / "files")
    for _ in range(2):
        result = run(tmp_path / "state", "--exit", "--files", str(files), "--port", str(free_ports(3)))
        assert result.returncode == 0, result.stdout + result.stderr
        assert re.search(r"^all \d+ checks held$", result.stdout, re.MULTILINE), result.stdout
        assert "link': a symbolic link, not a regular file" in result.stdout
        assert "everything has stopped" in result.stdout


@pytest.mark.long
def test_the_command_kills_cuts_and_flips_bits_and_the_federation_heals(tmp_path: Path) -> None:
    files = files_in(tmp_path / "files")
    result = run(
        tmp_path / "state", "--exit", "--chaos", "--files", str(files), "--port", str(free_ports(3)), seconds=280
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"^all \d+ checks held$", result.stdout, re.MULTILINE), result.stdout


def test_the_whole_job_is_done_twice_in_the_same_namespaces_and_every_check_holds(demo: Demo, tmp_path: Path) -> None:
    files, said = files_in(tmp_path / "files"), list[str]()
    kept = demo.namespace()
    for _ in range(2):
        board = Board()
        driver = Driver(
            Route(demo.alpha, demo.beta, demo.all_sites, kept, kept.replace(KEPT, LATER), EVERYTHING),
            board,
            said.append,
            threading.Event(),
        )
        driver.run(files, sources.files_below(files, demo.directory), tmp_path / "scratch")
        assert board.failures == []
        assert board.checks > 50
    assert any(line.endswith("link': a symbolic link, not a regular file") for line in said)


def test_a_check_that_fails_is_listed_with_what_was_expected(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "file").write_text("content")
    names = [Path("file"), Path("vanished"), *[Path("file")] * 2]
    board, said = Board(), list[str]()
    # What should be the global is beta, which does not know what it does not want.
    route = Route(demo.alpha, demo.beta, Peer("global", demo.beta.url, demo.token), KEPT, LATER, EVERYTHING)
    driver = Driver(route, board, said.append, threading.Event(), patience=1.0)
    driver.run(tmp_path / "files", names, tmp_path / "scratch")
    assert any(line.endswith("vanished': No such file or directory") for line in said)
    expected = f"known to the global: expected {LATER}files/file within 1 s of the last arrival"
    assert expected in [failure.strip() for failure in board.failures]
    assert not [failure for failure in board.failures if failure.startswith("PUT to alpha")]


def test_every_address_that_the_demo_names_opens(demo: Demo) -> None:
    addresses = set(re.findall(r"http://\S+", demo.said()))
    assert len(addresses) >= 9
    answers = {address: urllib3.request("GET", address, timeout=30.0).status for address in addresses}
    assert answers == dict.fromkeys(addresses, 200)


def test_the_command_line_that_the_demo_names_works(demo: Demo) -> None:
    # The last one: a demo that another test has killed was started again.
    *_, line = re.findall(r"^commands, here for alpha: (.*)$", demo.said(), re.MULTILINE)
    result = subprocess.run(
        ["/bin/sh", "-c", line], cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "operator" in result.stdout


def test_a_second_demo_on_a_directory_is_refused(demo: Demo) -> None:
    result = run(demo.directory, "--exit", "--no-ingest", "--port", str(free_ports(3)), seconds=30)
    assert result.returncode == 1
    assert re.search(
        r"CommandError: another demo \(process \d+\) runs in \S+: stop it or choose another --dir$", result.stderr
    )
    demo.await_ready()


def test_a_busy_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    port = free_ports(3) + 1
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        result = run(tmp_path / "state", "--port", str(port - 1), "--no-ingest", "--exit", seconds=30)
    assert result.returncode == 1
    assert f"port {port} (for alpha) is in use: choose others with --port" in result.stderr
    assert not (tmp_path / "state" / "alpha").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param(["--files", "missing"], "there is no directory missing to take files from", id="files"),
        pytest.param(["--dir", "missing/state"], "there is no directory .*/missing to keep state in", id="state"),
        pytest.param(["--port", "65534"], "65534 is not a port between 1 and 65533", id="port"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, options: list[str], complaint: str) -> None:
    result = run(tmp_path / "state", "--exit", *options, seconds=30)
    assert result.returncode != 0
    assert re.search(complaint, result.stderr.splitlines()[-1])
    assert not (tmp_path / "state").exists()
