"""Whom alarms are told, as the settings say: e-mail addresses and webhooks."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from django.conf import settings

from datamodel.alarms.rules import Webhook, parse_secret
from datamodel.errors import NotConfiguredError

EMAIL = "email"
_FORM = '[{"name": "pager", "url": "https://…", "secret": "whsec_…"}]'


def has_email() -> bool:
    """Whether anybody gets mails."""
    return bool(settings.INVENTORY_ALARM_EMAIL_TO)


def webhooks() -> list[Webhook]:
    """Raises `NotConfiguredError` that names what is wrong; secrets are not quoted."""
    try:
        entries = json.loads(settings.INVENTORY_ALARM_WEBHOOKS)
    except json.JSONDecodeError as error:
        raise NotConfiguredError(f"INVENTORY_ALARM_WEBHOOKS is not JSON ({error}); it looks like {_FORM}") from None
    if not isinstance(entries, list):
        raise NotConfiguredError(f"INVENTORY_ALARM_WEBHOOKS must be a list like {_FORM}")
    found = [_webhook(entry) for entry in entries]
    names = [webhook.name for webhook in found]
    if len(set(names)) < len(names):
        raise NotConfiguredError("INVENTORY_ALARM_WEBHOOKS: each name may be used once")
    return found


def names() -> list[str]:
    """Every channel, as rows of the outbox call it. Raises `NotConfiguredError`."""
    return [*([EMAIL] if has_email() else []), *(webhook.name for webhook in webhooks())]


def _webhook(entry: object) -> Webhook:
    keys = ("name", "url", "secret")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in keys):
        raise NotConfiguredError(f"INVENTORY_ALARM_WEBHOOKS: each entry is like those of {_FORM}")
    name, url = entry["name"], entry["url"]
    if not (name and name != EMAIL and len(name) <= 64):
        raise NotConfiguredError(
            f"INVENTORY_ALARM_WEBHOOKS: {name!r} is no name of a webhook (1 to 64 characters, not {EMAIL})"
        )
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise NotConfiguredError(f"INVENTORY_ALARM_WEBHOOKS: the url of {name} must be an http or https URL")
    try:
        return Webhook(name, url, parse_secret(entry["secret"]))
    except ValueError as error:
        raise NotConfiguredError(f"INVENTORY_ALARM_WEBHOOKS: {error} (that of {name} is not)") from None
