"""Runs, findings and quarantine: what was compared, what differs, and whose bytes are kept apart."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from datamodel.models.fields import MillisField, UriField


class ValidationRun(models.Model):
    """One comparison of inventory and storage, bucket after bucket; `next_bucket` is its cursor ("" when it is through).

    `digits` is how many hex digits of a storage bucket make one step: more of them in a large store.
    The lease says which process is at it; whoever lost it cannot commit. Counts are by label, over all buckets so far.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        COMPLETE = "complete"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    policy = models.CharField(max_length=32)
    bucket_prefix = models.CharField(max_length=3, blank=True, default="")
    digits = models.SmallIntegerField()
    started_by = models.CharField(max_length=150)
    started_at = models.DateTimeField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.RUNNING)
    next_bucket = models.CharField(max_length=3, blank=True, default="")
    artifacts = models.BigIntegerField(default=0)
    objects_seen = models.BigIntegerField(default=0)
    bytes_seen = models.BigIntegerField(default=0)
    counts = models.JSONField(default=dict)
    not_kept = models.BigIntegerField(default=0)
    lease_holder = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    last_error = models.TextField(default="", blank=True)

    class Meta:
        db_table = "validation_run"
        indexes = (models.Index(fields=["-started_at"], name="validation_run_by_age"),)
        constraints = (
            models.UniqueConstraint(
                fields=["policy", "bucket_prefix"], condition=Q(state="running"), name="validation_run_one_at_a_time"
            ),
            models.CheckConstraint(
                name="validation_run_finished",
                condition=Q(state="running", finished_at__isnull=True)
                | Q(state="complete", finished_at__isnull=False, next_bucket=""),
            ),
            models.CheckConstraint(
                name="validation_run_lease_whole",
                condition=Q(lease_holder__isnull=True, lease_until__isnull=True)
                | Q(lease_holder__isnull=False, lease_until__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.policy} {self.bucket_prefix or 'all'} {self.started_at:%Y-%m-%d %H:%M}"


class ValidationFinding(models.Model):
    """One place in the store where the sides differ: why (`label`), what would mend it (`action`), whose and how many bytes.

    `open` until somebody applies it, or a later run finds nothing there any more (then the row goes). `applied`: done. `changed`: when
    it was looked at again before acting it was no longer so, and nothing was done.
    """

    class State(models.TextChoices):
        OPEN = "open"
        APPLIED = "applied"
        CHANGED = "changed"

    run = models.ForeignKey(ValidationRun, on_delete=models.CASCADE, related_name="findings")
    policy = models.CharField(max_length=32)
    label = models.CharField(max_length=32)
    action = models.CharField(max_length=24)
    storage_bucket = models.CharField(max_length=512, db_collation="C")
    storage_id = models.CharField(max_length=512, db_collation="C")
    artifact_id = models.UUIDField(null=True)
    uri = UriField(null=True)
    content_length = models.BigIntegerField(null=True)
    detail = models.TextField(default="")
    first_seen_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    state_at = models.DateTimeField()
    decided_by = models.CharField(max_length=150, default="")

    class Meta:
        db_table = "validation_finding"
        indexes = (
            models.Index(fields=["state", "label", "id"], name="validation_finding_list"),
            models.Index(fields=["uri"], condition=Q(uri__isnull=False), name="validation_finding_uri"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["policy", "storage_bucket", "storage_id"],
                condition=Q(state="open"),
                name="validation_finding_once",
            ),
        )

    def __str__(self) -> str:
        return f"{self.label}: {self.uri or self.storage_id}"


class QuarantinedObject(models.Model):
    """Bytes in the store that the inventory does not know or does not believe: kept, not served, until an operator decides.

    The bytes stay where they are under the same storage id. `removing` is committed before a byte is touched, `purged` after.
    """

    class State(models.TextChoices):
        QUARANTINED = "quarantined"
        REMOVING = "removing"
        PURGED = "purged"
        RESTORED = "restored"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    storage_bucket = models.CharField(max_length=512, db_collation="C")
    storage_id = models.CharField(max_length=512, db_collation="C")
    label = models.CharField(max_length=32)
    detail = models.TextField(default="")
    artifact_id = models.UUIDField(null=True)
    uri = UriField(null=True)
    content_checksum = models.CharField(max_length=136, null=True)
    content_length = models.BigIntegerField(null=True)
    content_type = models.CharField(max_length=128, null=True)
    content_encoding = models.CharField(max_length=128, null=True)
    written_at = MillisField(null=True)
    quarantined_at = MillisField()
    quarantined_by = models.CharField(max_length=150)
    state = models.CharField(max_length=11, choices=State.choices, default=State.QUARANTINED)
    state_at = MillisField()
    decided_by = models.CharField(max_length=150, default="")
    reason = models.CharField(max_length=200, default="")

    class Meta:
        db_table = "quarantined_object"
        indexes = (
            models.Index(fields=["quarantined_at"], condition=Q(state="quarantined"), name="quarantined_by_age"),
            models.Index(fields=["state_at"], condition=Q(state="removing"), name="quarantined_removing"),
            models.Index(fields=["uri"], condition=Q(uri__isnull=False), name="quarantined_uri"),
        )
        constraints = (
            models.UniqueConstraint(fields=["storage_bucket", "storage_id"], name="quarantined_one_per_object"),
            models.CheckConstraint(
                name="quarantined_state_known", condition=Q(state__in=["quarantined", "removing", "purged", "restored"])
            ),
        )

    def __str__(self) -> str:
        return f"{self.label}: {self.uri or self.storage_id}"
