"""Digests, listings and looked-up rows as text, and the proof that an answer is whole. No clock, no I/O.

An answer is a head line, its lines, and an end line with their count and SHA-256: a cut answer is never a short one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from datamodel.errors import RemoteProtocolError, RemoteUnavailableError
from datamodel.positions import Cursor
from datamodel.rules import ArtifactRow
from datamodel.uris import ArtifactUri
from harvest.cells import text_of
from harvest.reconcile.scope import Digest, Listed, Tree, digest_of

TREE_MARK = "#storage-inventory-tree"
LISTING_MARK = "#storage-inventory-listing"
END_MARK = "#end"
VERSION = 2

_PREFIX = re.compile(r"[0-9a-f]{0,32}\Z")
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_TOTAL = re.compile(r"[0-9a-f]{16}\Z")
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}\Z")


def answer(mark: str, epoch: str, settled: int, lines: bytes, *following: str) -> bytes:
    """A whole answer; `settled` is the newest final change that it has seen."""
    head = "\t".join([mark, str(VERSION), epoch, str(settled)])
    end = "\t".join([END_MARK, str(lines.count(b"\n")), digest_of(lines), *following])
    return f"{head}\n".encode() + lines + f"{end}\n".encode()


@dataclass(frozen=True, slots=True)
class Whole:
    """A proven answer: its lines, split, and further words of the end line."""

    epoch: str
    lines: list[list[str]]
    following: list[str]


def proven(name: str, mark: str, body: bytes) -> Whole:
    """Raises `RemoteUnavailableError` when it was cut, `RemoteProtocolError` when it is not what it claims to be."""
    head, _, rest = body.partition(b"\n")
    words = head.decode("utf-8", "replace").split("\t")
    start = rest.rfind(b"\n", 0, -1) + 1
    end = rest[start:].decode("utf-8", "replace").split("\t")
    if words[0] != mark or len(words) < 4 or not words[1].isdigit():
        raise RemoteProtocolError(f"{name} did not send what was asked for: {words[0][:40]!r}")
    if words[1] != str(VERSION):
        raise RemoteProtocolError(
            f"{name} speaks version {words[1]} of reconcile, and this inventory {VERSION}: upgrade the older one"
        )
    if end[0] != END_MARK or len(end) < 3 or not rest.endswith(b"\n"):
        raise RemoteUnavailableError(f"{name} stopped in the middle of an answer")
    lines = rest[:start]
    if end[1] != str(lines.count(b"\n")) or end[2].strip() != digest_of(lines):
        raise RemoteProtocolError(f"{name} sent lines that do not fit their count and digest")
    try:
        split = [line.split("\t") for line in lines.decode().splitlines()]
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"{name} did not send text") from None
    return Whole(words[2], split, [word.strip() for word in end[3:]])


def parse_tree(name: str, body: bytes, *, depth: int, prefixes: Sequence[str]) -> tuple[str, Tree]:
    """Epoch and tree. Raises like `proven`."""
    whole = proven(name, TREE_MARK, body)
    under = tuple(prefixes) or ("",)
    tree: dict[str, Digest] = {}
    for line in whole.lines:
        is_good = len(line) >= 3 and _PREFIX.match(line[0]) and _NUMBER.match(line[1]) and _TOTAL.match(line[2])
        if not is_good or len(line[0]) != depth or not line[0].startswith(under) or line[0] in tree or line[1] == "0":
            raise RemoteProtocolError(f"{name} sent a tree with a wrong line: {line!r:.100}")
        tree[line[0]] = Digest(int(line[1]), int(line[2], 16))
    return whole.epoch, tree


def listing_lines(rows: Sequence[Listed]) -> bytes:
    """One line for each row."""
    return "".join(f"{row.artifact_id}\t{row.meta_checksum}\n" for row in rows).encode()


def parse_listing(
    name: str, body: bytes, *, prefixes: Sequence[str], after: uuid.UUID | None
) -> tuple[str, list[Listed], bool]:
    """Epoch, rows in order, and whether more follow. Raises like `proven`."""
    whole = proven(name, LISTING_MARK, body)
    if not whole.following or whole.following[0] not in {"0", "1"}:
        raise RemoteProtocolError(f"{name} does not say whether more rows follow")
    rows: list[Listed] = []
    last = after
    for line in whole.lines:
        row = _listed(name, line)
        if (last is not None and row.artifact_id <= last) or not row.artifact_id.hex.startswith(tuple(prefixes)):
            raise RemoteProtocolError(f"{name} sent a listing out of order or with what was not asked for")
        rows.append(row)
        last = row.artifact_id
    if whole.following[0] == "1" and not rows:
        raise RemoteProtocolError(f"{name} says that more rows follow, but sends none")
    return whole.epoch, rows, whole.following[0] == "1"


def _listed(name: str, line: list[str]) -> Listed:
    if len(line) < 2 or not _CHECKSUM.match(line[1]):
        raise RemoteProtocolError(f"{name} sent a listing with a wrong line: {line!r:.100}")
    try:
        return Listed(uuid.UUID(line[0]), line[1])
    except ValueError:
        raise RemoteProtocolError(f"{name} sent a listing with a wrong id: {line[0]!r:.60}") from None


Row = dict[str, str | None]


def parse_rows(columns: Sequence[str], text: bytes) -> list[Row]:
    """Rows of COPY text, by wire name."""
    return [
        dict(zip(columns, (text_of(cell) for cell in line.split("\t")), strict=False))
        for line in text.decode("utf-8", "replace").split("\n")[:-1]
    ]


@dataclass(frozen=True, slots=True)
class Told:
    """Something that the other inventory says of an id, and since when: its place in the feed."""

    artifact_id: uuid.UUID
    uri: str | None
    place: Cursor
    artifact: ArtifactRow | None = None


def told(name: str, epoch: str, row: Row) -> Told:
    """From a row of an event stream. Raises `RemoteProtocolError`."""
    try:
        identity = uuid.UUID(str(row["id"]))
        return Told(identity, row["uri"], Cursor(epoch, int(str(row["txid"])), identity))
    except (KeyError, ValueError):
        raise RemoteProtocolError(f"{name} sent a row that cannot be read: {row!r:.200}") from None


def told_artifact(name: str, epoch: str, row: Row) -> Told:
    """From a row of the artifacts stream. Raises `RemoteProtocolError`."""
    try:
        return replace(told(name, epoch, row), artifact=_artifact(row))
    except (KeyError, ValueError, TypeError):
        raise RemoteProtocolError(f"{name} sent an artifact that cannot be read: {row!r:.200}") from None


def _artifact(row: Row) -> ArtifactRow:
    uri, sha256 = ArtifactUri(str(row["uri"])), row.get("contentSha256")
    return ArtifactRow(
        id=uuid.UUID(str(row["id"])),
        uri=uri.value,
        uri_bucket=uri.bucket,
        content_checksum=str(row["contentChecksum"]),
        content_last_modified=_time(row["contentLastModified"]),
        content_length=int(str(row["contentLength"])),
        content_type=row["contentType"],
        content_encoding=row["contentEncoding"],
        last_modified=_time(row["lastModified"]),
        meta_checksum=str(row["metaChecksum"]),
        content_sha256=bytes.fromhex(sha256) if sha256 else None,
        meta_modified_at=_time(row.get("metaModified") or row["lastModified"]),
    )


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
