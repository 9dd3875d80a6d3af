"""System checks of keys and signed URLs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register
def key_times_fit(app_configs: Sequence[AppConfig] | None, **_options: Any) -> list[CheckMessage]:
    """A URL signed by the last moment of a key must be verifiable until it expires, so the overlap must be as long."""
    del app_configs
    if settings.INVENTORY_KEY_OVERLAP.total_seconds() >= settings.INVENTORY_URL_SECONDS:
        return []
    complaint = "INVENTORY_KEY_OVERLAP_SECONDS is shorter than INVENTORY_URL_SECONDS: URLs would outlive their key"
    return [Error(complaint, id="inventory.E042")]
