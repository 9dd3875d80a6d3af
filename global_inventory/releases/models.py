"""How many copies a namespace keeps, and how often sites were allowed or refused to drop theirs."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from datamodel.models.fields import UriField


class ReleaseRule(models.Model):
    """A copy under a namespace may go only if so many verified ones remain; the longest matching namespace decides."""

    namespace = UriField()
    copies = models.PositiveSmallIntegerField(help_text="how many verified copies must remain at other sites")
    note = models.CharField(max_length=200, default="", blank=True)

    class Meta:
        db_table = "release_rule"
        verbose_name = "release rule"
        ordering = ("namespace",)
        constraints = (
            models.UniqueConstraint(fields=["namespace"], name="release_rule_namespace"),
            models.CheckConstraint(
                name="release_rule_namespace_form", condition=Q(namespace__regex=r"^[A-Za-z].*[:/]$")
            ),
            models.CheckConstraint(name="release_rule_keeps_one", condition=Q(copies__gte=1)),
        )

    def __str__(self) -> str:
        return f"{self.namespace} keeps {self.copies}"


class ReleaseOutcome(models.Model):
    """How often a question ended how, since the beginning; the metrics' counter."""

    outcome = models.CharField(max_length=16, primary_key=True)
    files = models.BigIntegerField(default=0)

    class Meta:
        db_table = "release_outcome"
