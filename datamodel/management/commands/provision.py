"""`manage.py provision`: everything an inventory needs before its processes start, in one idempotent step."""

from __future__ import annotations

import argparse
import json
import uuid
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from datamodel import auth, env, keys
from datamodel.checks import forgetfulness
from datamodel.errors import InvalidRequestError, StateConflictError
from datamodel.identity import ensure_identity, ensure_site
from datamodel.models import PreauthKeyPair, StorageSite
from datamodel.permissions import ALL_GRANTS
from datamodel.remotes import save_remote


class Command(BaseCommand):
    help = (
        "Migrate, then make sure of identity, site row, signing key, operator token, admin user and remotes, as the "
        "environment says (INVENTORY_OPERATOR_TOKEN, INVENTORY_ADMIN_USER, INVENTORY_ADMIN_PASSWORD, INVENTORY_REMOTES)."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--no-migrate", action="store_true", help="the migrations were applied by another job")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.INVENTORY_SECRET_KEY_IS_TEMPORARY:
            raise CommandError(
                "set INVENTORY_SECRET_KEY: it seals keys and tokens, and every process must have the same"
            )
        if weakness := forgetfulness():
            raise CommandError(weakness)
        if not options["no_migrate"]:
            call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
        identity = ensure_identity()
        if settings.INVENTORY_ROLE == "site":
            _ensure_own_site(identity.inventory_id)
        self._ensure_callers()
        self._ensure_remotes()
        for step in settings.PROVISION_STEPS:
            import_string(step)()
        self.stdout.write(
            f"{settings.INVENTORY_ROLE} {settings.INVENTORY_NAME} is provisioned ({identity.inventory_id})"
        )

    def _ensure_callers(self) -> None:
        now = datetime.now(UTC)
        if not PreauthKeyPair.objects.exists():
            keys.create_key_pair(now=now, active_from=now)
        if token := env.text("INVENTORY_OPERATOR_TOKEN", ""):
            auth.create_api_token(name="operator", grants=ALL_GRANTS, now=now, token=token)
        user, password = env.text("INVENTORY_ADMIN_USER", ""), env.text("INVENTORY_ADMIN_PASSWORD", "")
        users = get_user_model().objects
        if user and password and not users.filter(username=user).exists():
            users.create_superuser(username=user, email="", password=password)

    def _ensure_remotes(self) -> None:
        for entry in _remotes():
            try:
                save_remote(name=entry["name"], role=entry["role"], url=entry["url"], token=entry.get("token"))
            except (InvalidRequestError, StateConflictError) as error:
                raise CommandError(f"INVENTORY_REMOTES, {entry['name']}: {error.detail}") from error


def _ensure_own_site(site_id: uuid.UUID) -> None:
    """The environment says how a new site begins; afterwards the switches in the admin stand."""
    site = StorageSite.objects.filter(id=site_id).first()
    ensure_site(
        resource_id=settings.INVENTORY_RESOURCE_ID,
        allow_read=settings.INVENTORY_ALLOW_READ if site is None else site.allow_read,
        allow_write=settings.INVENTORY_ALLOW_WRITE if site is None else site.allow_write,
    )


def _remotes() -> list[dict[str, str]]:
    """`INVENTORY_REMOTES`: a JSON list of {name, role, url[, token]}; without a token, it is to be paired."""
    try:
        entries = json.loads(env.text("INVENTORY_REMOTES", "[]"))
        complete = isinstance(entries, list) and all({"name", "role", "url"} <= entry.keys() for entry in entries)
    except (ValueError, AttributeError, TypeError) as error:
        raise CommandError(f"INVENTORY_REMOTES is not a JSON list of objects: {error}") from error
    if not complete:
        raise CommandError("each of INVENTORY_REMOTES needs name, url and role (site or global)")
    return list(entries)
