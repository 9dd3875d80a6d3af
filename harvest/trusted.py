"""The keys of those whom we trust, as they publish them now; and the alarm when that fails for so long that it will matter."""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q, QuerySet

from datamodel import key_statements, keys
from datamodel.alarms.models import Alarm
from datamodel.alarms.operations import clear_alarms, raise_alarm
from datamodel.alarms.rules import AlarmKind
from datamodel.errors import InventoryError
from datamodel.models import RemoteInventory
from harvest import client
from harvest.client import Remote

logger = logging.getLogger(__name__)

_LONG = timedelta(hours=1)


def refresh_all() -> None:
    """Each remote's; an alarm is over for whoever has answered, or is not trusted any more."""
    failed = [remote.name for remote in remotes() if not refresh(remote)]
    alarms = Alarm.objects.filter(kind=AlarmKind.STALE_KEYS.value)
    clear_alarms(alarms=alarms.exclude(subject__in=failed), by="key refresh")


def remotes() -> QuerySet[RemoteInventory]:
    """Every paired one, and every global."""
    is_trusted = Q(paired_at__isnull=False) | Q(role=RemoteInventory.Role.GLOBAL)
    return RemoteInventory.objects.filter(is_trusted, enabled=True)


def refresh(remote: RemoteInventory) -> bool:
    """False when it failed: the keys stay that are known. Those of a paired remote are believed only if one of these has signed them."""
    try:
        published = client.fetch_public_keys(Remote.of(remote), believed=_believer(remote))
    except InventoryError as error:
        facts = {"remote": remote.name, "result": "failed", "reason": error.code, "detail": error.detail}
        logger.warning("END event=refresh_trusted_keys", extra={"facts": facts})
        _note_failure(remote, error, now=datetime.now(UTC))
        return False
    keys.replace_trusted_keys(remote=remote, keys=published, now=datetime.now(UTC))
    return True


def _note_failure(remote: RemoteInventory, error: InventoryError, *, now: datetime) -> None:
    """An alarm once its keys are old, so long before it may sign with others; and for one that answers, but has none that we know."""
    fetched_at = remote.trusted_keys.aggregate(latest=Max("fetched_at"))["latest"]
    if fetched_at is None:
        is_long, since = remote.last_contact_at is not None, "were never fetched"
    else:
        is_long = now - fetched_at > min(_LONG, settings.INVENTORY_KEY_OVERLAP / 2)
        since = f"could not be fetched since {fetched_at:%Y-%m-%d %H:%M} UTC"
    if is_long:
        with transaction.atomic():
            text = f"the keys of {remote.name} {since}: {error.detail}"
            raise_alarm(kind=AlarmKind.STALE_KEYS, subject=remote.name, text=text)


def _believer(remote: RemoteInventory) -> Callable[[str, bytes], None] | None:
    if remote.paired_at is None or remote.inventory_id is None:
        return None
    trusted = {key.name: bytes(key.public_key) for key in remote.trusted_keys.all()}
    return functools.partial(_believe, inventory_id=remote.inventory_id, trusted=trusted)


def _believe(statement: str, document: bytes, *, inventory_id: uuid.UUID, trusted: dict[str, bytes]) -> None:
    key_statements.verify(statement, document, inventory_id=inventory_id, trusted=trusted)
