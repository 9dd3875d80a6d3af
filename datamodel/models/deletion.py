"""The brake on deletions: one row per source and namespace, and the rules of namespaces."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from datamodel.models.fields import MillisField, UriField


class BrakeRule(models.Model):
    """How much of one namespace a source may remove in a day unasked; the longest namespace decides, without one the settings."""

    namespace = UriField()
    most_count = models.BigIntegerField(help_text="so many in a day pass unasked,")
    most_percent = models.PositiveSmallIntegerField(
        default=0, help_text="or this share of the namespace; the larger counts"
    )
    note = models.CharField(max_length=200, default="", blank=True)

    class Meta:
        db_table = "brake_rule"
        ordering = ("namespace",)
        constraints = (
            models.UniqueConstraint(fields=["namespace"], name="brake_rule_namespace"),
            models.CheckConstraint(
                name="brake_rule_sound",
                condition=Q(namespace__regex=r"^[A-Za-z].*[:/]$", most_count__gte=0, most_percent__lte=100),
            ),
        )

    def __str__(self) -> str:
        return str(self.namespace)


class DeletionBrake(models.Model):
    """What one source (`harvest:NAME`) has removed today of a namespace that has a rule ("": of all others), whether it was
    stopped, and until when an operator lets it pass.
    """

    id = models.BigAutoField(primary_key=True)
    source = models.CharField(max_length=100)
    namespace = UriField(default="")
    day = models.DateField()
    removed = models.BigIntegerField(default=0)
    engaged_at = MillisField(null=True)
    reason = models.CharField(max_length=500, default="")
    released_until = MillisField(null=True)

    class Meta:
        db_table = "deletion_brake"
        ordering = ("source", "namespace")
        constraints = (
            models.UniqueConstraint(fields=["source", "namespace"], name="deletion_brake_once"),
            models.CheckConstraint(name="deletion_brake_removed", condition=Q(removed__gte=0)),
        )

    def __str__(self) -> str:
        return f"{self.source} {self.namespace}".rstrip()
