"""Typed reading of environment variables and secret files; the only place that looks at `os.environ`.

Every variable may be given as `NAME_FILE` instead: then its value is the stripped text of that file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from datamodel.errors import NotConfiguredError

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_MAIL_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where e-mail is handed in."""

    host: str
    port: int
    user: str
    password: str
    is_ssl: bool
    is_starttls: bool


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds."""

    requests: int
    seconds: int


class Secret(str):
    """A text that no dump of the settings shows: its `repr` is not it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


def text(name: str, default: str | None = None) -> str:
    """The variable's value, or that of its `_FILE`. Raises `NotConfiguredError` when absent without default."""
    if name in os.environ:
        return os.environ[name]
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise NotConfiguredError(f"{name}_FILE names {path}, which cannot be read: {error.strerror}") from error
    if default is None:
        raise NotConfiguredError(f"set the environment variable {name} (or {name}_FILE)")
    return default


def secret(name: str, default: str | None = None) -> Secret:
    """As `text`, for what nobody may read in a list of settings."""
    return Secret(text(name, default))


def flag(name: str, *, default: bool) -> bool:
    """A boolean: 1/true/yes/on or 0/false/no/off. Raises `NotConfiguredError` for anything else."""
    value = text(name, str(default)).strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise NotConfiguredError(f"{name} must be one of true, false; it is {value!r}")


def integer(name: str, default: int, *, minimum: int = 0) -> int:
    """A whole number of at least `minimum`. Raises `NotConfiguredError`."""
    value = text(name, str(default)).strip()
    try:
        number = int(value)
    except ValueError as error:
        raise NotConfiguredError(f"{name} must be a whole number; it is {value!r}") from error
    if number < minimum:
        raise NotConfiguredError(f"{name} must be at least {minimum}; it is {number}")
    return number


def choice(name: str, default: str, allowed: tuple[str, ...]) -> str:
    """One of some words. Raises `NotConfiguredError`."""
    value = text(name, default).strip().lower()
    if value not in allowed:
        raise NotConfiguredError(f"{name} must be one of {', '.join(allowed)}; it is {value!r}")
    return value


def rate(name: str, default: str) -> Rate | None:
    """`REQUESTS/SECONDS`, as in 600/60; empty or 0: no limit. Raises `NotConfiguredError`."""
    value = text(name, default).strip()
    if value in {"", "0"}:
        return None
    requests, _, seconds = value.partition("/")
    if not (requests.isdecimal() and seconds.isdecimal() and int(requests) and 0 < int(seconds) <= 86_400):
        raise NotConfiguredError(f"{name} must look like 600/60 (requests/seconds, at most a day); it is {value!r}")
    return Rate(int(requests), int(seconds))


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list without empty entries."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def base_path() -> str:
    """`INVENTORY_BASE_PATH` as "" or "a/b/" (no leading, one trailing slash): the form that URL patterns need."""
    path = text("INVENTORY_BASE_PATH", "").strip("/")
    return f"{path}/" if path else ""


def database(url: str) -> dict[str, object]:
    """Django's DATABASES entry for a `postgresql://` URL (query parameters become connection options).

    Raises `NotConfiguredError` for another scheme: PostgreSQL is the only database.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres"}:
        raise NotConfiguredError(f"DATABASE_URL must start with postgresql://; its scheme is {parts.scheme!r}")
    options = dict(parse_qsl(parts.query))
    host = options.pop("host", parts.hostname or "")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": Secret(unquote(parts.password or "")),
        "HOST": host,
        "PORT": options.pop("port", str(parts.port or "")),
        "OPTIONS": options,
    }


def redis_urls(url: str) -> tuple[Secret, Secret]:
    """(Celery's, Dramatiq's) form of one Redis URL: the two name unix sockets differently; databases 0 and 1."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        path = quote(unquote(parts.path))
        return Secret(f"redis+socket://{path}?virtual_host=0"), Secret(f"unix://{path}?db=1")
    if parts.scheme not in {"redis", "rediss"}:
        raise NotConfiguredError(f"REDIS_URL must start with redis://, rediss:// or unix://; it is {parts.scheme!r}")
    first = int(parts.path.strip("/") or 0)
    base = parts._replace(path="", query=parts.query)
    return Secret(base._replace(path=f"/{first}").geturl()), Secret(base._replace(path=f"/{first + 1}").geturl())


def mail_server(url: str) -> MailServer:
    """`smtp://`, `smtp+starttls://` or `smtps://`, as in `smtps://user:password@host:port`. Raises `NotConfiguredError`."""
    parts = urlsplit(url)
    if parts.scheme not in _MAIL_PORTS or not parts.hostname:
        raise NotConfiguredError(
            "INVENTORY_EMAIL_URL looks like smtp://, smtp+starttls:// or smtps://user:password@host:port"
        )
    return MailServer(
        host=parts.hostname,
        port=parts.port or _MAIL_PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=Secret(unquote(parts.password or "")),
        is_ssl=parts.scheme == "smtps",
        is_starttls=parts.scheme == "smtp+starttls",
    )
