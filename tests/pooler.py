"""A real PgBouncer that lends sessions by the transaction, and few of them."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from datamodel.processes import Account, wait_until
from tests.programs import PGBOUNCER

_PORT = 6432


@contextmanager
def running_pgbouncer(databases: Mapping[str, str], *, sessions: int) -> Iterator[dict[str, str]]:
    """Before these databases (name: URL of an embedded one); the URLs by which it is asked for them."""
    if PGBOUNCER is None:
        pytest.skip("there is no pgbouncer: install it, or let .ci/get-debian fetch it")
    with tempfile.TemporaryDirectory(prefix="pooler-") as name:
        directory = Path(name)
        account = Account.choose(directory, directory / "nothing", Path(PGBOUNCER))
        account.own(directory)
        configuration = directory / "pgbouncer.ini"
        configuration.write_text(_configuration(directory, databases, sessions))
        configuration.chmod(0o644)
        argv = [*account.prefix, PGBOUNCER, "-q", str(configuration)]
        with subprocess.Popen(argv, user=account.uid, group=account.gid, start_new_session=True) as process:
            try:
                socket = directory / f".s.PGSQL.{_PORT}"
                wait_until(lambda: socket.exists() or process.poll() is not None, 10, "pgbouncer does not listen")
                assert process.poll() is None, (directory / "log").read_text()
                host = quote(str(directory), safe="")
                yield {name: f"postgresql://inventory@:{_PORT}/{name}?host={host}" for name in databases}
            finally:
                process.terminate()


def _configuration(directory: Path, databases: Mapping[str, str], sessions: int) -> str:
    lines = ["[databases]"]
    for name, url in databases.items():
        parts = urlsplit(url)
        host = parse_qs(parts.query)["host"][0]
        lines.append(f"{name} = host={host} port={parts.port} dbname={unquote(parts.path[1:])} user={parts.username}")
    lines += [
        "[pgbouncer]",
        "pool_mode = transaction",
        f"default_pool_size = {sessions}",
        "max_client_conn = 1000",
        "listen_addr =",
        f"listen_port = {_PORT}",
        f"unix_socket_dir = {directory}",
        "auth_type = any",
        f"logfile = {directory}/log",
        # A wait for a session that never ends would be a deadlock of ours: it shall show.
        "query_wait_timeout = 20",
    ]
    return "\n".join(lines)
