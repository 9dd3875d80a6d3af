"""Who is paired, known without being paired, or revoked; and whose codes are open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import Count

from datamodel.models import PairingInvitation, RemoteInventory
from datamodel.pairing.rules import MOST_ATTEMPTS
from datamodel.wire import time_text

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Standing:
    """One peer, or an invitation that nobody has accepted; `state`: paired, unpaired, revoked, disabled, invited."""

    name: str
    role: str
    state: str
    url: str
    inventory_id: str
    keys: int
    since: datetime | None

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "role": self.role,
            "state": self.state,
            "url": self.url,
            "inventoryId": self.inventory_id or None,
            "keys": self.keys,
            "since": time_text(self.since) if self.since is not None else None,
        }


def standings() -> list[Standing]:
    """Everybody, by name."""
    return sorted([*_remotes(), *_invited()], key=lambda one: (one.name, one.state))


def _remotes() -> Iterator[Standing]:
    for row in RemoteInventory.objects.annotate(keys=Count("trusted_keys")).order_by("name")[:_MOST]:
        yield _standing(row, row.keys)


def standing_of(remote: RemoteInventory) -> Standing:
    """One of them."""
    return _standing(remote, remote.trusted_keys.count())


def _standing(row: RemoteInventory, keys: int) -> Standing:
    state, since = _state(row)
    inventory_id = str(row.inventory_id) if row.inventory_id is not None else ""
    return Standing(row.name, row.role, state, row.url, inventory_id, keys, since)


def _state(row: RemoteInventory) -> tuple[str, datetime | None]:
    if row.revoked_at is not None:
        return "revoked", row.revoked_at
    if not row.enabled:
        return "disabled", row.paired_at
    return ("paired", row.paired_at) if row.paired_at is not None else ("unpaired", None)


def _invited() -> Iterator[Standing]:
    rows = PairingInvitation.objects.filter(
        accepted_at__isnull=True, voided_at__isnull=True, expires_at__gt=datetime.now(UTC), attempts__lt=MOST_ATTEMPTS
    )
    for row in rows.order_by("name")[:_MOST]:
        yield Standing(row.name, row.role, "invited", "", "", 0, row.created_at)
