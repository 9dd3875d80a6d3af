"""Signing keys of this inventory and trusted keys of others: made, rotated, sealed, cached per process for a short time."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.db.models import Q

from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.errors import NotConfiguredError
from datamodel.models import PreauthKeyPair, RemoteInventory, TrustedKey
from datamodel.preauth import SigningKey
from datamodel.sealing import seal, unseal

_CACHE_SECONDS = 5.0
# A key that was fetched a moment ago must be found; somebody who invents key ids must not cost a query each.
_MISS_SECONDS = 0.25


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


def rotate_key_pairs(*, now: datetime, overlap: timedelta) -> str:
    """A new pair that signs after `overlap`; the older ones verify until twice that; long expired ones are forgotten."""
    with transaction.atomic():
        PreauthKeyPair.objects.filter(expires_at__lt=now).delete()
        PreauthKeyPair.objects.filter(expires_at__isnull=True).update(expires_at=now + 2 * overlap)
        return create_key_pair(now=now, active_from=now + overlap)


def signing_key(*, now: datetime) -> SigningKey:
    """The newest active pair. Raises `NotConfiguredError` before `manage.py provision` has run."""
    pair = PreauthKeyPair.objects.filter(active_from__lte=now).order_by("-active_from").first()
    if pair is None:
        raise NotConfiguredError("this inventory has no signing key: run manage.py provision")
    return SigningKey.from_bytes(pair.name, unseal(pair.private_key))


def published_keys(*, now: datetime) -> dict[str, bytes]:
    """Key id → raw public key of every pair whose signatures are still good, also of one that is not yet active."""
    pairs = PreauthKeyPair.objects.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))
    return {pair.name: bytes(pair.public_key) for pair in pairs}


def trusted_keys() -> dict[str, bytes]:
    """Key id → raw public key of every enabled remote that signs."""
    keys = TrustedKey.objects.filter(remote__enabled=True)
    return {key.name: bytes(key.public_key) for key in keys}


def replace_trusted_keys(*, remote: RemoteInventory, keys: dict[str, bytes], now: datetime) -> None:
    """What a remote publishes now is what we trust of it: keys that it no longer publishes go."""
    with transaction.atomic():
        known = {key.name: bytes(key.public_key) for key in TrustedKey.objects.filter(remote=remote)}
        if known != keys:
            told = {"keys": {name: key.hex() for name, key in keys.items()}, "gone": sorted(known.keys() - keys.keys())}
            record(Action.KEYS_TRUSTED, remote.name, details=told)
        TrustedKey.objects.filter(remote=remote).exclude(name__in=keys).delete()
        for name, public_key in keys.items():
            TrustedKey.objects.update_or_create(
                remote=remote,
                name=name,
                defaults={"public_key": public_key, "fetched_at": now},
                create_defaults={"id": uuid.uuid4(), "public_key": public_key, "fetched_at": now},
            )


class TrustedKeyCache:
    """Verification costs no query: the keys of this process are at most five seconds old, and looked at anew for an unknown id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, bytes] = {}
        self._read_at = float("-inf")

    def get(self, wanted: str | None) -> dict[str, bytes]:
        """All trusted keys, with the wanted one if it is known by now."""
        with self._lock:
            allowed_age = _CACHE_SECONDS if wanted in self._keys else _MISS_SECONDS
            if time.monotonic() - self._read_at > allowed_age:
                self._keys, self._read_at = trusted_keys(), time.monotonic()
            return self._keys

    def clear(self) -> None:
        with self._lock:
            self._read_at = float("-inf")


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


trusted_key_cache = TrustedKeyCache()
signing_key_cache = SigningKeyCache()
