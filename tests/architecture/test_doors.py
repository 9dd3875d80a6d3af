"""Every address is opened by a rule or is on the list of public ones, and the rules hold: nobody without rights gets in."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from pytest_django import Settings

from datamodel import auth
from datamodel.doors import DoorRule, rule_of
from datamodel.models import InventoryIdentity
from site_service.storage import registry
from site_service.storage.filesystem import FilesystemStore

PACKAGES = {"site": "site_service", "global": "global_inventory"}
# Open to anyone, and why that harms nobody.
PUBLIC = {
    "": "the landing page; its counts are for those who may read everything",
    "livez": "a probe",
    "readyz": "a probe; names what fails",
    "availability": "VOSI, read by other services before they have credentials",
    "capabilities": "VOSI, the same",
    "pubkey": "public keys",
    "pairings/<uuid:invitation>/redemption": "for whoever proves to know the secret of a one-time code",
    "schema": "the API as it is published",
    "docs": "the same, for reading",
    "files": "a redirect to files/",
}
# Django's admin asks for its own permissions in every view; who is not signed in comes to `login`.
ADMIN = "admin/"
ADMIN_PUBLIC = {"login/", "logout/", "jsi18n/"}


def patterns(found: list[URLPattern | URLResolver], prefix: str = "") -> Iterator[tuple[str, object]]:
    for pattern in found:
        name = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern.url_patterns, name)
        else:
            yield name, pattern.callback


def doors(role: str) -> dict[str, object]:
    return dict(patterns(get_resolver(f"{PACKAGES[role]}.urls").url_patterns))


@pytest.mark.parametrize("role", PACKAGES)
def test_every_address_declares_its_rule_or_is_on_the_list_of_public_ones(role: str) -> None:
    found = {name: view for name, view in doors(role).items() if not name.startswith(ADMIN)}
    assert len(found) > 15
    silent = [name for name, view in found.items() if name not in PUBLIC and rule_of(view) is None]
    assert silent == [], "declare its rule: see datamodel/doors.py"
    assert [name for name, view in found.items() if name in PUBLIC and rule_of(view) is not None] == []


def test_the_list_of_public_addresses_names_what_exists() -> None:
    assert PUBLIC.keys() - {name for role in PACKAGES for name in doors(role)} == set()


def test_rules_name_rights() -> None:
    rules = [rule_of(view) for role in PACKAGES for view in doors(role).values()]
    declared = [rule for rule in rules if isinstance(rule, DoorRule)]
    assert len(declared) > 25
    assert all(rule.grants for rule in declared)


EXAMPLES = [
    (r"<path:\w+>", "cadc:A"),
    (r"<uuid:\w+>", str(uuid.UUID(int=1))),
    (r"<int:\w+>|<\w+>", "1"),
    (r"\^files/.*", "files/cadc:A"),
    (r"\(\?P<app_label>[^)]*\)", "datamodel"),
    (r"\(\?P<\w+>[^)]*\)", "x"),
    (r"[\^$]|\\Z", ""),
]


def address_of(name: str) -> str:
    for form, example in EXAMPLES:
        name = re.sub(form, example, name)
    return f"/{name}"


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@pytest.mark.parametrize("role", PACKAGES)
@pytest.mark.parametrize("who", ["anonymous", "without rights"])
def test_nobody_without_rights_gets_anything_at_any_door(
    inventory: InventoryIdentity, settings: Settings, tmp_path: Path, role: str, who: str
) -> None:
    settings.ROOT_URLCONF = f"{PACKAGES[role]}.urls"
    settings.INVENTORY_ROLE = role
    options = {"root": str(tmp_path / "storage")}
    FilesystemStore.create(tmp_path / "storage")
    backend = {"BACKEND": "site_service.storage.filesystem.FilesystemStore", "OPTIONS": options}
    settings.STORAGES = {**settings.STORAGES, "artifacts": backend}
    registry.get_store.cache_clear()
    secret = auth.create_api_token(name="nobody", grants=frozenset(), now=datetime.now(UTC))
    client = Client(headers={"Authorization": f"Bearer {secret}"} if who == "without rights" else {})
    refusals = {401, 403, 405} if who == "without rights" else {401, 405}
    tried = 0
    for name in doors(role):
        if name in PUBLIC or name.startswith(ADMIN):
            continue
        for method in METHODS:
            status = client.generic(method, address_of(name), '{"uri": "cadc:A"}', "application/json").status_code
            assert status in refusals, (method, name, status)
            tried += 1
    registry.get_store.cache_clear()
    assert tried > 60


@pytest.mark.parametrize("role", PACKAGES)
def test_the_admin_shows_nothing_to_whoever_is_not_signed_in(
    inventory: InventoryIdentity, settings: Settings, role: str
) -> None:
    settings.ROOT_URLCONF = f"{PACKAGES[role]}.urls"
    names = [name for name in doors(role) if name.startswith(ADMIN)]
    assert len(names) > 50
    client = Client()
    for name in names:
        client.cookies.clear()
        response = client.get(address_of(name))
        if name.removeprefix(ADMIN) not in ADMIN_PUBLIC:
            assert (response.status_code, "/login/" in response.get("Location", "")) == (302, True), name
