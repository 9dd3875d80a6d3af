"""Sites, who holds what, and which inventory this is."""

from __future__ import annotations

import uuid

from django.db import models

from datamodel.models.fields import MillisField


class StorageSite(models.Model):
    """A storage site as it describes itself; one row at a site (its own), one per site at a global (reference 1.6)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    resource_id = models.CharField(max_length=512, unique=True)
    name = models.CharField(max_length=32)
    allow_read = models.BooleanField(default=True)
    allow_write = models.BooleanField(default=True)
    last_modified = MillisField()
    meta_checksum = models.CharField(max_length=136)
    txid = models.BigIntegerField(default=0)

    class Meta:
        db_table = "storage_site"
        indexes = (models.Index(fields=["txid", "id"], name="storage_site_feed"),)

    def __str__(self) -> str:
        return self.name


class SiteLocation(models.Model):
    """One "that site holds this artifact"; kept at a global. The artifact row may arrive later than this news.

    `site`: that of a remote inventory; no row of a page is looked at for it, and a trigger keeps a site that is named here.
    `releasing_at`: the site was allowed to drop this copy, under its own name `release_id` for that; from then on the copy is
    neither counted nor located. `release_stored_at`: when that copy was stored, by its site's clock: only a later
    StorageLocationEvent is about another copy.
    """

    pk = models.CompositePrimaryKey("artifact_id", "site")
    artifact_id = models.UUIDField()
    site = models.ForeignKey(StorageSite, on_delete=models.DO_NOTHING, db_index=False, db_constraint=False)
    releasing_at = MillisField(null=True)
    release_id = models.UUIDField(null=True)
    release_stored_at = MillisField(null=True)

    class Meta:
        db_table = "site_location"
        indexes = (
            models.Index(fields=["site", "artifact_id"], name="site_location_by_site"),
            models.Index(
                fields=["site", "releasing_at"],
                condition=models.Q(releasing_at__isnull=False),
                name="site_location_releasing",
            ),
        )
        constraints = (
            models.CheckConstraint(
                name="site_location_release_whole",
                condition=models.Q(releasing_at__isnull=True, release_id__isnull=True, release_stored_at__isnull=True)
                | models.Q(releasing_at__isnull=False, release_id__isnull=False, release_stored_at__isnull=False),
            ),
        )


class InventoryIdentity(models.Model):
    """The one row that names this inventory and the epoch of its feed.

    The epoch a peer sees is made of the three epoch columns; `system_identifier` and `timeline` are those of the cluster in
    which the transaction ids were stamped: when the cluster's own differ, the feed must be restamped.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    inventory_id = models.UUIDField(default=uuid.uuid4)
    epoch = models.UUIDField(default=uuid.uuid4)
    system_identifier = models.BigIntegerField()
    timeline = models.IntegerField()
    # Events up to this transaction may be gone; nothing that happened later than `events_gone_at` is.
    events_gone_txid = models.BigIntegerField(default=0)
    events_gone_at = MillisField(null=True)
    events_expired = models.BigIntegerField(default=0)

    class Meta:
        db_table = "inventory_identity"
        constraints = (models.CheckConstraint(name="inventory_identity_one_row", condition=models.Q(id=1)),)
