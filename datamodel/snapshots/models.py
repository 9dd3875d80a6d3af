"""Snapshots and their schedules; what sites have acknowledged to a global, and how far a site knows of a global's snapshots."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from datamodel.models import RemoteInventory
from datamodel.models.fields import MillisField, UriField
from datamodel.snapshots.rules import State

_NAMESPACE_FORM = Q(namespace__regex=r"^[A-Za-z].*[:/]$")


class SnapshotSchedule(models.Model):
    """Snapshots of a namespace taken by themselves, and how many of them stay."""

    name = models.CharField(max_length=64, unique=True, help_text="its snapshots are called NAME-2026-01-31T12Z")
    namespace = UriField()
    hourly = models.PositiveIntegerField(default=0, help_text="of so many hours one each; 0: none")
    daily = models.PositiveIntegerField(default=0, help_text="of so many days (UTC) one each")
    monthly = models.PositiveIntegerField(default=0, help_text="of so many months one each")
    yearly = models.PositiveIntegerField(default=0, help_text="of so many years one each")
    enabled = models.BooleanField(default=True, help_text="off: takes none, and removes none")
    last_period = models.CharField(max_length=20, default="", editable=False)

    class Meta:
        db_table = "snapshot_schedule"
        verbose_name = "snapshot schedule"
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(name="snapshot_schedule_namespace_form", condition=_NAMESPACE_FORM),
            models.CheckConstraint(
                name="snapshot_schedule_keeps_some",
                condition=Q(hourly__gt=0) | Q(daily__gt=0) | Q(monthly__gt=0) | Q(yearly__gt=0),
            ),
        )

    def __str__(self) -> str:
        return self.name


class Snapshot(models.Model):
    """A moment of a namespace: what lived then is kept, digest and bytes.

    At a site also those of its globals, `source` naming whose it is (`is_orphan`: that global does not know it any more).
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=200)
    source = models.CharField(max_length=64, default="")
    namespace = UriField()
    moment = MillisField()
    state = models.CharField(max_length=8, choices=[(state.value, state.value) for state in State])
    digest = models.CharField(max_length=32, default="")
    artifacts = models.BigIntegerField(default=0)
    size = models.BigIntegerField(default=0)
    tree = models.JSONField(default=dict)
    schedule = models.ForeignKey(SnapshotSchedule, null=True, on_delete=models.SET_NULL, related_name="snapshots")
    is_orphan = models.BooleanField(default=False)
    created_at = MillisField()
    created_by = models.CharField(max_length=200, default="")
    kept_at = MillisField(null=True)

    class Meta:
        db_table = "snapshot"
        ordering = ("-moment",)
        indexes = (models.Index(fields=["moment", "id"], name="snapshot_by_moment"),)
        constraints = (
            models.UniqueConstraint(
                fields=["name"], condition=Q(source="") & ~Q(state="released"), name="snapshot_name"
            ),
            models.CheckConstraint(name="snapshot_namespace_form", condition=_NAMESPACE_FORM),
            models.CheckConstraint(name="snapshot_state_known", condition=Q(state__in=["pinning", "kept", "released"])),
            models.CheckConstraint(
                name="snapshot_kept_is_measured",
                condition=~Q(state="kept") | (Q(kept_at__isnull=False) & ~Q(digest="")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.source}:{self.name}" if self.source else self.name


class SnapshotAcknowledgement(models.Model):
    """A site keeps what a snapshot of this global names, and all that happened there before lies below its position.

    `dropped_at`: the snapshot is released, and the site keeps nothing for it any more.
    """

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="acknowledgements")
    remote = models.ForeignKey(RemoteInventory, on_delete=models.CASCADE, related_name="acknowledged_snapshots")
    position = models.CharField(max_length=100, default="")
    acknowledged_at = MillisField()
    dropped_at = MillisField(null=True)

    class Meta:
        db_table = "snapshot_acknowledgement"
        constraints = (models.UniqueConstraint(fields=["snapshot", "remote"], name="snapshot_acknowledged_once"),)

    def __str__(self) -> str:
        return f"{self.remote_id}: {self.snapshot_id}"


class PinSource(models.Model):
    """Up to which moment (of its clock) this site knows every snapshot of a global, and at which URL it asked."""

    remote = models.OneToOneField(
        RemoteInventory, primary_key=True, on_delete=models.CASCADE, related_name="pin_source"
    )
    url = models.CharField(max_length=512)
    heard_until = MillisField()
    heard_at = MillisField()

    class Meta:
        db_table = "snapshot_pin_source"

    def __str__(self) -> str:
        return f"{self.url} until {self.heard_until}"


class SnapshotMark(models.Model):
    """One row: from when on this inventory knows its past, up to which moment it has told its sites of all snapshots, and
    what snapshots hold back from removal here, as it was last counted.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    history_begins_at = MillisField(null=True)
    told_until = MillisField(null=True)
    held_artifacts = models.BigIntegerField(default=0)
    held_size = models.BigIntegerField(default=0)

    class Meta:
        db_table = "snapshot_mark"
        constraints = (models.CheckConstraint(name="snapshot_mark_one_row", condition=Q(id=1)),)

    def __str__(self) -> str:
        return f"since {self.history_begins_at}"
