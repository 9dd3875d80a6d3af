"""Checking the chain: archive files, tables, signed heads; the first thing that is wrong."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from datamodel import keys
from datamodel.audit import queries
from datamodel.audit.chain import HEAD_KIND
from datamodel.audit.models import AuditArchive, AuditHead
from datamodel.audit.queries import Start
from datamodel.audit.rules import Seal, Wrong, first_wrong
from datamodel.backup import patiently
from datamodel.statements import UnbelievableStatementError, verified

Batch = tuple[Seal, list[tuple[int, str]]]
_DAMAGES = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError)


class DamagedFileError(ValueError):
    """It is no archive file of ours, or not whole."""


@dataclass(slots=True)
class Report:
    """What was looked at; `wrong` is the first thing that is not as it was sealed or signed, None if all is well.

    `unsealed`: entries that wait for the sealer. `retired_keys`: heads whose key this inventory does not know (any more).
    """

    seals: int = 0
    entries: int = 0
    files: int = 0
    heads: int = 0
    retired_keys: int = 0
    unsealed: int = 0
    last_seal: int = 0
    digest: str = ""
    wrong: Wrong | None = None
    digests: dict[int, bytes] = field(default_factory=dict, repr=False)


def verify(archives: Sequence[Path] = ()) -> Report:
    """Check these archive files (in any order), then the tables from where the recorded archives end, then the signed heads.

    Everything is of one snapshot, which holds up no writer.
    """
    report = Report()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        patiently()
        heads = list(AuditHead.objects.order_by("id"))
        signed = {head.seal for head in heads}
        begin = queries.start()
        report.wrong = (
            _check_files(archives, begin, signed, report)
            or _check(_tables(begin), begin, signed, report)
            or _check_heads(heads, begin, report)
        )
        with connection.cursor() as cursor:
            last = queries.last_seal()
            cursor.execute(
                "SELECT count(*) FROM audit_entry WHERE (txid, id) > (%s, %s)",
                last.place if last is not None else (0, 0),
            )
            (report.unsealed,) = cursor.fetchone()
    return report


def verify_file(path: Path) -> tuple[Start, Start, int]:
    """From where to where a whole archive file goes, and how many entries it has. Raises `DamagedFileError` for the first thing that is wrong."""
    report, begin = Report(), Start()
    batches = batches_of(path)
    first = next(batches, None)
    if first is None:
        raise DamagedFileError(f"{path.name} holds no seal")
    begin = Start(first[0].number - 1, (0, 0), first[0].previous)
    wrong = _check(_with_first(first, batches), begin, set(), report)
    if wrong is not None:
        raise DamagedFileError(f"{path.name}: {wrong.text}")
    return begin, Start(report.last_seal, (0, 0), bytes.fromhex(report.digest)), report.entries


def batches_of(path: Path) -> Iterator[Batch]:
    """Each seal of an archive file (or of an export) with the lines of its entries. Raises `DamagedFileError`."""
    held: list[tuple[int, str]] = []
    try:
        with gzip.open(path, "rt", encoding="ascii", newline="\n") as file:
            for raw in file:
                line = raw.rstrip("\n")
                facts = json.loads(line)
                if "seal" not in facts:
                    held.append((int(facts["id"]), line))
                    continue
                yield _parsed(facts), held
                held = []
    except _DAMAGES as error:
        raise DamagedFileError(f"{path.name} is damaged or no archive of the audit: {error}") from error
    if held:
        raise DamagedFileError(f"{path.name} is cut: its last entries have no seal")


def sha256_of(path: Path) -> str:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parsed(facts: dict[str, Any]) -> Seal:
    txid, identity = facts["to"]
    previous, digest, links = (bytes.fromhex(facts[name]) for name in ("previous", "digest", "links"))
    at = datetime.fromisoformat(facts["at"])
    return Seal(int(facts["seal"]), at, int(txid), int(identity), int(facts["entries"]), previous, digest, links)


def _with_first(first: Batch, rest: Iterator[Batch]) -> Iterator[Batch]:
    yield first
    yield from rest


def _tables(begin: Start) -> Iterator[Batch]:
    for seal, entries in queries.sealed_batches(begin):
        yield seal, [(entry.id, entry.line) for entry in entries]


def _check(batches: Iterator[Batch], begin: Start, signed: set[int], report: Report) -> Wrong | None:
    number, digest = begin.number, begin.digest
    for seal, entries in batches:
        number += 1
        wrong = first_wrong(digest, number, seal, entries)
        if wrong is not None:
            return wrong
        digest = seal.digest
        report.seals, report.entries = report.seals + 1, report.entries + len(entries)
        if number in signed:
            report.digests[number] = digest
    report.last_seal, report.digest = number, digest.hex()
    return None


def _check_files(paths: Sequence[Path], begin: Start, signed: set[int], report: Report) -> Wrong | None:
    """They must follow one another and end where the tables begin; a record of a file says what it must be."""
    recorded = {archive.name: archive for archive in AuditArchive.objects.all()}
    found: list[tuple[Start, Path]] = []
    for path in paths:
        try:
            first, _ = next(batches_of(path), (None, None))
        except DamagedFileError as error:
            return Wrong(0, None, str(error))
        if first is None:
            return Wrong(0, None, f"{path.name} holds no seal")
        found.append((Start(first.number - 1, (0, 0), first.previous), path))
    place = min((start for start, _ in found), key=lambda start: start.number, default=begin)
    for start, path in sorted(found, key=lambda pair: pair[0].number):
        archive = recorded.get(path.name)
        if archive is not None and sha256_of(path) != archive.sha256:
            return Wrong(start.number + 1, None, f"{path.name} is not the file that was recorded")
        if (start.number, start.digest) != (place.number, place.digest):
            return Wrong(place.number + 1, None, f"{path.name} does not follow the file before it")
        try:
            wrong = _check(batches_of(path), place, signed, report)
        except DamagedFileError as error:
            return Wrong(start.number + 1, None, str(error))
        if wrong is not None:
            return Wrong(wrong.seal, wrong.entry, f"{path.name}: {wrong.text}")
        report.files += 1
        place = Start(report.last_seal, (0, 0), bytes.fromhex(report.digest))
    if found and (place.number, place.digest) != (begin.number, begin.digest):
        return Wrong(
            place.number + 1, None, f"the files end at seal {place.number}, the tables go on after {begin.number}"
        )
    return None


def _check_heads(heads: Sequence[AuditHead], begin: Start, report: Report) -> Wrong | None:
    known_keys = keys.historical_keys()
    for head in heads:
        public_key = bytes(head.public_key)
        if known_keys.get(head.key_id, public_key) != public_key:
            return Wrong(head.seal, None, f"the head at seal {head.seal} is not signed by the key {head.key_id}")
        try:
            claims = verified(head.statement, {head.key_id: public_key}, kind=HEAD_KIND)
        except UnbelievableStatementError as error:
            return Wrong(head.seal, None, f"the head at seal {head.seal}: {error}")
        if claims.get("seal") != head.seal:
            return Wrong(head.seal, None, f"the head at seal {head.seal} was signed for another one")
        if head.seal > report.last_seal:
            return Wrong(head.seal, None, f"seal {head.seal} was signed and is gone: the end of the chain was cut off")
        known = report.digests.get(head.seal, begin.digest if head.seal == begin.number else None)
        if known is not None and claims.get("digest") != known.hex():
            return Wrong(head.seal, None, f"seal {head.seal} is not what was signed")
        report.heads += 1
        report.retired_keys += head.key_id not in known_keys
    return None
