"""How long deleted and replaced content is kept, by namespace; runs of retire, and copies on their way out."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from datamodel.models import StorageLocation
from datamodel.models.fields import MillisField, UriField
from site_service.retention.rules import OPEN_RELEASES, ReleaseState


class RetentionRule(models.Model):
    """Content under a namespace is kept for so long after it was deleted or replaced; the longest matching namespace decides."""

    namespace = UriField()
    seconds = models.BigIntegerField(help_text="how long deleted and replaced content is kept; 86400 is a day")
    note = models.CharField(max_length=200, default="", blank=True)

    class Meta:
        db_table = "retention_rule"
        verbose_name = "retention rule"
        ordering = ("namespace",)
        constraints = (
            models.UniqueConstraint(fields=["namespace"], name="retention_rule_namespace"),
            models.CheckConstraint(
                name="retention_rule_namespace_form", condition=Q(namespace__regex=r"^[A-Za-z].*[:/]$")
            ),
            models.CheckConstraint(name="retention_rule_seconds", condition=Q(seconds__gte=0)),
        )

    def __str__(self) -> str:
        return f"{self.namespace} for {self.seconds} s"


class RetireRun(models.Model):
    """Drop the local copies under a namespace, as far as the globals allow: what was meant, how far it is.

    `after`: copies up to this uri were listed (all, when `is_listed`); each has its CopyRelease. Counts are of files and bytes.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        FINISHED = "finished"
        CANCELLED = "cancelled"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    namespace = UriField()
    reason = models.CharField(max_length=200)
    started_by = models.CharField(max_length=150)
    state = models.CharField(max_length=9, choices=State.choices, default=State.RUNNING)
    after = UriField()
    is_listed = models.BooleanField(default=False)
    files = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    dropped_files = models.BigIntegerField(default=0)
    dropped_bytes = models.BigIntegerField(default=0)
    refused_files = models.BigIntegerField(default=0)
    gone_files = models.BigIntegerField(default=0)
    started_at = MillisField()
    finished_at = MillisField(null=True)

    class Meta:
        db_table = "retire_run"
        indexes = (models.Index(fields=["-started_at"], name="retire_run_newest"),)
        constraints = (
            models.UniqueConstraint(
                fields=["namespace"], condition=Q(state="running"), name="retire_run_one_per_namespace"
            ),
            models.CheckConstraint(
                name="retire_run_state_known", condition=Q(state__in=["running", "finished", "cancelled"])
            ),
            models.CheckConstraint(
                name="retire_run_finished_at", condition=~Q(state="finished") | Q(finished_at__isnull=False)
            ),
        )

    def __str__(self) -> str:
        return f"{self.namespace} {self.started_at:%Y-%m-%d %H:%M}"


class CopyRelease(models.Model):
    """One copy that shall go; its id is what the globals know the release by, so that asking twice is asking once.

    When the location goes for whatever reason, a foreign key of the database empties `location`: a grant is about that copy
    and no other, even one at the same place. `next_try_at` also keeps others off while somebody asks.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    run = models.ForeignKey(RetireRun, on_delete=models.CASCADE, related_name="releases")
    artifact_id = models.UUIDField()
    uri = UriField()
    content_checksum = models.CharField(max_length=136)
    content_length = models.BigIntegerField()
    location = models.ForeignKey(
        StorageLocation, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="releases"
    )
    state = models.CharField(max_length=9, choices=[(state.value, state.value) for state in ReleaseState])
    reason = models.CharField(max_length=16, default="")
    detail = models.CharField(max_length=300, default="")
    tries = models.IntegerField(default=0)
    next_try_at = MillisField()
    state_at = MillisField()

    class Meta:
        db_table = "copy_release"
        indexes = (
            models.Index(
                fields=["state", "next_try_at"], condition=Q(state__in=["asked", "returning"]), name="copy_release_due"
            ),
            models.Index(fields=["artifact_id"], condition=Q(state="granted"), name="copy_release_granted"),
            models.Index(fields=["run", "state", "uri"], name="copy_release_of_run"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=["location"],
                condition=Q(state__in=[state.value for state in OPEN_RELEASES]),
                name="copy_release_one_open",
            ),
            models.CheckConstraint(
                name="copy_release_state_known", condition=Q(state__in=[state.value for state in ReleaseState])
            ),
            models.CheckConstraint(
                name="copy_release_refused_why", condition=~Q(state__in=["returning", "refused"]) | ~Q(reason="")
            ),
        )

    def __str__(self) -> str:
        return f"{self.uri} {self.state}"


class CopyReleaseOutcome(models.Model):
    """How often a release ended how, since the beginning; the metrics' counters."""

    outcome = models.CharField(max_length=16, primary_key=True)
    files = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)

    class Meta:
        db_table = "copy_release_outcome"
