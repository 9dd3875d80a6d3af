"""Alarms, and how far each was told to each channel: the outbox."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from datamodel.models.fields import MillisField


class Alarm(models.Model):
    """One thing that goes on until somebody clears it: what happens again meanwhile counts, and is not told again at once.

    `round` is how often it was to be told, `told_at` since when the present round is due. An acknowledged alarm is not told again.
    """

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=32)
    subject = models.CharField(max_length=512, db_collation="C")
    text = models.TextField()
    count = models.BigIntegerField(default=1)
    raised_at = MillisField()
    last_at = MillisField()
    round = models.IntegerField(default=1)
    told_at = MillisField()
    acknowledged_at = MillisField(null=True)
    acknowledged_by = models.CharField(max_length=150, default="")
    cleared_at = MillisField(null=True)
    cleared_by = models.CharField(max_length=150, default="")

    class Meta:
        db_table = "alarm"
        indexes = (models.Index(fields=["cleared_at"], name="alarm_cleared"),)
        constraints = (
            models.UniqueConstraint(
                fields=["kind", "subject"], condition=Q(cleared_at__isnull=True), name="alarm_open_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}"


class AlarmDelivery(models.Model):
    """What one channel was told of one alarm: everything up to `round`. Behind the alarm's own round, it is due at `next_try_at`."""

    id = models.BigAutoField(primary_key=True)
    alarm = models.ForeignKey(Alarm, on_delete=models.CASCADE, related_name="deliveries")
    channel = models.CharField(max_length=64)
    round = models.IntegerField(default=0)
    attempts = models.IntegerField(default=0)
    next_try_at = MillisField()
    delivered_at = MillisField(null=True)
    last_error = models.CharField(max_length=500, default="")

    class Meta:
        db_table = "alarm_delivery"
        verbose_name_plural = "alarm deliveries"
        constraints = (models.UniqueConstraint(fields=["alarm", "channel"], name="alarm_delivery_once"),)

    def __str__(self) -> str:
        return self.channel
