"""The sealer: batches of entries below the stable horizon are chained; the head of the chain is signed.

A chain inside each write would make all writes wait for one another; so entries commit unchained, and one sealer follows.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from datamodel import keys, positions
from datamodel.audit import queries, rules
from datamodel.audit.models import AuditHead
from datamodel.errors import InventoryError, NotConfiguredError
from datamodel.rows import database_now
from datamodel.statements import FULLY_NAMED, signed_statement
from datamodel.wire import time_text

logger = logging.getLogger(__name__)

# What one seal holds at most, and so the least that an export's page must be able to hold.
BATCH = 1000
HEAD_KIND = "audit-head"
_LOCK = 0x5EA1_0000_0001
_SEAL_SECONDS = 0.5
_INSERT_SQL = """
    INSERT INTO audit_seal (number, at, to_txid, to_id, entries, previous, digest, links)
    VALUES (%s, inventory_now(), %s, %s, %s, %s, %s, %s)
"""
_SHIFT_SQL = f"""
    UPDATE audit_shift SET shift = greatest(shift, 1 - {positions.TXID_SQL} + greatest(
        (SELECT max(txid) FROM audit_entry), (SELECT max(to_txid) FROM audit_seal), (SELECT max(to_txid) FROM audit_archive)))
"""


def seal_ready() -> int:
    """Seal what no transaction under way can come before any more; returns how many entries. A repeat goes on.

    Each seal is one transaction, and only one sealer works at a time (the others do nothing): a crash leaves no half seal.
    """
    total = 0
    while count := _seal_batch():
        total += count
        if count < BATCH:
            break
    return total


def sign_head() -> AuditHead | None:
    """Sign what the chain is now; None if nothing is sealed yet, or while this inventory has no signing key."""
    last = queries.last_seal()
    if last is None:
        return None
    try:
        key = keys.signing_key(now=datetime.now(UTC))
    except NotConfiguredError:
        return None
    now = database_now()
    claims: dict[str, object] = {
        "inventory": str(positions.read_identity().inventory_id),
        "name": settings.INVENTORY_NAME,
        "seal": last.number,
        "digest": last.digest.hex(),
        "at": time_text(now),
    }
    statement = signed_statement(key, claims, kind=HEAD_KIND, algorithm=FULLY_NAMED)
    return AuditHead.objects.create(
        seal=last.number, at=now, key_id=key.key_id, public_key=key.public_bytes, statement=statement
    )


def sign_head_daily() -> AuditHead | None:
    """Sign the head if it was not within a day, also when nothing is new: that it was not cut off is news, too."""
    head = AuditHead.objects.order_by("-id").first()
    is_due = head is None or (database_now() - head.at).total_seconds() >= 24 * 3600
    return sign_head() if is_due else None


def begin_era() -> None:
    """After a restore: entries from now on come after all that there are, though transaction ids may have started anew."""
    with connection.cursor() as cursor:
        # A backup of a release before the audit is loaded into its own schema.
        cursor.execute("SELECT to_regclass('audit_shift') IS NOT NULL")
        if cursor.fetchone()[0]:
            cursor.execute("INSERT INTO audit_shift SELECT 0 WHERE NOT EXISTS (SELECT FROM audit_shift)")
            cursor.execute(_SHIFT_SQL)


class Sealer:
    """A thread that seals, twice a second: most often there is nothing, and it is one look at the end of an index."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="seal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """It ends with what it is doing."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_SEAL_SECONDS):
            try:
                seal_ready()
                self._is_failing = False
            except (InventoryError, DatabaseError) as error:
                if not self._is_failing:
                    facts = {"result": "failed", "reason": str(error).strip()}
                    logger.warning("END event=seal_audit", extra={"facts": facts})
                self._is_failing = True
            finally:
                connection.close()


def _seal_batch() -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0]:
            return 0
        last = queries.last_seal()
        # A statement of its own, after the lock: it sees what the sealer before has committed.
        entries = queries.sealable(last.place if last is not None else (0, 0), BATCH)
        if not entries:
            return 0
        previous = last.digest if last is not None else rules.GENESIS
        digest, links = rules.sealed(previous, [(entry.id, entry.line) for entry in entries])
        number, end = (last.number if last is not None else 0) + 1, entries[-1]
        cursor.execute(_INSERT_SQL, [number, end.txid, end.id, len(entries), previous, digest, links])
        return len(entries)
