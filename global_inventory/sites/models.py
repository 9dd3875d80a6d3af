"""What the global itself knows and decides about its sites; how a site describes itself is its StorageSite row."""

from __future__ import annotations

from django.db import models

from datamodel.models import RemoteInventory
from datamodel.models.fields import UriField


class SiteProbe(models.Model):
    """The last probe of a site. Reading and writing are judged apart, so that a read-only site still serves reads."""

    remote = models.OneToOneField(RemoteInventory, primary_key=True, on_delete=models.CASCADE, related_name="probe")
    read_ok = models.BooleanField()
    write_ok = models.BooleanField()
    latency_ms = models.FloatField(null=True)
    checked_at = models.DateTimeField()
    failures = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=300, default="")

    class Meta:
        db_table = "site_probe"
        constraints = (
            models.CheckConstraint(
                name="site_probe_writable_is_readable", condition=models.Q(write_ok=False) | models.Q(read_ok=True)
            ),
        )

    def __str__(self) -> str:
        return f"probe of {self.remote}"


class SiteSwitch(models.Model):
    """The operator's own word on a site; a site without a row has neither switch on. Probes never touch it."""

    remote = models.OneToOneField(RemoteInventory, primary_key=True, on_delete=models.CASCADE, related_name="switch")
    read_only = models.BooleanField(default=False, help_text="offer it for reading only")
    offline = models.BooleanField(default=False, help_text="offer it for nothing, and ask it nothing")
    note = models.CharField(max_length=200, blank=True, default="", help_text="why; shown in explain")

    class Meta:
        db_table = "site_switch"
        verbose_name_plural = "site switches"

    def __str__(self) -> str:
        return f"switches of {self.remote}"


class SiteRule(models.Model):
    """Prefer or avoid a site for what lies in a namespace; of several rules for one site the longest namespace decides."""

    class Kind(models.TextChoices):
        PREFER = "prefer"
        AVOID = "avoid"

    class Direction(models.TextChoices):
        GET = "get"
        PUT = "put"

    namespace = UriField()
    remote = models.ForeignKey(RemoteInventory, on_delete=models.CASCADE, related_name="rules")
    direction = models.CharField(max_length=3, choices=Direction.choices)
    kind = models.CharField(max_length=6, choices=Kind.choices)

    class Meta:
        db_table = "site_rule"
        constraints = (
            models.UniqueConstraint(fields=["namespace", "remote", "direction"], name="site_rule_one_verdict"),
            models.CheckConstraint(name="site_rule_kind_known", condition=models.Q(kind__in=["prefer", "avoid"])),
            models.CheckConstraint(name="site_rule_direction_known", condition=models.Q(direction__in=["get", "put"])),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.remote} for {self.direction} of {self.namespace}"
