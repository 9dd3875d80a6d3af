"""Artifacts, where their bytes are at this site, and bytes that left the inventory."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length
from django.db.models.lookups import Exact

from datamodel.models.fields import MillisField, UriField


class Artifact(models.Model):
    """One logical file of immutable content; a replaced file is a new artifact with a new id (reference 1.2).

    `meta_checksum` covers the OpenCADC fields only. Outside it: `content_sha256` (raw), `meta_modified_at` (when and by
    the clock of which inventory the metadata last changed: decides between two updates), `reaffirmed_at` (identical content was
    put again here) and `txid` (the transaction that last changed the row, set by trigger: the order of the feed).
    """

    id = models.UUIDField(primary_key=True)
    uri = UriField()
    uri_bucket = models.CharField(max_length=5, db_collation="C")
    content_checksum = models.CharField(max_length=136)
    content_last_modified = MillisField()
    content_length = models.BigIntegerField()
    content_type = models.CharField(max_length=128, null=True)
    content_encoding = models.CharField(max_length=128, null=True)
    last_modified = MillisField()
    meta_checksum = models.CharField(max_length=136)
    content_sha256 = models.BinaryField(max_length=32, null=True)
    meta_modified_at = MillisField()
    reaffirmed_at = MillisField(null=True)
    txid = models.BigIntegerField(default=0)

    class Meta:
        db_table = "artifact"
        indexes = (models.Index(fields=["txid", "id"], name="artifact_feed"),)
        constraints = (
            # Not `unique=True`: that would add a second, pattern-matching index, which C collation makes needless.
            models.UniqueConstraint(fields=["uri"], name="artifact_uri"),
            models.CheckConstraint(name="artifact_length_not_negative", condition=Q(content_length__gte=0)),
            models.CheckConstraint(
                name="artifact_uri_form",
                condition=Q(uri__regex=r"^[A-Za-z][A-Za-z0-9+.-]*:([!-.0-~][!-~]*)?[!-.0-9;-~]$"),
            ),
            models.CheckConstraint(name="artifact_bucket_form", condition=Q(uri_bucket__regex=r"^[0-9a-f]{5}$")),
            models.CheckConstraint(
                name="artifact_sha256_form",
                condition=Q(content_sha256__isnull=True) | Exact(Length(F("content_sha256")), 32),  # type: ignore[arg-type]  # a Q
            ),
        )

    def __str__(self) -> str:
        return str(self.uri)


class StorageLocation(models.Model):
    """Where the bytes of one artifact are at this site; an artifact without one is known here but not stored."""

    artifact = models.OneToOneField(
        Artifact, primary_key=True, on_delete=models.DO_NOTHING, related_name="storage_location"
    )
    storage_id = models.CharField(max_length=512, db_collation="C")
    storage_bucket = models.CharField(max_length=512, db_collation="C")
    stored_at = MillisField()

    class Meta:
        db_table = "storage_location"
        constraints = (
            models.UniqueConstraint(
                fields=["storage_bucket", "storage_id"], include=["artifact"], name="storage_location_by_place"
            ),
        )

    def __str__(self) -> str:
        return f"{self.storage_bucket}/{self.storage_id}"


class ObsoleteStorageLocation(models.Model):
    """Bytes that no artifact here needs (a copy that came second, or was dropped); removed as soon as possible."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    storage_id = models.CharField(max_length=512, db_collation="C")
    storage_bucket = models.CharField(max_length=512, db_collation="C")
    last_modified = MillisField()
    meta_checksum = models.CharField(max_length=136)

    class Meta:
        db_table = "obsolete_storage_location"
        indexes = (models.Index(fields=["last_modified"], name="obsolete_by_age"),)
        constraints = (
            models.UniqueConstraint(fields=["storage_bucket", "storage_id"], name="obsolete_one_per_object"),
        )

    def __str__(self) -> str:
        return f"{self.storage_bucket}/{self.storage_id}"


class RetiredArtifact(models.Model):
    """An artifact that was replaced or deleted: the history of this inventory, and bytes kept for the retention time.

    It lived from `born_at` until `ended_at`, which are the same at every inventory (`contentLastModified`, and the time of its
    DeletedArtifactEvent); `died_at` is when this one learnt of its end. One that was not stored here begins as `purged`.
    """

    class State(models.TextChoices):
        RETAINED = "retained"
        REMOVING = "removing"
        PURGED = "purged"
        RESTORED = "restored"

    id = models.UUIDField(primary_key=True)
    uri = UriField()
    content_checksum = models.CharField(max_length=136)
    content_sha256 = models.BinaryField(max_length=32, null=True)
    content_length = models.BigIntegerField()
    content_type = models.CharField(max_length=128, null=True)
    content_encoding = models.CharField(max_length=128, null=True)
    born_at = MillisField()
    died_at = MillisField()
    ended_at = MillisField(null=True)
    storage_id = models.CharField(max_length=512, db_collation="C")
    storage_bucket = models.CharField(max_length=512, db_collation="C")
    state = models.CharField(max_length=8, choices=State.choices, default=State.RETAINED)
    state_at = MillisField()

    class Meta:
        db_table = "retired_artifact"
        indexes = (
            models.Index(fields=["uri", "died_at"], name="retired_by_uri"),
            models.Index(fields=["died_at"], condition=Q(state="retained"), name="retired_due"),
            models.Index(fields=["state_at"], condition=Q(state="removing"), name="retired_removing"),
            models.Index(fields=["state_at"], condition=Q(state="restored"), name="retired_restored"),
            models.Index(fields=["died_at"], condition=Q(state__in=["purged", "restored"]), name="retired_history"),
        )
        constraints = (
            models.CheckConstraint(
                name="retired_state_known", condition=Q(state__in=["retained", "removing", "purged", "restored"])
            ),
        )

    def __str__(self) -> str:
        return str(self.uri)
