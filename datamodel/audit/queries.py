"""Reading the audit: the end of the chain, what can be sealed, pages in the order of the chain, who did something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet

from datamodel.audit.models import AuditArchive, AuditEntry, AuditHead
from datamodel.audit.rules import GENESIS, Action, Entry, Seal
from datamodel.positions import HORIZON_SQL
from datamodel.uris import prefix_upper_bound

_COLUMNS = "id, txid, at, who, method, address, action, subject, outcome, reason, request_id, count, details"
# One statement, one snapshot: below its horizon nothing can appear any more.
_SEALABLE_SQL = f"""
    SELECT {_COLUMNS} FROM audit_entry
    WHERE (txid, id) > (%s, %s) AND txid < {HORIZON_SQL} + coalesce((SELECT shift FROM audit_shift), 0)
    ORDER BY txid, id LIMIT %s
"""
_BETWEEN_SQL = f"""
    SELECT {_COLUMNS} FROM audit_entry WHERE (txid, id) > (%s, %s) AND (txid, id) <= (%s, %s) ORDER BY txid, id LIMIT %s
"""
_SEALS_SQL = """
    SELECT number, at, to_txid, to_id, entries, previous, digest, links FROM audit_seal WHERE number > %s ORDER BY number LIMIT %s
"""
_DEATHS_SQL = """
    SELECT txid + coalesce((SELECT shift FROM audit_shift), 0) FROM deleted_artifact_event WHERE uri = %s
    ORDER BY txid DESC LIMIT %s
"""
_PAGE = 2000


@dataclass(frozen=True, slots=True)
class Start:
    """Where the tables begin: after this seal, place and digest (those of the last archive file, or the very beginning)."""

    number: int = 0
    place: tuple[int, int] = (0, 0)
    digest: bytes = GENESIS


def start() -> Start:
    """After what was archived."""
    last = AuditArchive.objects.order_by("-to_seal").first()
    return Start() if last is None else Start(last.to_seal, (last.to_txid, last.to_id), bytes(last.digest))


def last_seal() -> Seal | None:
    """The end of the chain; of one that is archived whole, as the last file's record has it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT number, at, to_txid, to_id, entries, previous, digest, links FROM audit_seal ORDER BY number DESC LIMIT 1"
        )
        row = cursor.fetchone()
    if row is not None:
        return _seal(row)
    archive = AuditArchive.objects.order_by("-to_seal").first()
    if archive is None:
        return None
    digest = bytes(archive.digest)
    return Seal(archive.to_seal, archive.at, archive.to_txid, archive.to_id, 0, b"", digest, b"")


def sealable(after: tuple[int, int], limit: int) -> list[Entry]:
    """Entries after a place that no transaction under way can come before any more, in order."""
    return _entries(_SEALABLE_SQL, [*after, limit])


def seals_after(number: int, limit: int = _PAGE) -> list[Seal]:
    """The next ones."""
    with connection.cursor() as cursor:
        cursor.execute(_SEALS_SQL, [number, limit])
        return [_seal(row) for row in cursor.fetchall()]


def seal(number: int) -> Seal | None:
    """This one, if it is in the tables."""
    found = seals_after(number - 1, 1)
    return found[0] if found and found[0].number == number else None


def sealed_batches(begin: Start, *, until: int | None = None) -> Iterator[tuple[Seal, list[Entry]]]:
    """Each seal after `begin` (not beyond number `until`) with the entries that lie in its range, read by pages."""
    number, place = begin.number, begin.place
    while seals := [seal for seal in seals_after(number) if until is None or seal.number <= until]:
        entries = _entries_between(place, seals[-1].place)
        held: Entry | None = next(entries, None)
        for seal in seals:
            batch: list[Entry] = []
            while held is not None and held.place <= seal.place:
                batch.append(held)
                held = next(entries, None)
            yield seal, batch
        number, place = seals[-1].number, seals[-1].place


def heads(after: int, until: int) -> dict[int, str]:
    """The latest signed statement of each seal between that has one."""
    found = AuditHead.objects.filter(seal__gt=after, seal__lte=until)
    return dict(found.order_by("id").values_list("seal", "statement"))


def found(
    *, subject: str = "", who: str = "", action: str = "", since: datetime | None = None, limit: int = 100
) -> QuerySet[AuditEntry]:
    """The newest entries about a uri or name (a namespace or prefix if it ends like one), by somebody."""
    rows = AuditEntry.objects.all()
    if subject:
        rows = rows.filter(_about(subject))
    if who:
        rows = rows.filter(who=who)
    if action:
        rows = rows.filter(action=action)
    if since is not None:
        rows = rows.filter(at__gte=since)
    return rows.order_by("-id")[:limit]


def deleted_by_news(uri: str, limit: int = 100) -> QuerySet[AuditEntry]:
    """Entries of harvested news that ended an artifact of this uri: they commit in one transaction with its tombstone."""
    with connection.cursor() as cursor:
        cursor.execute(_DEATHS_SQL, [uri, limit])
        transactions = [txid for (txid,) in cursor.fetchall()]
    news = AuditEntry.objects.filter(txid__in=transactions, action__in=[Action.HARVEST.value, Action.RECONCILE.value])
    return news.order_by("-id")[:limit]


def entry_of(row: AuditEntry) -> Entry:
    """A row as it is chained and told."""
    return Entry(
        row.pk,
        row.txid,
        row.at,
        row.who,
        row.method,
        row.address,
        row.action,
        row.subject,
        row.outcome,
        row.reason,
        row.request_id,
        row.count,
        row.details,
    )


def _about(subject: str) -> Q:
    if subject.endswith((":", "/")):
        return Q(subject__gte=subject, subject__lt=prefix_upper_bound(subject))
    return Q(subject=subject)


def _entries_between(after: tuple[int, int], until: tuple[int, int]) -> Iterator[Entry]:
    while page := _entries(_BETWEEN_SQL, [*after, *until, _PAGE]):
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].place


def _entries(sql: str, parameters: list[int]) -> list[Entry]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [_entry(row) for row in cursor.fetchall()]


def _entry(row: tuple[Any, ...]) -> Entry:
    entry = Entry(*row)
    return replace(entry, details=json.loads(row[-1])) if isinstance(row[-1], str) else entry


def _seal(row: tuple[Any, ...]) -> Seal:
    number, at, to_txid, to_id, entries, *digests = row
    previous, digest, links = map(bytes, digests)
    return Seal(number, at, to_txid, to_id, entries, previous, digest, links)
