"""Retention: closed segments of the chain move into files; the tables go on where the last file ends."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction

from datamodel.archive import published
from datamodel.audit import queries
from datamodel.audit.models import AuditArchive
from datamodel.audit.queries import Start
from datamodel.audit.recording import record
from datamodel.audit.rules import Action, Seal
from datamodel.audit.verification import DamagedFileError, sha256_of, verify_file
from datamodel.errors import NotConfiguredError, RaceLostError
from datamodel.logs import unit_of_work
from datamodel.rows import database_now

logger = logging.getLogger(__name__)

SUFFIX = ".ndjson.gz"
# Of one file, so that it can be read in a minute; a page of seals more or less.
_FILE_ENTRIES = 1_000_000
_ROWS = 10_000
_EACH = timedelta(days=1)
_LOCK = 0x5EA1_0000_0002
_FORGET_ENTRIES_SQL = """
    DELETE FROM audit_entry WHERE id IN (SELECT id FROM audit_entry WHERE (txid, id) <= (%s, %s) ORDER BY txid, id LIMIT %s)
"""
_FORGET_SEALS_SQL = """
    DELETE FROM audit_seal WHERE number IN (SELECT number FROM audit_seal WHERE number <= %s ORDER BY number LIMIT %s)
"""


def archive_due() -> AuditArchive | None:
    """Once a day what is older than INVENTORY_AUDIT_KEEP_DAYS (0: nothing ever) moves into a file; and what a crash has left over goes."""
    forget_archived()
    days, directory = settings.INVENTORY_AUDIT_KEEP_DAYS, settings.INVENTORY_AUDIT_ARCHIVE_DIR
    if not days or not directory:
        return None
    now, last = database_now(), AuditArchive.objects.order_by("-to_seal").first()
    if last is not None and now - last.at < _EACH:
        return None
    return archive(before=now - timedelta(days=days), directory=Path(directory))


def archive(*, before: datetime, directory: Path) -> AuditArchive | None:
    """Move what was sealed before a time into one more file; None if nothing was. At most a million entries, a repeat goes on.

    The file is durable and was read back before its record is committed, and only then do rows go: a crash at any point loses nothing, a
    repeat uses the file that is there. Raises `BackupError`, `DamagedFileError`, `NotConfiguredError`, `RaceLostError`.
    """
    if not directory.is_dir():
        raise NotConfiguredError(
            f"{directory} is no directory: make it, or name another one in INVENTORY_AUDIT_ARCHIVE_DIR"
        )
    begin = queries.start()
    end, entries = _closed(begin, before)
    if end is None:
        return None
    path = directory / f"{settings.INVENTORY_NAME}-audit-{begin.number + 1:010}-{end.number:010}{SUFFIX}"
    with unit_of_work(logger, "archive_audit", file=path.name, entries=entries):
        if not path.exists():
            _write(path, begin, end)
        first, last, count = verify_file(path)
        if (first.number, first.digest, last.number, last.digest) != (
            begin.number,
            begin.digest,
            end.number,
            end.digest,
        ):
            raise DamagedFileError(f"{path.name} exists and holds something else: move it away")
        archived = _record(path, begin, end, count)
        forget_archived()
        return archived


def forget_archived() -> int:
    """Rows that a recorded file holds go, some at a time; returns how many entries."""
    begin, total = queries.start(), 0
    if not begin.number:
        return 0
    while count := _delete(_FORGET_ENTRIES_SQL, [*begin.place, _ROWS]):
        total += count
    while _delete(_FORGET_SEALS_SQL, [begin.number, _ROWS]):
        pass
    return total


def exported_lines(begin: Start, *, until: int) -> Iterator[str]:
    """The text of a file or an export: the entries of each seal, then the seal with what was signed of it."""
    signed = queries.heads(begin.number, until)
    for seal, entries in queries.sealed_batches(begin, until=until):
        for entry in entries:
            yield f"{entry.line}\n"
        yield f"{seal.line(signed.get(seal.number, ''))}\n"


def _closed(begin: Start, before: datetime) -> tuple[Seal | None, int]:
    """The last seal that goes into the next file."""
    end, entries = None, 0
    number = begin.number
    while page := queries.seals_after(number):
        for seal in page:
            if seal.at >= before or entries >= _FILE_ENTRIES:
                return end, entries
            end, entries = seal, entries + seal.entries
        number = page[-1].number
    return end, entries


def _write(path: Path, begin: Start, end: Seal) -> None:
    with published(path) as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
        for line in exported_lines(begin, until=end.number):
            packed.write(line.encode())


def _record(path: Path, begin: Start, end: Seal, entries: int) -> AuditArchive:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if queries.start() != begin:
            raise RaceLostError("somebody else has archived meanwhile")
        archived = AuditArchive.objects.create(
            from_seal=begin.number + 1,
            to_seal=end.number,
            to_txid=end.to_txid,
            to_id=end.to_id,
            digest=end.digest,
            name=path.name,
            sha256=sha256_of(path),
            entries=entries,
            at=database_now(),
        )
        record(
            Action.AUDIT_ARCHIVED,
            path.name,
            details={"fromSeal": begin.number + 1, "toSeal": end.number, "sha256": archived.sha256},
        )
    return archived


def _delete(sql: str, parameters: list[int]) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL inventory.audit_archiving = 'on'")
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)
