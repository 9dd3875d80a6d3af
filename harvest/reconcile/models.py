"""Reports: what each comparison found and did."""

from __future__ import annotations

import uuid

from django.db import models

from datamodel.models import RemoteInventory
from datamodel.models.fields import UriField


class ReconcileRun(models.Model):
    """One comparison with one remote. `differences` and `applied` count by label; `is_complete`: everything was compared."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    remote = models.ForeignKey(RemoteInventory, on_delete=models.CASCADE, related_name="reconcile_runs")
    mode = models.CharField(max_length=6)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    is_complete = models.BooleanField(default=False)
    rows_here = models.BigIntegerField(default=0)
    rows_there = models.BigIntegerField(default=0)
    requests = models.IntegerField(default=0)
    traffic_bytes = models.BigIntegerField(default=0)
    differences = models.JSONField(default=dict)
    applied = models.JSONField(default=dict)
    error = models.TextField(default="")

    class Meta:
        db_table = "reconcile_run"
        indexes = (models.Index(fields=["remote", "-started_at"], name="reconcile_run_latest"),)

    def __str__(self) -> str:
        return f"{self.remote_id} {self.started_at:%Y-%m-%d %H:%M:%S}"


class ReconcileDifference(models.Model):
    """One difference of a run; a run lists a bounded number of them and counts the rest."""

    run = models.ForeignKey(ReconcileRun, on_delete=models.CASCADE, related_name="found")
    artifact_id = models.UUIDField()
    uri = UriField(null=True)
    label = models.CharField(max_length=32)
    action = models.CharField(max_length=64)
    is_applied = models.BooleanField()

    class Meta:
        db_table = "reconcile_difference"

    def __str__(self) -> str:
        return f"{self.label} {self.uri or self.artifact_id}"
