"""Signing keys of this inventory and trusted keys of others: made, rotated, sealed, remembered per process."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models import Q

from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.errors import NotConfiguredError
from datamodel.models import InventoryIdentity, PreauthKeyPair, RemoteInventory, TrustedKey
from datamodel.notify import Freshness
from datamodel.preauth import SigningKey
from datamodel.sealing import seal, unseal

_CACHE_SECONDS = 5.0
# A key that was fetched a moment ago must be found; somebody who invents key ids must not cost a query each.
_MISS_SECONDS = 0.25
_ROTATION_LOCK_SQL = "SELECT pg_advisory_xact_lock(hashtextextended('rotate-keys', 0))"


def create_key_pair(*, now: datetime, active_from: datetime) -> str:
    """A new pair, sealed; returns its key id. Sites must have fetched it by `active_from`."""
    key = SigningKey.generate(secrets.token_hex(4))
    with transaction.atomic():
        PreauthKeyPair.objects.create(
            name=key.key_id,
            public_key=key.public_bytes,
            private_key=seal(key.private_bytes),
            created_at=now,
            active_from=active_from,
        )
        facts = {"publicKey": key.public_bytes.hex(), "activeFrom": active_from.isoformat()}
        record(Action.KEY_CREATED, key.key_id, details=facts)
    return key.key_id


def rotate_keys(*, now: datetime, period: timedelta, overlap: timedelta, is_forced: bool = False) -> str | None:
    """Publish a new signing pair when the newest is older than `period` (or `is_forced`); it signs after `overlap`.

    One transaction, one rotation at a time. Returns the new key id, or None when nothing was due; so a repeat does nothing.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_ROTATION_LOCK_SQL)
        newest = PreauthKeyPair.objects.order_by("-created_at").values_list("created_at", flat=True).first()
        if newest is None:
            return create_key_pair(now=now, active_from=now)
        if not is_forced and now - newest < period:
            return None
        return rotate_key_pairs(now=now, overlap=overlap)


def rotate_key_pairs(*, now: datetime, overlap: timedelta) -> str:
    """A new pair that signs after `overlap`; the older ones are trusted until twice that.

    Of expired ones the private half is forgotten; the public half stays, because receipts and other evidence are verified with it.
    """
    with transaction.atomic():
        PreauthKeyPair.objects.filter(expires_at__lt=now).update(private_key=b"")
        PreauthKeyPair.objects.filter(expires_at__isnull=True).update(expires_at=now + 2 * overlap)
        return create_key_pair(now=now, active_from=now + overlap)


def signing_key(*, now: datetime) -> SigningKey:
    """The newest active pair. Raises `NotConfiguredError` before `manage.py provision` has run."""
    pair = PreauthKeyPair.objects.filter(active_from__lte=now).order_by("-active_from").first()
    if pair is None:
        raise NotConfiguredError("this inventory has no signing key: run manage.py provision")
    return SigningKey.from_bytes(pair.name, unseal(pair.private_key))


def valid_signing_keys(*, now: datetime) -> list[SigningKey]:
    """Every pair whose signatures are good and that has begun to sign, the newest first."""
    pairs = PreauthKeyPair.objects.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now), active_from__lte=now)
    return [SigningKey.from_bytes(pair.name, unseal(pair.private_key)) for pair in pairs.order_by("-active_from")]


def published_keys(*, now: datetime) -> dict[str, bytes]:
    """Key id → raw public key of every pair whose signatures are still good, also of one that is not yet active."""
    pairs = PreauthKeyPair.objects.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))
    return {pair.name: bytes(pair.public_key) for pair in pairs}


def historical_keys() -> dict[str, bytes]:
    """Key id → raw public key of every pair that this inventory ever had: for evidence, never for trust."""
    return {name: bytes(raw) for name, raw in PreauthKeyPair.objects.values_list("name", "public_key")}


def replace_trusted_keys(*, remote: RemoteInventory, keys: dict[str, bytes], now: datetime) -> None:
    """What a remote publishes now is what we trust of it: keys that it no longer publishes go.

    Nothing happens if it was revoked, paired or switched off since it was read.
    """
    with transaction.atomic():
        same = RemoteInventory.objects.select_for_update().filter(
            id=remote.id, enabled=True, paired_at=remote.paired_at
        )
        if not same.exists():
            return
        known = {key.name: bytes(key.public_key) for key in TrustedKey.objects.filter(remote=remote)}
        if known != keys:
            told = {"keys": {name: key.hex() for name, key in keys.items()}, "gone": sorted(known.keys() - keys.keys())}
            record(Action.KEYS_TRUSTED, remote.name, details=told)
        TrustedKey.objects.filter(remote=remote).exclude(name__in=keys).delete()
        transaction.on_commit(trust_cache.clear)
        for name, public_key in keys.items():
            TrustedKey.objects.update_or_create(
                remote=remote,
                name=name,
                defaults={"public_key": public_key, "fetched_at": now},
                create_defaults={"id": uuid.uuid4(), "public_key": public_key, "fetched_at": now},
            )


@dataclass(frozen=True, slots=True)
class Peer:
    """A paired inventory, by its name here, and its public keys by id."""

    name: str
    role: RemoteInventory.Role
    inventory_id: uuid.UUID
    keys: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom we trust for what: keys (by id) of signed URLs, which only globals sign; paired inventories by id. And who we are."""

    own_id: uuid.UUID | None
    url_keys: Mapping[str, bytes]
    peers: Mapping[uuid.UUID, Peer]


def load_trust() -> Trust:
    """As it is now: of every remote that is enabled."""
    url_keys: dict[str, bytes] = {}
    peers: dict[uuid.UUID, Peer] = {}
    for row in TrustedKey.objects.filter(remote__enabled=True).select_related("remote"):
        remote, raw = row.remote, bytes(row.public_key)
        if remote.role == RemoteInventory.Role.GLOBAL:
            url_keys[row.name] = raw
        if remote.paired_at is not None and remote.inventory_id is not None:
            known = peers.get(remote.inventory_id)
            keys = {**(known.keys if known is not None else {}), row.name: raw}
            peers[remote.inventory_id] = Peer(remote.name, RemoteInventory.Role(remote.role), remote.inventory_id, keys)
    return Trust(own_id(), url_keys, peers)


def own_id() -> uuid.UUID | None:
    """The id of this inventory; None before `manage.py provision` has run."""
    return InventoryIdentity.objects.values_list("inventory_id", flat=True).first()


class TrustCache:
    """Verification costs no query: what this process knows is dropped when somebody tells of a change, or cannot be heard.

    For what is not known it looks anew: a key that came a moment ago must be found. Somebody who invents names costs few queries.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trust = Trust(None, {}, {})
        self._freshness: Freshness | None = None

    def url_keys(self, wanted: str | None) -> Mapping[str, bytes]:
        """All keys of signed URLs, with the wanted one if it is known by now."""
        return self._get(lambda trust: wanted in trust.url_keys).url_keys

    def peer(self, inventory_id: uuid.UUID, key_id: str) -> Peer | None:
        """A paired inventory, with this key if it is known by now."""

        def has_it(trust: Trust) -> bool:
            peer = trust.peers.get(inventory_id)
            return peer is not None and key_id in peer.keys

        return self._get(has_it).peers.get(inventory_id)

    def own_id(self) -> uuid.UUID | None:
        """The id of this inventory; None before `manage.py provision` has run."""
        return self._get(lambda trust: trust.own_id is not None).own_id

    def clear(self) -> None:
        self._freshness = None

    def _get(self, is_enough: Callable[[Trust], bool]) -> Trust:
        with self._lock:
            known = self._freshness
            is_good = known is not None and known.is_good
            if not is_good or (not is_enough(self._trust) and known is not None and known.age > _MISS_SECONDS):
                # Taken before reading: what changes meanwhile makes it stale.
                freshness = Freshness.now()
                self._trust = load_trust()
                self._freshness = freshness
            return self._trust


class SigningKeyCache:
    """Signing costs no query and no unsealing: this process's key is at most five seconds old, so rotation needs no restart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: SigningKey | None = None
        self._read_at = float("-inf")

    def get(self) -> SigningKey:
        """Raises `NotConfiguredError` before `manage.py provision` has run."""
        with self._lock:
            if self._key is None or time.monotonic() - self._read_at > _CACHE_SECONDS:
                self._key, self._read_at = signing_key(now=datetime.now(UTC)), time.monotonic()
            return self._key

    def clear(self) -> None:
        with self._lock:
            self._key = None


trust_cache = TrustCache()
signing_key_cache = SigningKeyCache()
