"""Who may ask, who holds what, what each namespace demands."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import connection

from datamodel.models import RemoteInventory
from global_inventory.releases.models import ReleaseOutcome, ReleaseRule
from global_inventory.releases.rules import Holder

_HOLDERS_SQL = """
    SELECT l.artifact_id, l.site_id, l.release_id, r.id IS NOT NULL AND s.allow_read AND NOT coalesce(w.offline, false)
    FROM site_location l JOIN storage_site s ON s.id = l.site_id
        LEFT JOIN remote_inventory r ON r.site_id = l.site_id AND r.role = 'site' AND r.enabled
        LEFT JOIN site_switch w ON w.remote_id = r.id
    WHERE l.artifact_id = ANY(%s)
"""
_RELEASING_SQL = """
    SELECT coalesce(r.name, s.name), count(*), extract(epoch FROM inventory_now() - min(l.releasing_at))
    FROM site_location l JOIN storage_site s ON s.id = l.site_id LEFT JOIN remote_inventory r ON r.site_id = s.id
    WHERE l.releasing_at IS NOT NULL GROUP BY 1
"""
_MARKED_SQL = """
    SELECT artifact_id, release_id FROM site_location
    WHERE site_id = %(site)s AND releasing_at IS NOT NULL AND artifact_id > %(after)s ORDER BY artifact_id LIMIT %(limit)s
"""


def is_known_site(site_id: uuid.UUID) -> bool:
    """Whether this is a site that is harvested here and not revoked."""
    return RemoteInventory.objects.filter(role=RemoteInventory.Role.SITE, enabled=True, site=site_id).exists()


def holders(artifact_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[Holder]]:
    """By artifact: every site that said it holds it."""
    found: dict[uuid.UUID, list[Holder]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_HOLDERS_SQL, [list(artifact_ids)])
        for artifact_id, site_id, release_id, is_usable in cursor.fetchall():
            found.setdefault(artifact_id, []).append(Holder(site_id, release_id, is_usable))
    return found


def marked(site_id: uuid.UUID, *, after: uuid.UUID, limit: int) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """Copies that this site may drop (artifact, release), by artifact, after one."""
    with connection.cursor() as cursor:
        cursor.execute(_MARKED_SQL, {"site": site_id, "after": after, "limit": limit})
        return list(cursor.fetchall())


def demands() -> dict[str, int]:
    """Copies that must remain, by namespace."""
    return dict(ReleaseRule.objects.values_list("namespace", "copies"))


def outcomes() -> dict[str, int]:
    """How often a question ended how."""
    return dict(ReleaseOutcome.objects.order_by("outcome").values_list("outcome", "files"))


def releasing() -> list[tuple[str, int, float]]:
    """By site: copies that it may drop and has not, as far as is known here, and for how long the oldest of them."""
    with connection.cursor() as cursor:
        cursor.execute(_RELEASING_SQL)
        return [(name, count, float(seconds)) for name, count, seconds in cursor.fetchall()]
