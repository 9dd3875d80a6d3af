"""Keys and tokens: who may call us, and who signs transfer URLs."""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from datamodel.models.harvest import RemoteInventory


class PreauthKeyPair(models.Model):
    """An Ed25519 key pair of this inventory for signing URLs and statements. The private half is sealed (`sealing.py`), and
    emptied some time after it expired.

    Signing uses the newest pair with `active_from` in the past; verification accepts every pair until `expires_at`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=32, unique=True)
    public_key = models.BinaryField()
    private_key = models.BinaryField()
    created_at = models.DateTimeField()
    active_from = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "preauth_key_pair"

    def __str__(self) -> str:
        return self.name


class TrustedKey(models.Model):
    """A public key of another inventory, as last fetched from it; `name` is the key id in its tokens."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    remote = models.ForeignKey(RemoteInventory, on_delete=models.CASCADE, related_name="trusted_keys")
    name = models.CharField(max_length=32)
    public_key = models.BinaryField()
    fetched_at = models.DateTimeField()

    class Meta:
        db_table = "trusted_key"
        constraints = (models.UniqueConstraint(fields=["remote", "name"], name="trusted_key_once"),)

    def __str__(self) -> str:
        return f"{self.name} of {self.remote}"


class PairingInvitation(models.Model):
    """A one-time code for another inventory; `proof_key` is what its secret was hashed to, sealed.

    It is spent by `accepted_by`, who alone may repeat; failed attempts are counted, and too many, or `voided_at`, end it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64)
    role = models.CharField(max_length=6, choices=RemoteInventory.Role.choices)
    proof_key = models.BinaryField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    attempts = models.IntegerField(default=0)
    accepted_by = models.UUIDField(null=True)
    accepted_at = models.DateTimeField(null=True)
    voided_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "pairing_invitation"
        indexes = (models.Index(fields=["name"], name="pairing_invitation_name"),)
        constraints = (
            models.CheckConstraint(
                name="pairing_invitation_accepted",
                condition=Q(accepted_by=None, accepted_at=None)
                | Q(accepted_by__isnull=False, accepted_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.role} {self.name}"


class ApiToken(models.Model):
    """A bearer token of a named caller; only its SHA-256 is kept. `grants` are words of `grants.Grant`.

    `prefixes` and `methods` limit what it may do (empty: no limit). After a rotation the secret before is good until
    `previous_until`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64, unique=True)
    digest = models.CharField(max_length=64, unique=True)
    grants = ArrayField(models.CharField(max_length=16))
    prefixes = ArrayField(models.CharField(max_length=512), default=list, blank=True)
    methods = ArrayField(models.CharField(max_length=8), default=list, blank=True)
    previous_digest = models.CharField(max_length=64, unique=True, null=True)
    previous_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "api_token"
        constraints = (
            models.CheckConstraint(
                name="api_token_previous",
                condition=Q(previous_digest=None, previous_until=None)
                | Q(previous_digest__isnull=False, previous_until__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return self.name
