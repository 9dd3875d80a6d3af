"""Copies of a site, as a global knows them: what a page of location events in the temporary table `harvested` changes.

Each function returns how many rows it changed.
"""

from __future__ import annotations

import uuid

from django.db import connection

_DROP_SQL = """
    DELETE FROM site_location s USING harvested h WHERE s.artifact_id = h.id AND s.site_id = %s
        AND (s.release_stored_at IS NULL OR h.last_modified > s.release_stored_at)
"""
_RENEW_SQL = """
    UPDATE site_location s SET releasing_at = NULL, release_id = NULL, release_stored_at = NULL FROM harvested h
    WHERE s.artifact_id = h.id AND s.site_id = %s AND h.last_modified > s.release_stored_at
"""
_ADD_SQL = """
    INSERT INTO site_location (artifact_id, site_id) SELECT h.id, %s FROM harvested h
    WHERE NOT EXISTS (SELECT FROM deleted_artifact_event t WHERE t.id = h.id) ON CONFLICT DO NOTHING
"""


def drop_copies(*, site_id: uuid.UUID) -> int:
    """The site has them no more; news of the end of an earlier copy than the one that it may drop change nothing."""
    return _execute(_DROP_SQL, site_id)


def add_copies(*, site_id: uuid.UUID) -> int:
    """A copy that the site stored after the one that it may drop counts again; old news that come again change nothing."""
    return _execute(_RENEW_SQL, site_id) + _execute(_ADD_SQL, site_id)


def _execute(statement: str, site_id: uuid.UUID) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, [site_id])
        return int(cursor.rowcount)
