"""Removing bytes for ever: the intent is committed before any byte is touched, the end after. Each step may be repeated."""

from __future__ import annotations

import logging
import uuid

from django.db import connection, transaction

from datamodel import queries as model_queries
from datamodel.errors import StoredObjectMissingError
from datamodel.logs import unit_of_work
from datamodel.restoration import is_restoring
from datamodel.rules import Located
from datamodel.snapshots.operations import lock_moments
from datamodel.snapshots.queries import FREE_SQL
from site_service.retention import queries
from site_service.storage.contract import ArtifactStore, ContentFacts, InvalidObject

logger = logging.getLogger(__name__)

# Bytes that a live artifact refers to are never removed, whatever else is said of them.
_IN_USE = """EXISTS (SELECT 1 FROM storage_location l WHERE l.storage_bucket = r.storage_bucket AND l.storage_id = r.storage_id)"""
_RESCUE_RETIRED_SQL = f"""
    UPDATE retired_artifact r SET state = 'restored', state_at = inventory_now()
    WHERE r.id = %(id)s AND r.state = 'retained' AND {_IN_USE}
"""
_CLAIM_RETIRED_SQL = f"""
    UPDATE retired_artifact r SET state = 'removing', state_at = inventory_now()
    WHERE r.id = %(id)s AND NOT {_IN_USE} AND (r.state = 'removing' OR (r.state = 'retained'
        AND r.died_at < inventory_now() - make_interval(secs => {{kept}}) AND {FREE_SQL}))
    RETURNING r.storage_id, r.storage_bucket
"""
_PURGE_SQL = """
    UPDATE retired_artifact SET state = 'purged', state_at = inventory_now() WHERE id = %(id)s AND state = 'removing'
"""
_RESCUE_OBSOLETE_SQL = f"DELETE FROM obsolete_storage_location r WHERE r.id = %(id)s AND {_IN_USE}"
_CLAIM_OBSOLETE_SQL = """
    SELECT storage_id, storage_bucket FROM obsolete_storage_location
    WHERE id = %(id)s AND last_modified < %(obsolete_before)s
"""
_FORGET_OBSOLETE_SQL = "DELETE FROM obsolete_storage_location WHERE id = %(id)s"


def purge_retired(*, store: ArtifactStore, artifact_id: uuid.UUID) -> bool:
    """Remove the bytes of one retired artifact; whether they are gone now.

    State `removing` is committed first, so nobody restores what is half gone; `purged` last. A repeat after a crash at any point
    finishes the work; one that comes too early, for bytes in use or needed by a snapshot, or while the inventory is restored, does
    nothing. Raises `StorageUnavailableError`.
    """
    with unit_of_work(logger, "purge_retired", id=artifact_id) as work:
        located = None if is_restoring() else _claim_retired(artifact_id)
        if located is None:
            work.reason = "not_due"
            return False
        connection.close()
        store.remove(located.storage_id)
        _execute(_PURGE_SQL, {"id": artifact_id})
        return True


def remove_obsolete(*, store: ArtifactStore, location_id: uuid.UUID) -> bool:
    """Remove bytes that nobody needs; whether they are gone now. The row is the intent: it goes last.

    A repeat finishes the work. Raises `StorageUnavailableError`.
    """
    with unit_of_work(logger, "remove_obsolete", id=location_id) as work:
        located = None if is_restoring() else _claim_obsolete(location_id)
        if located is None:
            work.reason = "not_due"
            return False
        connection.close()
        store.remove(located.storage_id)
        _execute(_FORGET_OBSOLETE_SQL, {"id": location_id})
        return True


def follow_facts(*, store: ArtifactStore, artifact_id: uuid.UUID) -> bool:
    """Make the facts kept with the bytes say what the row says; whether anything changed. The row is the truth.

    Needed after harvest gave bytes to the winner of a collision. Raises `StorageUnavailableError`.
    """
    known = model_queries.artifact_by_id(artifact_id)
    if known is None or known.location is None:
        return False
    artifact, located = known.artifact, known.location
    connection.close()
    facts = ContentFacts(artifact.id, artifact.uri, artifact.content_type, artifact.content_encoding)
    try:
        present = store.stat(located.storage_id)
    except StoredObjectMissingError as error:
        # Not ours to mend: file validate reports it.
        logger.warning("END event=follow_facts", extra={"facts": {"id": artifact_id, "reason": error.code}})
        return False
    if isinstance(present, InvalidObject) or present.facts == facts:
        return False
    store.set_facts(located.storage_id, facts)
    return True


def _claim_retired(artifact_id: uuid.UUID) -> Located | None:
    with transaction.atomic(), connection.cursor() as cursor:
        lock_moments(shared=True)
        cursor.execute(_RESCUE_RETIRED_SQL, {"id": artifact_id})
        kept, parameters = queries.retention().sql("r.uri")
        cursor.execute(_CLAIM_RETIRED_SQL.format(kept=kept), {"id": artifact_id, **parameters})
        row = cursor.fetchone()
    return Located(*row) if row is not None else None


def _claim_obsolete(location_id: uuid.UUID) -> Located | None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_RESCUE_OBSOLETE_SQL, {"id": location_id})
        cursor.execute(_CLAIM_OBSOLETE_SQL, {"id": location_id, "obsolete_before": queries.obsolete_before()})
        row = cursor.fetchone()
    return Located(*row) if row is not None else None


def _execute(sql: str, parameters: dict[str, uuid.UUID]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql, parameters)
