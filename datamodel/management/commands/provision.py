"""`manage.py provision`: everything an inventory needs before its processes start, in one idempotent step."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from datamodel import auth, env, keys, sealing
from datamodel.identity import ensure_identity, ensure_site
from datamodel.models import PreauthKeyPair, RemoteInventory
from datamodel.permissions import ALL_GRANTS


class Command(BaseCommand):
    help = (
        "Migrate, then make sure of identity, site row, signing key, operator token, admin user and remotes, as the "
        "environment says (INVENTORY_OPERATOR_TOKEN, INVENTORY_ADMIN_USER, INVENTORY_ADMIN_PASSWORD, INVENTORY_REMOTES)."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--no-migrate", action="store_true", help="the migrations were applied by another job")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["no_migrate"]:
            call_command("migrate", interactive=False, verbosity=0, skip_checks=True)
        identity = ensure_identity()
        if settings.INVENTORY_ROLE == "site":
            ensure_site(
                resource_id=settings.INVENTORY_RESOURCE_ID,
                allow_read=settings.INVENTORY_ALLOW_READ,
                allow_write=settings.INVENTORY_ALLOW_WRITE,
            )
        self._ensure_callers()
        self._ensure_remotes()
        for step in settings.PROVISION_STEPS:
            import_string(step)()
        self.stdout.write(f"{settings.INVENTORY_ROLE} {settings.INVENTORY_NAME} is provisioned ({identity.inventory_id})")

    def _ensure_callers(self) -> None:
        now = datetime.now(UTC)
        if settings.INVENTORY_ROLE == "global" and not PreauthKeyPair.objects.exists():
            keys.create_key_pair(now=now, active_from=now)
        if token := env.text("INVENTORY_OPERATOR_TOKEN", ""):
            auth.create_api_token(name="operator", grants=ALL_GRANTS, now=now, token=token)
        user, password = env.text("INVENTORY_ADMIN_USER", ""), env.text("INVENTORY_ADMIN_PASSWORD", "")
        users = get_user_model().objects
        if user and password and not users.filter(username=user).exists():
            users.create_superuser(username=user, email="", password=password)

    def _ensure_remotes(self) -> None:
        for entry in _remotes():
            token = env.text("INVENTORY_REMOTE_TOKEN", "") if "token" not in entry else entry["token"]
            RemoteInventory.objects.update_or_create(
                name=entry["name"],
                defaults={
                    "role": entry["role"],
                    "url": entry["url"].rstrip("/"),
                    "token": sealing.seal(token.encode()),
                },
            )


def _remotes() -> list[dict[str, str]]:
    """`INVENTORY_REMOTES`: a JSON list of {name, role, url[, token]}; the token defaults to INVENTORY_REMOTE_TOKEN."""
    try:
        entries = json.loads(env.text("INVENTORY_REMOTES", "[]"))
        complete = all({"name", "role", "url"} <= entry.keys() for entry in entries)
    except (ValueError, AttributeError, TypeError) as error:
        raise CommandError(f"INVENTORY_REMOTES is not a JSON list of objects: {error}") from error
    known = all(entry["role"] in RemoteInventory.Role.values for entry in entries) if complete else False
    if not complete or not known:
        raise CommandError("each of INVENTORY_REMOTES needs name, url and role (site or global)")
    return list(entries)
