"""The queue of file sync: what is missing here, who works on it, and how it went."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from datamodel.models.fields import UriField


class SyncAttempt(models.Model):
    """One artifact that this site should store and does not; the row goes when the bytes are here or nobody wants them.

    `is_repair`: a copy that was lost here, wanted whatever the policy says. `uri` and `content_length` are the artifact's
    and never change for an id. The lease says which unit of work has it and until when; an expired lease is no lease.
    """

    artifact_id = models.UUIDField(primary_key=True)
    uri = UriField()
    content_length = models.BigIntegerField()
    priority = models.IntegerField(default=0)
    is_repair = models.BooleanField(default=False)
    created_at = models.DateTimeField()
    attempts = models.IntegerField(default=0)
    next_try_at = models.DateTimeField()
    lease_holder = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    last_tried_at = models.DateTimeField(null=True)
    last_reason = models.CharField(max_length=32, default="")
    last_error = models.TextField(default="")

    class Meta:
        db_table = "sync_attempt"
        indexes = (
            # In this order the queue is worked off, so that a claim reads its head and stops: `next_try_at` is when the row
            # was made or, after failures, a time to come, so what waits lies behind what is due.
            models.Index(fields=["-priority", "next_try_at", "artifact_id"], name="sync_attempt_order"),
            models.Index(fields=["lease_holder"], condition=Q(lease_holder__isnull=False), name="sync_attempt_lease"),
        )
        constraints = (
            models.CheckConstraint(
                name="sync_attempt_lease_whole",
                condition=Q(lease_holder__isnull=True, lease_until__isnull=True)
                | Q(lease_holder__isnull=False, lease_until__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return str(self.uri)


class SyncScan(models.Model):
    """How far the search for missing artifacts has read: a cursor per kind of news in this inventory's own feed.

    Another epoch (a restore) or another policy makes it read from the start; for another policy the queue is judged again
    before, and `judged_id` is the last that was: none once all are.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    epoch = models.CharField(max_length=64, default="")
    policy = models.CharField(max_length=64, default="")
    known_txid = models.BigIntegerField(default=0)
    known_id = models.UUIDField(default=uuid.UUID(int=0))
    lost_txid = models.BigIntegerField(default=0)
    lost_id = models.UUIDField(default=uuid.UUID(int=0))
    judged_id = models.UUIDField(null=True)

    class Meta:
        db_table = "sync_scan"
        constraints = (models.CheckConstraint(name="sync_scan_one_row", condition=Q(id=1)),)


class SyncOutcome(models.Model):
    """How often a unit of work ended for which reason, since the beginning; the metrics' counters."""

    reason = models.CharField(max_length=32, primary_key=True)
    files = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)

    class Meta:
        db_table = "sync_outcome"
