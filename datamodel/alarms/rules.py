"""Kinds of alarms, when a delivery is tried again, and what a webhook's signature is. No Django, no clock, no I/O."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from enum import StrEnum

_FIRST_RETRY_SECONDS = 15
_LONGEST_RETRY_SECONDS = 3600
_SECRET_PREFIX = "whsec_"  # noqa: S105  # a prefix of secrets, none itself
_LEAST_SECRET_BYTES = 24


class AlarmKind(StrEnum):
    """Each has an entry in RUNBOOK.md and a rule in alerts.yaml."""

    DELETION_BRAKE = "deletion_brake"
    NO_GOOD_COPY = "no_good_copy"
    DAMAGED_COPY = "damaged_copy"
    UNREADABLE_STORE = "unreadable_store"
    QUARANTINED_OBJECT = "quarantined_object"
    VALIDATION_DIFFERENCES = "validation_differences"
    RECONCILE_REMOVALS = "reconcile_removals"
    REJECTED_ROWS = "rejected_rows"
    LOST_COLLISION = "lost_collision"
    HISTORY_GONE = "history_gone"
    FORGOTTEN_ARTIFACTS = "forgotten_artifacts"
    STALE_KEYS = "stale_keys"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where alarms are posted; `secret` is what both ends know."""

    name: str
    url: str
    secret: bytes = field(repr=False)


def retry_seconds(attempts: int) -> int:
    """How long to wait after so many failed attempts: 15 s, 30 s, … up to an hour, for as long as it takes."""
    return int(min(_FIRST_RETRY_SECONDS * 2 ** min(max(attempts - 1, 0), 20), _LONGEST_RETRY_SECONDS))


def parse_secret(text: str) -> bytes:
    """The key in `whsec_` + base64, as Standard Webhooks writes it. Raises `ValueError`."""
    if not text.startswith(_SECRET_PREFIX):
        raise ValueError(f"a secret is {_SECRET_PREFIX} and base64")
    try:
        raw = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"a secret is {_SECRET_PREFIX} and base64") from None
    if len(raw) < _LEAST_SECRET_BYTES:
        raise ValueError(f"a secret has at least {_LEAST_SECRET_BYTES} bytes")
    return raw


def signature(secret: bytes, *, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: HMAC-SHA256 of id, time and body, so that none can be changed or replayed later."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    return f"v1,{base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()}"


def family_of(uri: str) -> str:
    """What alarms about files are gathered under: the first part of their names, `cadc:CFHT/` of `cadc:CFHT/raw/1.fits`."""
    head, slash, _ = uri.partition("/")
    return f"{head}/" if slash else f"{head.partition(':')[0]}:"
