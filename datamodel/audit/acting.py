"""Who acts: the request, task, actor or command that is being worked on. Operations ask here, so that none needs a parameter."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from django.http import HttpRequest

from datamodel.proxies import client_address

_NAME_LENGTH = 255
SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody's name, how it is known (`api-token`, `session`, `oidc`, `signed-url`, …, `system`, `command`), and from where."""

    name: str
    method: str
    address: str = ""


class Acting:
    """One request or piece of work; `recorded` counts what was recorded of it."""

    def __init__(self, *, actor: Actor | None = None, request: HttpRequest | None = None) -> None:
        self._actor = actor
        self._request = request
        self.recorded = 0

    @property
    def actor(self) -> Actor:
        """As known by now: a request's caller is found out by its view."""
        if self._request is not None:
            return actor_of(self._request)
        return self._actor or _Process.actor


class _Process:
    """Who acts where nothing else is said: what runs in this process."""

    actor = Actor("inventory", SYSTEM)


_current: ContextVar[Acting | None] = ContextVar("acting", default=None)


def current() -> Acting:
    """What is being worked on."""
    found = _current.get()
    if found is None:
        found = Acting()
        _current.set(found)
    return found


@contextmanager
def on_behalf_of(acting: Acting) -> Iterator[Acting]:
    """Whatever is recorded in this block is its doing."""
    bound = _current.set(acting)
    try:
        yield acting
    finally:
        _current.reset(bound)


def begin_work(name: str) -> None:
    """From now on this thread works on a task or actor of this name, until the next begins."""
    _current.set(Acting(actor=Actor(name[:_NAME_LENGTH], SYSTEM)))


def run_command(name: str) -> None:
    """This process runs a management command, for a user of the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    _Process.actor = Actor(f"{user} by {name}"[:_NAME_LENGTH], "command")


def address_of(request: HttpRequest) -> str:
    """Where a request comes from, as far as proxies of ours are to be believed."""
    return client_address(request)[:64]


def actor_of(request: HttpRequest) -> Actor:
    """The caller, or the user of the admin, or nobody known."""
    caller = getattr(request, "caller", None)
    if caller is not None:
        return actor_called(request, caller.name, caller.method)
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return actor_called(request, user.get_username(), "session")
    return actor_called(request, "anonymous", "anonymous")


def actor_called(request: HttpRequest, name: str, method: str) -> Actor:
    """Somebody who calls by this request, and is known so."""
    return Actor(name[:_NAME_LENGTH], method, address_of(request))
