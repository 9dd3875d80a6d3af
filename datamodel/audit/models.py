"""Tables of the audit. Triggers refuse to change them; rows go only when their archive file is recorded (see the migration)."""

from __future__ import annotations

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q

from datamodel.audit.rules import COMMON
from datamodel.models.fields import MillisField, UriField


class AuditEntry(models.Model):
    """Who did what to what, how it ended. `txid` and `at` are stamped by a trigger; order is (`txid`, `id`)."""

    id = models.BigAutoField(primary_key=True)
    txid = models.BigIntegerField()
    at = MillisField()
    who = models.CharField(max_length=255)
    method = models.CharField(max_length=32)
    address = models.CharField(max_length=64)
    action = models.CharField(max_length=32)
    subject = UriField(max_length=600)
    outcome = models.CharField(max_length=8)
    reason = models.CharField(max_length=500)
    request_id = models.CharField(max_length=64)
    count = models.BigIntegerField(default=1)
    details = models.JSONField(default=dict)

    class Meta:
        db_table = "audit_entry"
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        indexes = (
            models.Index(fields=["txid", "id"], name="audit_entry_order"),
            models.Index(fields=["subject", "id"], name="audit_entry_subject"),
            models.Index(fields=["who", "id"], name="audit_entry_who"),
            # What is rare is found without looking at every PUT, and costs a PUT nothing.
            models.Index(
                fields=["action", "id"],
                condition=~Q(action__in=[action.value for action in COMMON]),
                name="audit_entry_rare",
            ),
            models.Index(fields=["outcome", "id"], condition=~Q(outcome="done"), name="audit_entry_not_done"),
            # Times come nearly in order of the rows: a few bytes per hundred of them.
            BrinIndex(fields=["at"], name="audit_entry_at", autosummarize=True, pages_per_range=32),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.subject}"


class AuditSeal(models.Model):
    """A batch of entries up to (`to_txid`, `to_id`), chained to the batch before."""

    number = models.BigIntegerField(primary_key=True)
    at = MillisField()
    to_txid = models.BigIntegerField()
    to_id = models.BigIntegerField()
    entries = models.IntegerField()
    previous = models.BinaryField()
    digest = models.BinaryField()
    links = models.BinaryField()

    class Meta:
        db_table = "audit_seal"

    def __str__(self) -> str:
        return f"seal {self.number}"


class AuditHead(models.Model):
    """What the chain was at a time, signed by this inventory; whoever keeps a copy elsewhere can tell if its end was cut off."""

    id = models.BigAutoField(primary_key=True)
    seal = models.BigIntegerField()
    at = MillisField()
    key_id = models.CharField(max_length=64)
    public_key = models.BinaryField()
    statement = models.TextField()

    class Meta:
        db_table = "audit_head"
        indexes = (models.Index(fields=["seal"], name="audit_head_seal"),)

    def __str__(self) -> str:
        return f"head at seal {self.seal}"


class AuditArchive(models.Model):
    """A file that holds all entries and seals up to a seal, from the file before on; they are not in the tables any more."""

    to_seal = models.BigIntegerField(primary_key=True)
    from_seal = models.BigIntegerField()
    to_txid = models.BigIntegerField()
    to_id = models.BigIntegerField()
    digest = models.BinaryField()
    name = models.CharField(max_length=255)
    sha256 = models.CharField(max_length=64)
    entries = models.BigIntegerField()
    at = MillisField()

    class Meta:
        db_table = "audit_archive"

    def __str__(self) -> str:
        return str(self.name)


class AuditReadRule(models.Model):
    """How many of the reads of files under a namespace are recorded; the longest matching namespace decides, without one none."""

    namespace = UriField()
    percent = models.PositiveSmallIntegerField(help_text="so many of 100 reads, by chance; 100: every one, 0: none")
    note = models.CharField(max_length=200, default="", blank=True)

    class Meta:
        db_table = "audit_read_rule"
        verbose_name = "audit read rule"
        ordering = ("namespace",)
        constraints = (
            models.UniqueConstraint(fields=["namespace"], name="audit_read_rule_namespace"),
            models.CheckConstraint(
                name="audit_read_rule_sound", condition=Q(namespace__regex=r"^[A-Za-z].*[:/]$", percent__lte=100)
            ),
        )

    def __str__(self) -> str:
        return str(self.namespace)
