"""A site's description of itself, as a global applies it."""

from __future__ import annotations

import uuid

from django.db import connection

from datamodel import rules
from datamodel.errors import RemoteProtocolError
from datamodel.models import RemoteInventory, StorageSite


def apply_site(*, remote_id: int, name: str) -> int:
    """A site describes itself in one row of the batch, whose id is the site for ever; how many rows it changed.

    Inside the transaction of the batch. Raises `RemoteProtocolError` for one that describes another, or two.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, resource_id, name, allow_read, allow_write FROM harvested")
        rows = cursor.fetchall()
    if not rows:
        return 0
    if len(rows) > 1:
        raise RemoteProtocolError(f"{name} says that it is {len(rows)} sites")
    site_id, resource_id, site_name, allow_read, allow_write = rows[0]
    remote = RemoteInventory.objects.get(id=remote_id)
    if remote.paired_at is not None and site_id != remote.inventory_id:
        raise RemoteProtocolError(f"{name} is the inventory {remote.inventory_id} and says that it is site {site_id}")
    if remote.site_id not in {None, site_id}:
        raise RemoteProtocolError(f"{name} was site {remote.site_id} and says now that it is {site_id}")
    if other := RemoteInventory.objects.filter(site_id=site_id).exclude(id=remote.id).first():
        raise RemoteProtocolError(f"{name} says that it is site {site_id}, which is {other.name}")
    if other_site := StorageSite.objects.filter(resource_id=resource_id).exclude(id=site_id).first():
        raise RemoteProtocolError(f"{name} says that it is {resource_id}, which is site {other_site.id}")
    changed = _upsert_site(site_id, resource_id, site_name, allow_read=allow_read, allow_write=allow_write)
    RemoteInventory.objects.filter(id=remote.id, site__isnull=True).update(site_id=site_id)
    return changed


def _upsert_site(site_id: uuid.UUID, resource_id: str, name: str, *, allow_read: bool, allow_write: bool) -> int:
    checksum = rules.site_meta_checksum(
        site_id, allow_read=allow_read, allow_write=allow_write, name=name, resource_id=resource_id
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """
        INSERT INTO storage_site AS s (id, resource_id, name, allow_read, allow_write, last_modified, meta_checksum, txid)
        VALUES (%s, %s, %s, %s, %s, inventory_now(), %s, 0)
        ON CONFLICT (id) DO UPDATE SET resource_id = excluded.resource_id, name = excluded.name,
            allow_read = excluded.allow_read, allow_write = excluded.allow_write, meta_checksum = excluded.meta_checksum,
            last_modified = greatest(inventory_now(), s.last_modified + interval '1 ms')
        WHERE s.meta_checksum <> excluded.meta_checksum
        """,
            [site_id, resource_id, name, allow_read, allow_write, checksum],
        )
        return int(cursor.rowcount)
