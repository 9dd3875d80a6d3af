"""Whom we harvest, how far we are, and what needs an operator's eye."""

from __future__ import annotations

import uuid

from django.db import models

from datamodel.models.fields import MillisField, UriField
from datamodel.models.site import StorageSite


class RemoteInventory(models.Model):
    """Another inventory that this one harvests: a site by a global, a global by a site.

    `url` is its base URL (with base path, without trailing slash). With `paired_at` it is known by its keys: it is
    `inventory_id`, and tokens are signed for it; else `token` (sealed, `sealing.py`) is what it gave us. `revoked_at` says that it
    was paired, or known, and lost everything; only a new pairing undoes that. The lease lets one process at a time harvest it.
    """

    class Role(models.TextChoices):
        SITE = "site"
        GLOBAL = "global"

    name = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=6, choices=Role.choices)
    url = models.CharField(max_length=512)
    token = models.BinaryField(default=b"")
    enabled = models.BooleanField(default=True)
    inventory_id = models.UUIDField(null=True)
    site = models.OneToOneField(StorageSite, null=True, on_delete=models.DO_NOTHING)
    paired_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    lease_holder = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    last_contact_at = models.DateTimeField(null=True)
    last_error = models.TextField(default="")
    last_error_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "remote_inventory"
        verbose_name_plural = "remote inventories"
        constraints = (
            models.CheckConstraint(
                name="remote_inventory_lease_whole",
                condition=models.Q(lease_holder__isnull=True, lease_until__isnull=True)
                | models.Q(lease_holder__isnull=False, lease_until__isnull=False),
            ),
            models.CheckConstraint(
                name="remote_inventory_paired_known",
                condition=models.Q(paired_at__isnull=True) | models.Q(inventory_id__isnull=False),
            ),
            models.CheckConstraint(
                name="remote_inventory_revoked_off",
                condition=models.Q(revoked_at__isnull=True) | models.Q(enabled=False, paired_at__isnull=True),
            ),
            models.UniqueConstraint(
                name="remote_inventory_paired_once",
                fields=["inventory_id"],
                condition=models.Q(paired_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return self.name


class HarvestState(models.Model):
    """The cursor of one stream of one remote; committed together with the rows that it passed.

    `selector` is "" for the main cursor, else the namespace that a backfill brings. An empty `epoch` means "from the start".
    `covers` (main artifact cursor of a site) lists the namespaces which that cursor serves.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    remote = models.ForeignKey(RemoteInventory, on_delete=models.CASCADE, related_name="states")
    name = models.CharField(max_length=64)
    selector = UriField()
    epoch = models.CharField(max_length=64, default="")
    cur_txid = models.BigIntegerField(default=0)
    cur_id = models.UUIDField(default=uuid.UUID(int=0))
    cur_last_modified = MillisField(null=True)
    covers = models.JSONField(default=list)
    rows = models.BigIntegerField(default=0)
    is_complete = models.BooleanField(default=False)
    updated_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "harvest_state"
        constraints = (
            models.UniqueConstraint(fields=["remote", "name", "selector"], name="harvest_state_one_per_stream"),
        )

    def __str__(self) -> str:
        return f"{self.remote} {self.name} {self.selector}".rstrip()


class FeedReader(models.Model):
    """A peer that reads our feed, and the last transaction that it has passed; `caller` is its token's name."""

    id = models.BigAutoField(primary_key=True)
    caller = models.CharField(max_length=64)
    inventory_id = models.UUIDField()
    epoch = models.CharField(max_length=16)
    txid = models.BigIntegerField()
    asked_at = MillisField()
    retired_at = MillisField(null=True)

    class Meta:
        db_table = "feed_reader"
        constraints = (models.UniqueConstraint(fields=["caller", "inventory_id"], name="feed_reader_once"),)

    def __str__(self) -> str:
        return f"{self.caller} {self.inventory_id}"


class HarvestedPage(models.Model):
    """At a global: the artifacts that transaction `txid` of this epoch has stamped are as this site served them."""

    id = models.BigAutoField(primary_key=True)
    txid = models.BigIntegerField()
    epoch = models.UUIDField()
    site_id = models.UUIDField()

    class Meta:
        db_table = "harvested_page"
        constraints = (models.UniqueConstraint(fields=["txid", "epoch"], name="harvested_page_once"),)

    def __str__(self) -> str:
        return f"{self.txid} {self.site_id}"


class HarvestConflict(models.Model):
    """Two artifacts claimed one uri; the loser was recorded as deleted. Listed until an operator has seen it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    uri = UriField()
    winner_id = models.UUIDField()
    loser_id = models.UUIDField(unique=True)
    loser_checksum = models.CharField(max_length=136)
    loser_length = models.BigIntegerField()
    loser_last_modified = MillisField()
    loser_site = models.ForeignKey(StorageSite, null=True, on_delete=models.DO_NOTHING)
    same_content = models.BooleanField()
    decided_at = models.DateTimeField()
    seen_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "harvest_conflict"
        indexes = (models.Index(fields=["winner_id"], name="harvest_conflict_winner"),)

    def __str__(self) -> str:
        return str(self.uri)


class HarvestRejection(models.Model):
    """A row that a remote sent and that was set aside: its checksum, its form or its claim is wrong."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    remote = models.ForeignKey(RemoteInventory, on_delete=models.CASCADE)
    stream = models.CharField(max_length=64)
    row_id = models.UUIDField(null=True)
    row = models.TextField()
    row_digest = models.CharField(max_length=64)
    reason = models.CharField(max_length=200)
    rejected_at = models.DateTimeField()
    seen_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "harvest_rejection"
        constraints = (
            models.UniqueConstraint(fields=["remote", "stream", "row_digest"], name="harvest_rejection_once"),
        )

    def __str__(self) -> str:
        return f"{self.stream}: {self.reason}"
