"""The brake on deletions, one row per source."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from datamodel.models.fields import MillisField


class DeletionBrake(models.Model):
    """What one source (`harvest:NAME`) has removed today, whether it was stopped, and until when an operator lets it pass."""

    source = models.CharField(max_length=100, primary_key=True)
    day = models.DateField()
    removed = models.BigIntegerField(default=0)
    engaged_at = MillisField(null=True)
    reason = models.CharField(max_length=500, default="")
    released_until = MillisField(null=True)

    class Meta:
        db_table = "deletion_brake"
        ordering = ("source",)
        constraints = (models.CheckConstraint(name="deletion_brake_removed", condition=Q(removed__gte=0)),)

    def __str__(self) -> str:
        return self.source
