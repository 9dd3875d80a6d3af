"""The three kinds of news; an event's id is the artifact's id (reference 1.7)."""

from __future__ import annotations

from django.db import models

from datamodel.models.fields import MillisField, UriField


class EntityEvent(models.Model):
    """A state, not history: a StorageLocationEvent and a DeletedStorageLocationEvent of one id exclude each other."""

    id = models.UUIDField(primary_key=True)
    uri = UriField(null=True)
    last_modified = MillisField()
    meta_checksum = models.CharField(max_length=136)
    txid = models.BigIntegerField(default=0)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.uri or str(self.id)


class DeletedArtifactEvent(EntityEvent):
    """The content with that id is gone for ever, everywhere. `deleted_at`: when, by the clock of the deleting inventory."""

    deleted_at = MillisField()

    class Meta:
        db_table = "deleted_artifact_event"
        indexes = (
            models.Index(fields=["txid", "id"], name="deleted_artifact_feed"),
            models.Index(fields=["uri"], name="deleted_artifact_uri", condition=models.Q(uri__isnull=False)),
        )


class DeletedStorageLocationEvent(EntityEvent):
    """This site no longer holds a copy. `is_dropped`, known here only: on purpose, so there is nothing to repair."""

    is_dropped = models.BooleanField(default=False, db_default=False)

    class Meta:
        db_table = "deleted_storage_location_event"
        indexes = (models.Index(fields=["txid", "id"], name="deleted_location_feed"),)


class StorageLocationEvent(EntityEvent):
    """This site now holds a copy of an artifact which was born elsewhere."""

    class Meta:
        db_table = "storage_location_event"
        indexes = (models.Index(fields=["txid", "id"], name="storage_location_feed"),)
