"""What is known of a uri and who holds it: one statement for one uri, one for ten thousand."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from datamodel.lookups import SharedLookup
from datamodel.positions import Position
from datamodel.prepared import prepared_rows
from datamodel.queries import ARTIFACT_COLUMNS, artifact_from
from datamodel.rules import ArtifactRow

_LOCATED_SQL = f"""
    SELECT a.uri, {ARTIFACT_COLUMNS}, ARRAY(SELECT l.site_id FROM site_location l
        WHERE l.artifact_id = a.id AND l.releasing_at IS NULL)
    FROM artifact a WHERE a.uri = ANY(%s)
"""
# Texts, not objects: parsing ten thousand UUIDs would cost more than finding them.
_MANY_SQL = """
    SELECT a.uri, a.id::text, a.content_checksum, a.content_length, encode(a.content_sha256, 'hex'),
        (SELECT string_agg(l.site_id::text, ',' ORDER BY l.site_id) FROM site_location l
            WHERE l.artifact_id = a.id AND l.releasing_at IS NULL)
    FROM artifact a WHERE a.uri = ANY(%s)
"""
# A cursor passes a position when all three streams that a write can touch have gone that far in the same epoch.
_PASSED_SQL = """
    SELECT r.site_id, count(h.id) = 3
    FROM remote_inventory r LEFT JOIN harvest_state h ON h.remote_id = r.id AND h.selector = ''
        AND h.name IN ('deleted-artifacts', 'artifacts', 'locations') AND h.epoch = %s AND h.cur_txid >= %s
    WHERE r.inventory_id = %s AND r.enabled GROUP BY r.id
"""

_located = SharedLookup(_LOCATED_SQL)

BriefRow = tuple[str, str, str, int, str | None, str | None]


@dataclass(frozen=True, slots=True)
class LocatedArtifact:
    """An artifact and the sites that hold it; `asked_site` when it is known only because that site was asked just now."""

    artifact: ArtifactRow
    holders: frozenset[uuid.UUID]
    asked_site: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """Whether the harvest of the site that a position names has passed it; `site_id` None: no such site is harvested."""

    site_id: uuid.UUID | None
    is_passed: bool


def located_artifact(uri: str) -> LocatedArtifact | None:
    """By canonical uri, with or without copies; by a statement that other requests may share."""
    found = _located.find(uri)
    return LocatedArtifact(artifact_from(found[0][1:]), frozenset(found[0][-1])) if found else None


def brief_rows(uris: Sequence[str]) -> dict[str, BriefRow]:
    """By uri: (uri, id, checksum, length, SHA-256 in hex, ids of the holders joined by commas), for canonical uris."""
    return {row[0]: row for row in prepared_rows(_MANY_SQL, [list(uris)])}


def passage(position: Position) -> Passage:
    """How the harvest here stands to a position that a site gave."""
    with connection.cursor() as cursor:
        cursor.execute(_PASSED_SQL, [position.epoch, position.txid, position.inventory_id])
        row = cursor.fetchone()
    return Passage(None, is_passed=False) if row is None else Passage(*row)
