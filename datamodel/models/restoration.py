"""That this inventory was restored, and how far it is on the way back into the federation."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from datamodel.models.fields import MillisField


class Restoration(models.Model):
    """The last time this inventory's database came from a backup: one row, closed to everybody until its step is `open`."""

    class Step(models.TextChoices):
        RECONCILE = "reconcile", "harvest and reconcile with all peers"
        RECOVER = "recover", "take back from the store what nobody knows"
        VALIDATE = "validate", "compare inventory and storage"
        OPEN = "open", "open"

    id = models.SmallIntegerField(primary_key=True, default=1)
    step = models.CharField(max_length=9, choices=Step.choices)
    step_at = MillisField()
    begun_at = MillisField()
    begun_by = models.CharField(max_length=100)
    source = models.CharField(max_length=300)
    taken_at = MillisField(null=True)
    finished_at = MillisField(null=True)
    last_error = models.TextField(default="")
    report = models.JSONField(default=dict)

    class Meta:
        db_table = "restoration"
        constraints = (
            models.CheckConstraint(name="restoration_one_row", condition=Q(id=1)),
            models.CheckConstraint(
                name="restoration_step_known", condition=Q(step__in=["reconcile", "recover", "validate", "open"])
            ),
            models.CheckConstraint(
                name="restoration_finished_is_open",
                condition=Q(step="open", finished_at__isnull=False) | (~Q(step="open") & Q(finished_at__isnull=True)),
            ),
        )

    def __str__(self) -> str:
        return f"{self.source}: {self.step}"
