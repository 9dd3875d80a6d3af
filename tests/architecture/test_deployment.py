"""The shipped container's settings: Django's own checks for deployment find nothing, and no dump of them shows a secret."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.architecture.source import PROJECT

MARK = "very-secret-"
SECRETS = {
    "INVENTORY_SECRET_KEY": f"{MARK}0-djwmkqoienvbkslqpwoeirutyalskdjfhg-gqzmxncbv",
    "INVENTORY_SECRET_KEY_FALLBACKS": f"{MARK}1-djwmkqoienvbkslqpwoeirutyalskdjfhg-gqzmxncbv",
    "DATABASE_URL": f"postgresql://inventory:{MARK}2@database.example/inventory",
    "INVENTORY_DIRECT_DATABASE_URL": f"postgresql://inventory:{MARK}3@database.example/inventory",
    "REDIS_URL": f"rediss://:{MARK}4@redis.example:6379/0",
    "INVENTORY_EMAIL_URL": f"smtps://inventory:{MARK}5@mail.example",
    "INVENTORY_ALARM_WEBHOOKS": '[{"name": "chat", "url": "https://chat.example/", "secret": "whsec_'
    'dmVyeS1zZWNyZXQtdmVyeS1zZWNyZXQtdmVyeS1zZWNyZXQt"}]',
    "INVENTORY_S3_BUCKET": "artifacts",
    "INVENTORY_S3_ACCESS_KEY": "identity",
    "INVENTORY_S3_SECRET_KEY": f"{MARK}6",
    "INVENTORY_LOGIN_ISSUER": "https://login.example/",
    "INVENTORY_LOGIN_CLIENT_ID": "inventory",
    "INVENTORY_LOGIN_GROUPS": "operators",
    "INVENTORY_LOGIN_CLIENT_SECRET": f"{MARK}10",
    "INVENTORY_OPERATOR_TOKEN": f"{MARK}7",
    "INVENTORY_REMOTES": f'[{{"name": "x", "role": "global", "url": "https://x.example", "token": "{MARK}8"}}]',
    "INVENTORY_ADMIN_PASSWORD": f"{MARK}9",
}
SCRIPT = """
import django; django.setup()
from django.core.management import call_command
from django.conf import settings
from django.test import RequestFactory, override_settings
from django.views.debug import technical_500_response
call_command("check", deploy=True, fail_level="WARNING")
call_command("diffsettings", all=True)

try:
    raise RuntimeError("seen")
except RuntimeError as error:
    with override_settings(DEBUG=True):
        page = technical_500_response(RequestFactory().get("/"), type(error), error, error.__traceback__)
print(page.content.decode())
print({name: getattr(settings, name) for name in dir(settings)})
"""


def container(role: str) -> dict[str, str]:
    """What the image sets, and what the README asks for."""
    found = re.findall(r"^ENV (.*)$", (PROJECT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    image = dict(pair.split("=", 1) for line in found for pair in line.split())
    assert image
    asked = {
        "INVENTORY_ROLE": role,
        "INVENTORY_PUBLIC_URL": "https://archive.example/alpha",
        "INVENTORY_BASE_PATH": "/alpha",
    }
    package = {"site": "site_service", "global": "global_inventory"}[role]
    return image | asked | SECRETS | {"DJANGO_SETTINGS_MODULE": f"{package}.settings", "PATH": os.environ["PATH"]}


@pytest.mark.parametrize("role", ["site", "global"])
def test_the_container_is_fit_for_deployment_and_tells_no_secret(role: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=PROJECT, env=container(role), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "seen" in ran.stdout
    assert "database.example" in ran.stdout
    assert MARK not in ran.stdout + ran.stderr
    assert "dmVyeS1zZWNyZXQ" not in ran.stdout
