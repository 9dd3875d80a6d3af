"""Other inventories as this one knows them by their keys, and what they call it with."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from django.test import Client

from datamodel import keys, service_tokens
from datamodel.models import InventoryIdentity, PreauthKeyPair, RemoteInventory
from datamodel.preauth import SigningKey
from datamodel.statements import BETWEEN_INVENTORIES, signed_statement


@dataclass(frozen=True)
class Paired:
    """A paired inventory with its private key, which this one never sees."""

    remote: RemoteInventory
    key: SigningKey

    def token(self, *, kind: str = service_tokens.KIND, key: SigningKey | None = None, **changes: object) -> str:
        """A token as it would sign one now, for us; a claim that is None is left out."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": str(self.remote.inventory_id),
            "aud": str(InventoryIdentity.objects.get().inventory_id),
            "iat": now,
            "exp": now + service_tokens.SECONDS,
        }
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return signed_statement(key or self.key, claims, kind=kind, algorithm=BETWEEN_INVENTORIES)

    def client(self) -> Client:
        """Its calls of us."""
        return Client(headers={"Authorization": f"Bearer {self.token()}"})


def pair(remote: RemoteInventory) -> Paired:
    """As if it had been paired by a code; we have keys then, too."""
    now = datetime.now(UTC)
    if not PreauthKeyPair.objects.exists():
        keys.create_key_pair(now=now, active_from=now)
    key = SigningKey.generate(uuid.uuid4().hex[:8])
    remote.inventory_id = remote.inventory_id or uuid.uuid4()
    remote.paired_at, remote.token = now, b""
    remote.save()
    keys.replace_trusted_keys(remote=remote, keys={key.key_id: key.public_bytes}, now=now)
    return Paired(remote, key)


def paired(name: str, *, role: str, url: str = "") -> Paired:
    """A new one."""
    return pair(RemoteInventory.objects.create(name=name, role=role, url=url or f"http://{name}.test"))
