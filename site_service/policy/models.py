"""The policy's one table."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from datamodel.models.fields import UriField


class SyncPolicy(models.Model):
    """One rule: whether this site wants what lies under a namespace; the longest matching namespace decides.

    `priority`: what is wanted more has a higher one and is pulled earlier. An exclude is a row with `wanted` false.
    """

    namespace = UriField()
    wanted = models.BooleanField(default=True)
    priority = models.IntegerField(default=0)
    note = models.CharField(max_length=200, default="", blank=True)

    class Meta:
        db_table = "sync_policy"
        verbose_name = "policy rule"
        ordering = ("namespace",)
        constraints = (
            models.UniqueConstraint(fields=["namespace"], name="sync_policy_namespace"),
            models.CheckConstraint(
                name="sync_policy_namespace_form", condition=Q(namespace__regex=r"^[A-Za-z].*[:/]$")
            ),
        )

    def __str__(self) -> str:
        return f"{'' if self.wanted else 'not '}{self.namespace}"
