"""How long deleted and replaced content is kept, by namespace."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from datamodel.models.fields import UriField


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
