"""System checks with ids `inventory.E…`: settings that contradict each other, and a feed that needs restamping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import psycopg
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import DatabaseError, connection

from datamodel import direct
from datamodel.alarms import channels
from datamodel.errors import InvalidRequestError, NotConfiguredError
from datamodel.issuers import parse_issuers
from datamodel.permission_service.rules import parse_group_names
from datamodel.positions import read_identity
from datamodel.proxies import parse_networks
from datamodel.remotes import checked_url

_DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
_LIMITS = ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")
_CONTENT_ALGORITHMS = {"md5", "sha-256"}


@register("inventory")
def check_settings(*, app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """What the environment says must make sense together."""
    del app_configs, options
    found: list[CheckMessage] = []
    if not settings.USE_TZ or settings.TIME_ZONE != "UTC":
        found.append(Error("times must be UTC", id="inventory.E001"))
    if settings.INVENTORY_CONTENT_ALGORITHM not in _CONTENT_ALGORITHMS:
        found.append(Error("INVENTORY_CONTENT_ALGORITHM must be md5 or sha-256", id="inventory.E002"))
    if urlsplit(settings.INVENTORY_PUBLIC_URL).scheme not in {"http", "https"}:
        found.append(Error("INVENTORY_PUBLIC_URL must be an http or https URL", id="inventory.E003"))
    if settings.DATABASES["default"]["ENGINE"] != "django.db.backends.postgresql":
        found.append(Error("PostgreSQL is the only database", id="inventory.E004"))
    if 0 < settings.INVENTORY_EVENT_RETENTION_DAYS < settings.INVENTORY_OLDEST_BACKUP_DAYS:
        found.append(
            Error(
                "INVENTORY_EVENT_RETENTION_DAYS is below INVENTORY_OLDEST_BACKUP_DAYS: an inventory restored from that backup "
                "would bring back what was deleted since",
                id="inventory.E021",
            )
        )
    if settings.INVENTORY_KEY_PERIOD < 2 * settings.INVENTORY_KEY_OVERLAP:
        complaint = "INVENTORY_KEY_PERIOD_SECONDS must be at least twice INVENTORY_KEY_OVERLAP_SECONDS"
        found.append(Error(complaint, id="inventory.E040"))
    if settings.INVENTORY_AUDIT_KEEP_DAYS and not settings.INVENTORY_AUDIT_ARCHIVE_DIR:
        complaint = (
            "INVENTORY_AUDIT_KEEP_DAYS needs INVENTORY_AUDIT_ARCHIVE_DIR, where older entries go: none would ever move"
        )
        found.append(Error(complaint, id="inventory.E041"))
    try:
        parse_issuers(settings.INVENTORY_OIDC_ISSUERS)
    except NotConfiguredError as error:
        found.append(Error(error.detail, id="inventory.E012"))
    try:
        parse_networks(tuple(settings.INVENTORY_TRUSTED_PROXIES))
    except NotConfiguredError as error:
        found.append(Error(error.detail, id="inventory.E030"))
    if settings.INVENTORY_CLIENT_CERTIFICATE_HEADER and not (
        settings.INVENTORY_TRUSTED_PROXIES and settings.INVENTORY_CLIENT_VERIFY_HEADER
    ):
        found.append(
            Error(
                "INVENTORY_CLIENT_CERTIFICATE_HEADER needs INVENTORY_TRUSTED_PROXIES and INVENTORY_CLIENT_VERIFY_HEADER",
                id="inventory.E031",
            )
        )
    try:
        parse_group_names(settings.INVENTORY_PERMISSION_GROUPS)
        for url in settings.INVENTORY_PERMISSION_SERVICES:
            checked_url(url)
    except (ValueError, InvalidRequestError) as error:
        found.append(Error(f"INVENTORY_PERMISSION_SERVICES or _GROUPS: {error}", id="inventory.E032"))
    needed = ("CLIENT_ID", "CLIENT_SECRET", "GROUPS", "PREFIX")
    lacking = [name for name in needed if not getattr(settings, f"INVENTORY_LOGIN_{name}")]
    if settings.INVENTORY_LOGIN_ISSUER and lacking:
        names = ", ".join(f"INVENTORY_LOGIN_{name}" for name in lacking)
        found.append(Error(f"INVENTORY_LOGIN_ISSUER needs {names}, too", id="inventory.E033"))
    try:
        channels.names()
    except NotConfiguredError as error:
        found.append(Error(error.detail, id="inventory.E020"))
    return found


@register("inventory")
def check_role(*, app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """A global has no storage and no Dramatiq; a site has both."""
    del app_configs, options
    has_storage = "artifacts" in settings.STORAGES
    if settings.INVENTORY_ROLE == "global" and has_storage:
        return [Error("a global inventory must not have an artifact store", id="inventory.E005")]
    if settings.INVENTORY_ROLE == "site" and not has_storage:
        return [
            Error(
                "a site needs an artifact store: set INVENTORY_STORAGE_DIR or INVENTORY_S3_BUCKET", id="inventory.E006"
            )
        ]
    return []


def forgetfulness() -> str:
    """Why the database may lose what it has acknowledged when the machine stops; "" when it does not."""
    if settings.INVENTORY_ALLOW_UNSAFE_DATABASE:
        return ""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_settings WHERE name = ANY(%s) AND setting = 'off'", [list(_DURABILITY)])
        off = sorted(name for (name,) in cursor.fetchall())
    if not off:
        return ""
    return f"the database loses acknowledged files when its machine stops: {', '.join(off)} must not be off"


@register("inventory", Tags.database)
def check_feed(*, app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """After a restore into another cluster transaction ids start anew: rows would be served never or twice."""
    del app_configs
    if not options.get("databases"):
        return []
    found: list[CheckMessage] = []
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('server_version_num')::int, current_setting('server_encoding')")
            version, encoding = cursor.fetchone()
        if version < 160000 or encoding != "UTF8":
            found.append(Error("the database must be PostgreSQL 16 or newer with encoding UTF8", id="inventory.E007"))
        if weakness := forgetfulness():
            found.append(Error(weakness, id="inventory.E011"))
        if not read_identity().is_current:
            found.append(
                Error(
                    "this database was restored from another cluster or timeline",
                    hint="run manage.py restamp_feed",
                    id="inventory.E008",
                )
            )
    except NotConfiguredError as error:
        found.append(Error(error.detail, id="inventory.E009"))
    except DatabaseError as error:
        found.append(Error(f"the database does not answer: {error}", id="inventory.E010"))
    return found


@register("inventory", Tags.database)
def check_sessions(*, app_configs: Sequence[AppConfig] | None, **options: Any) -> list[CheckMessage]:
    """Behind a pooler of transactions listeners need a way around it, and the limits of time have to be the role's own."""
    del app_configs
    if not options.get("databases"):
        return []
    found: list[CheckMessage] = []
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM pg_settings WHERE name = ANY(%s) AND setting = '0'", [list(_LIMITS)])
            unlimited = sorted(name for (name,) in cursor.fetchall())
        if unlimited:
            hint = "; ".join(f"ALTER ROLE … SET {name} = '…s'" for name in unlimited)
            found.append(Error(f"nothing ends what is stuck: {', '.join(unlimited)}", hint=hint, id="inventory.E014"))
    except DatabaseError:
        # E010 tells.
        return []
    if complaint := _directness():
        found.append(Error(complaint, id="inventory.E013"))
    return found


def _directness() -> str:
    """Why no session of PostgreSQL itself can be had; "" when one can."""
    try:
        with direct.connect("inventory-check") as session:
            return direct.POOLED if direct.is_pooled(session) else ""
    except psycopg.Error as error:
        return f"INVENTORY_DIRECT_DATABASE_URL does not answer: {error}"
