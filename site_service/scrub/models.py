"""When each copy was last known good, what was found damaged, and the schedule. Nothing here is harvested."""

from __future__ import annotations

import uuid

from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import Q

from datamodel.models import StorageLocation
from datamodel.models.fields import MillisField, UriField


class ScrubPolicy(models.Model):
    """How the copies under one namespace are re-read; the longest matching namespace decides, without one the settings do."""

    namespace = UriField()
    period_seconds = models.BigIntegerField(help_text="every copy is re-read once in so long; 0: never")
    bytes_per_second = models.BigIntegerField(null=True, blank=True, help_text="empty: as in the settings; 0: no limit")
    from_hour = models.PositiveSmallIntegerField(
        default=0, validators=[MaxValueValidator(23)], help_text="hour of the day (UTC) from which it may run"
    )
    until_hour = models.PositiveSmallIntegerField(
        default=0, validators=[MaxValueValidator(23)], help_text="and until which; equal hours: the whole day"
    )
    note = models.CharField(max_length=200, default="", blank=True)

    class Meta:
        db_table = "scrub_policy"
        verbose_name = "scrub rule"
        ordering = ("namespace",)
        constraints = (
            models.UniqueConstraint(fields=["namespace"], name="scrub_policy_namespace"),
            models.CheckConstraint(
                name="scrub_policy_namespace_form", condition=Q(namespace__regex=r"^[A-Za-z].*[:/]$")
            ),
            models.CheckConstraint(
                name="scrub_policy_sound",
                condition=Q(period_seconds__gte=0, from_hour__lte=23, until_hour__lte=23)
                & (Q(bytes_per_second__isnull=True) | Q(bytes_per_second__gte=0)),
            ),
        )

    def __str__(self) -> str:
        return str(self.namespace)


class CopyVerification(models.Model):
    """When the bytes at one place of the store were last known good, and when they are read next (null: never).

    Made from this inventory's own feed, not on the way of a PUT: a location without a row is as good as its `stored_at`
    says, because bytes are verified while they are written. The row is about bytes, so it outlives their location: when
    that goes, a foreign key of the database empties `location`, and bytes that come back from retention are no better than
    they were. `namespace` is that of the rule which decides, "" for the settings.
    """

    class Result(models.TextChoices):
        WRITTEN = "written"
        READ = "read"
        UNREADABLE = "unreadable"
        NO_DIGEST = "no_digest"

    location = models.OneToOneField(
        StorageLocation,
        null=True,
        on_delete=models.DO_NOTHING,
        db_column="artifact_id",
        db_constraint=False,
        related_name="verification",
    )
    storage_id = models.CharField(max_length=512, db_collation="C")
    storage_bucket = models.CharField(max_length=512, db_collation="C")
    content_length = models.BigIntegerField()
    namespace = models.CharField(max_length=512, default="", db_collation="C")
    verified_at = MillisField()
    next_at = MillisField(null=True)
    result = models.CharField(max_length=10, choices=Result.choices, default=Result.WRITTEN)
    failures = models.IntegerField(default=0)

    class Meta:
        db_table = "copy_verification"
        indexes = (
            models.Index(
                fields=["namespace", "verified_at"],
                condition=Q(location__isnull=False),
                name="copy_verification_age",
            ),
            models.Index(
                fields=["namespace", "next_at"],
                condition=Q(location__isnull=False, next_at__isnull=False),
                name="copy_verification_due",
            ),
            models.Index(
                fields=["id"], condition=Q(result__in=["unreadable", "no_digest"]), name="copy_verification_odd"
            ),
            models.Index(fields=["id"], condition=Q(location__isnull=True), name="copy_verification_loose"),
        )
        constraints = (
            models.UniqueConstraint(fields=["storage_bucket", "storage_id"], name="copy_verification_one_per_object"),
        )

    def __str__(self) -> str:
        return f"{self.storage_bucket}/{self.storage_id}"


class ScrubProgress(models.Model):
    """How far this inventory's own feed was read, which schedule the rows follow, and who reads now: one at a time.

    `judged_id`: the rows after it still follow another schedule; null when all follow the present one.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    epoch = models.CharField(max_length=64, default="")
    known_txid = models.BigIntegerField(default=0)
    known_id = models.UUIDField(default=uuid.UUID(int=0))
    schedule = models.CharField(max_length=64, default="")
    judged_id = models.UUIDField(null=True)
    lease_holder = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)

    class Meta:
        db_table = "scrub_progress"
        constraints = (
            models.CheckConstraint(name="scrub_progress_one_row", condition=Q(id=1)),
            models.CheckConstraint(
                name="scrub_progress_lease_whole",
                condition=Q(lease_holder__isnull=True, lease_until__isnull=True)
                | Q(lease_holder__isnull=False, lease_until__isnull=False),
            ),
        )


class ScrubOutcome(models.Model):
    """How often reading a copy ended how, since the beginning; the metrics' counters."""

    result = models.CharField(max_length=16, primary_key=True)
    files = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)

    class Meta:
        db_table = "scrub_outcome"


class DamagedCopy(models.Model):
    """A copy that was taken out of service, and its bytes, which are kept: they may be the last there are.

    `damaged`: file sync repairs it; `unrepairable_since` when that found no good copy anywhere. `repaired`: a good copy is
    here again. `gone`: the artifact was deleted or replaced. `released`: after the retention time the bytes were given
    up for removal.
    """

    class State(models.TextChoices):
        DAMAGED = "damaged"
        REPAIRED = "repaired"
        GONE = "gone"
        RELEASED = "released"

    class Finding(models.TextChoices):
        MISSING = "missing"
        LENGTH = "length"
        DIGEST = "digest"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    artifact_id = models.UUIDField()
    uri = UriField()
    storage_id = models.CharField(max_length=512, db_collation="C")
    storage_bucket = models.CharField(max_length=512, db_collation="C")
    content_length = models.BigIntegerField()
    content_checksum = models.CharField(max_length=136)
    finding = models.CharField(max_length=8, choices=Finding.choices)
    detail = models.TextField(default="")
    found_by = models.CharField(max_length=16)
    found_at = MillisField()
    last_verified_at = MillisField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.DAMAGED)
    state_at = MillisField()
    unrepairable_since = MillisField(null=True)
    repair_reason = models.CharField(max_length=32, default="")
    repair_detail = models.TextField(default="")
    checked_at = MillisField()

    class Meta:
        db_table = "damaged_copy"
        verbose_name_plural = "damaged copies"
        indexes = (
            models.Index(fields=["artifact_id"], name="damaged_copy_artifact"),
            models.Index(fields=["found_at"], name="damaged_copy_found"),
            models.Index(fields=["state", "state_at"], name="damaged_copy_state"),
            models.Index(fields=["storage_bucket", "storage_id"], name="damaged_copy_place"),
        )
        constraints = (
            models.CheckConstraint(
                name="damaged_copy_state_known", condition=Q(state__in=["damaged", "repaired", "gone", "released"])
            ),
            models.CheckConstraint(
                name="damaged_copy_unrepairable_is_damaged",
                condition=Q(unrepairable_since__isnull=True) | Q(state="damaged"),
            ),
        )

    def __str__(self) -> str:
        return f"{self.uri} {self.finding}"
