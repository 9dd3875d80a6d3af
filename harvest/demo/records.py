"""The state directory of a demo: its lock, its record of running groups, and its secrets."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harvest.demo.groups import Group

LOCK = "lock"


class DemoError(RuntimeError):
    """The demo cannot do what was asked; the message is one line for the person at the keyboard."""


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the state directory for as long as this process lives. Raises DemoError if another demo holds it."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 20).decode(errors="replace").strip()
            raise DemoError(
                f"another demo (process {owner}) runs in {directory}: stop it or choose another --dir"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    unfinished.replace(path)


class Records:
    """The groups that run on behalf of a directory, in its services.json, so that a later demo can end them."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "services.json"
        self._lock = threading.Lock()
        self._groups: dict[str, tuple[Group, list[str]]] = {}

    def left_behind(self) -> dict[str, Group]:
        """What the last demo here recorded and did not end. Raises DemoError if the file cannot be understood."""
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            return {name: Group(**entry["group"]) for name, entry in entries.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DemoError(
                f"{self._path} cannot be understood ({error}): end its processes by hand, remove it"
            ) from error

    def add(self, name: str, group: Group, argv: list[str]) -> None:
        with self._lock:
            self._groups[name] = (group, argv)
            self._write()

    def running(self) -> dict[str, Group]:
        """What was added and not removed."""
        with self._lock:
            return {name: group for name, (group, _) in self._groups.items()}

    def remove(self, name: str) -> None:
        with self._lock:
            self._groups.pop(name, None)
            self._write()

    def _write(self) -> None:
        entries = {name: {"group": asdict(group), "argv": argv} for name, (group, argv) in self._groups.items()}
        replace_file(self._path, json.dumps(entries, indent=1))


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made once for a directory: who may do everything, and what each service seals its sessions and tokens with."""

    token: str
    admin_password: str
    keys: dict[str, str]

    @classmethod
    def of(cls, directory: Path, names: list[str]) -> Secrets:
        """Those of the directory, made on first use. Raises DemoError if the file cannot be understood."""
        path = directory / "secrets.json"
        try:
            known = cls(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else _new_secrets()
        except (ValueError, TypeError) as error:
            raise DemoError(f"{path} cannot be understood ({error}): remove it, and {directory} with it") from error
        complete = cls(known.token, known.admin_password, {name: _random(48) for name in names} | known.keys)
        replace_file(path, json.dumps(asdict(complete), indent=1))
        return complete


def _new_secrets() -> Secrets:
    return Secrets(_random(32), _random(12), {})


def _random(size: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).decode().rstrip("=")
