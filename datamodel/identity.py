"""Making and renewing the identity of an inventory: first provision, and `restamp_feed` after a restore."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

from django.db import connection, transaction

from datamodel import positions, rules
from datamodel.audit.chain import begin_era
from datamodel.audit.recording import record
from datamodel.audit.rules import Action
from datamodel.errors import NotPermittedError
from datamodel.models import InventoryIdentity, StorageSite
from datamodel.rows import database_now

# Migration 0002 gave each of these its stamp.
FEED_TABLES = (
    "storage_site",
    "deleted_storage_location_event",
    "storage_location_event",
    "deleted_artifact_event",
    "artifact",
)
_CLUSTER_SQL = "SELECT s.system_identifier, c.timeline_id FROM pg_control_system() s, pg_control_checkpoint() c"


def ensure_identity() -> InventoryIdentity:
    """The identity row; made on first call. A repeat changes nothing."""
    system_identifier, timeline = _cluster()
    identity, _ = InventoryIdentity.objects.get_or_create(
        id=1, defaults={"system_identifier": system_identifier, "timeline": timeline}
    )
    return identity


def ensure_site(*, resource_id: str, allow_read: bool = True, allow_write: bool = True) -> StorageSite:
    """This site's own StorageSite row, as configured; a repeat with the same values changes nothing (not even the feed)."""
    identity = ensure_identity()
    name = urlsplit(resource_id).path.strip("/").rpartition("/")[2][:32] or urlsplit(resource_id).netloc[:32]
    checksum = rules.site_meta_checksum(
        identity.inventory_id, allow_read=allow_read, allow_write=allow_write, name=name, resource_id=resource_id
    )
    values = {"resource_id": resource_id, "name": name, "allow_read": allow_read, "allow_write": allow_write}
    with transaction.atomic():
        existing = StorageSite.objects.select_for_update().filter(id=identity.inventory_id).first()
        if existing is None or existing.meta_checksum != checksum:
            StorageSite.objects.update_or_create(
                id=identity.inventory_id,
                defaults={**values, "meta_checksum": checksum, "last_modified": database_now(), "txid": 0},
            )
    return StorageSite.objects.get(id=identity.inventory_id)


def switch_site(*, site_id: uuid.UUID, allow_read: bool, allow_write: bool) -> StorageSite:
    """Let this site be read and written, or not; the globals hear of it by their harvest. A repeat changes nothing.

    Raises `NotPermittedError` for any other site: each site describes itself.
    """
    site = StorageSite.objects.get(id=site_id)
    if site_id != ensure_identity().inventory_id:
        raise NotPermittedError(f"{site.name} describes itself: switch it there")
    with transaction.atomic():
        record(Action.SITE_SWITCHED, site.name, details={"read": allow_read, "write": allow_write})
        return ensure_site(resource_id=site.resource_id, allow_read=allow_read, allow_write=allow_write)


def restamp_feed() -> int:
    """Renew the epoch and every row's transaction id, in one transaction; returns how many rows were stamped.

    Needed after any restore: peers then start from the beginning, and nothing they lack is passed over.
    """
    system_identifier, timeline = _cluster()
    stamped = 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        for table in FEED_TABLES:
            # -1 differs from every stamp, so the trigger gives each row a new one.
            cursor.execute(f"UPDATE {table} SET txid = -1")
            stamped += cursor.rowcount
        InventoryIdentity.objects.filter(id=1).update(
            epoch=uuid.uuid4(), system_identifier=system_identifier, timeline=timeline, events_gone_txid=0
        )
        begin_era()
    positions.cached_identity.clear()
    return stamped


def _cluster() -> tuple[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(_CLUSTER_SQL)
        system_identifier, timeline = cursor.fetchone()
    return system_identifier, timeline
