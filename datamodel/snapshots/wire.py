"""Entries, changes and snapshots as JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator

from datamodel.snapshots.models import Snapshot
from datamodel.snapshots.queries import Changed, Verification
from datamodel.snapshots.rules import Digest, Entry
from datamodel.wire import time_text

Item = dict[str, object]
_CSV_COLUMNS = ("uri", "id", "contentChecksum", "contentSha256", "contentLength", "contentLastModified")


def entry_item(entry: Entry) -> Item:
    """An artifact as it was; the names of the feed."""
    return {
        "id": str(entry.id),
        "uri": entry.uri,
        "contentChecksum": entry.content_checksum,
        "contentSha256": entry.content_sha256.hex() if entry.content_sha256 is not None else None,
        "contentLength": entry.content_length,
        "contentType": entry.content_type,
        "contentEncoding": entry.content_encoding,
        "contentLastModified": time_text(entry.born_at),
    }


def change_item(changed: Changed) -> Item:
    """What became of one uri."""
    return {
        "uri": changed.uri,
        "change": changed.change.value,
        "before": entry_item(changed.before) if changed.before is not None else None,
        "after": entry_item(changed.after) if changed.after is not None else None,
    }


def snapshot_item(snapshot: Snapshot, *, awaited: Iterable[str] = ()) -> Item:
    """A snapshot; digest, count and bytes once it is kept."""
    is_measured = bool(snapshot.digest)
    return {
        "id": str(snapshot.id),
        "name": str(snapshot),
        "source": snapshot.source or None,
        "namespace": snapshot.namespace,
        "moment": time_text(snapshot.moment),
        "state": snapshot.state,
        "digest": snapshot.digest if is_measured else None,
        "artifacts": snapshot.artifacts if is_measured else None,
        "bytes": snapshot.size if is_measured else None,
        "createdBy": snapshot.created_by,
        "keptAt": time_text(snapshot.kept_at) if snapshot.kept_at is not None else None,
        "waitingFor": list(awaited),
        "orphan": snapshot.is_orphan,
    }


def verification_item(found: Verification) -> Item:
    """What was promised and what is found."""
    return {"holds": found.holds, "promised": _digest(found.promised), "found": _digest(found.found)}


def json_lines(items: Iterable[Item]) -> Iterator[str]:
    """One object per line."""
    for item in items:
        yield json.dumps(item) + "\n"


def csv_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """With a header; what `manage.py cross_match` reads too."""
    yield _csv_line(_CSV_COLUMNS)
    for entry in entries:
        item = entry_item(entry)
        yield _csv_line([item[name] for name in _CSV_COLUMNS])


def _csv_line(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(["" if value is None else value for value in values])
    return line.getvalue()


def _digest(digest: Digest) -> Item:
    return {"digest": digest.text, "artifacts": digest.count, "bytes": digest.size}
