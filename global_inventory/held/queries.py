"""What is known of many uris, and who may be asked about them: one statement each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import connection

from datamodel.models import RemoteInventory
from datamodel.service_tokens import Credential
from global_inventory.held.rules import Known
from global_inventory.sites.client import SiteDoor

_KNOWN_SQL = """
    SELECT a.uri, a.id, a.content_checksum, encode(a.content_sha256, 'hex'), a.content_length,
        ARRAY(SELECT l.site_id FROM site_location l
            WHERE l.artifact_id = a.id AND l.releasing_at IS NULL ORDER BY l.site_id)
    FROM artifact a WHERE a.uri = ANY(%s)
"""


def known_artifacts(uris: Sequence[str]) -> dict[str, Known]:
    """By canonical uri."""
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN_SQL, [list(uris)])
        return {
            uri: Known(identity, checksum, sha256, length, tuple(holders))
            for uri, identity, checksum, sha256, length, holders in cursor.fetchall()
        }


def site_doors(site_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, SiteDoor]:
    """How to ask these sites about themselves, but for those switched offline. Raises `NotConfiguredError` when a token cannot be unsealed."""
    remotes = RemoteInventory.objects.filter(role=RemoteInventory.Role.SITE, enabled=True, site__in=list(site_ids))
    doors = (
        (row.site_id, SiteDoor(row.name, row.url, Credential.of(row))) for row in remotes.exclude(switch__offline=True)
    )
    return {site_id: door for site_id, door in doors if site_id is not None}
