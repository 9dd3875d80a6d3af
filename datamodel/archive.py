"""The file of a backup: a tar of table rows as COPY text in compressed pieces, and at its end a manifest that vouches for all of it.

Written and read piece by piece, so memory is flat whatever its size. A file without its manifest was cut; `tar` and `gzip` open it
without us.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

FORMAT = 1
SUFFIX = ".backup"
_PIECE_BYTES = 4 * 1024 * 1024
_MANIFEST, _SEAL = "manifest.json", "manifest.sha256"
_DAMAGES = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, KeyError, TypeError)


class BackupError(RuntimeError):
    """A backup cannot be made or restored; the message says why, and what would be right. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The rows of one table: `sha256` and `size` are of its COPY text."""

    name: str
    columns: list[str]
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds, of whom and of when, and what restoring it needs.

    `secrets`: fingerprints of the keys (INVENTORY_SECRET_KEY and its fallbacks) under which secrets in the rows are sealed.
    `horizon`: transactions below it are in the backup.
    """

    format: int
    version: str
    role: str
    name: str
    inventory_id: str
    epoch: str
    horizon: int
    taken_at: str
    server_version: int
    secrets: list[str]
    migrations: list[list[str]]
    tables: list[TableFacts] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


class ArchiveWriter:
    """Tables one after the other, then `finish`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # closed by finish

    def add_table(self, name: str, columns: list[str], text: Iterator[bytes | memoryview]) -> TableFacts:
        """All rows of a table, as COPY sends them."""
        digest, rows, size = hashlib.sha256(), 0, 0
        for number, piece in enumerate(_pieces(text)):
            digest.update(piece)
            rows, size = rows + piece.count(b"\n"), size + len(piece)
            self._add(f"tables/{name}/{number:08}.copy.gz", gzip.compress(piece, 1, mtime=0))
        return TableFacts(name, columns, rows, size, digest.hexdigest())

    def finish(self, manifest: Manifest) -> None:
        """Nothing may follow."""
        text = json.dumps(asdict(manifest), indent=1).encode()
        self._add(_MANIFEST, text)
        self._add(_SEAL, hashlib.sha256(text).hexdigest().encode())
        self._tar.close()

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o600
        self._tar.addfile(member, io.BytesIO(content))


class ArchiveReader:
    """One pass over a backup. `manifest` is there once `tables` has come to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.manifest: Manifest | None = None

    def tables(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Each table that has rows, and its COPY text in pieces, which must be read before the next one. Raises `BackupError`."""
        for name, group in groupby(self._pieces(), key=lambda pair: pair[0]):
            yield name, (data for _, data in group)

    def _pieces(self) -> Iterator[tuple[str, bytes]]:
        with _explained(self._path), self._path.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
            yield from self._members(tar)

    def _members(self, tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
        manifest = b""
        for member in tar:
            content = tar.extractfile(member)
            data = content.read() if content is not None else b""
            folder, _, rest = member.name.partition("/")
            if folder == "tables":
                yield rest.partition("/")[0], gzip.decompress(data)
            elif member.name == _MANIFEST:
                manifest = data
            elif member.name == _SEAL and hashlib.sha256(manifest).hexdigest().encode() == data:
                self.manifest = _parsed(manifest)


def verify(path: Path) -> Manifest:
    """Read all of a backup and hold it against its manifest, which is returned. Raises `BackupError`."""
    reader, found = ArchiveReader(path), dict[str, tuple[int, int, str]]()
    for name, pieces in reader.tables():
        digest, rows, size = hashlib.sha256(), 0, 0
        for piece in pieces:
            digest.update(piece)
            rows, size = rows + piece.count(b"\n"), size + len(piece)
        found[name] = rows, size, digest.hexdigest()
    if reader.manifest is None:
        raise BackupError(f"{path} is no whole backup: its manifest is missing or damaged. Use another one.")
    nothing = (0, 0, hashlib.sha256().hexdigest())
    for table in reader.manifest.tables:
        if found.pop(table.name, nothing) != (table.rows, table.size, table.sha256):
            raise BackupError(f"{path} is damaged: the rows of {table.name} are not what its manifest says.")
    if found:
        raise BackupError(f"{path} is damaged: its manifest says nothing of {', '.join(sorted(found))}.")
    return reader.manifest


@contextmanager
def published(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which appears under its name whole, durable and readable by its owner only; or not at all.

    Raises `BackupError` when there is one of that name.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    if path.exists():
        raise BackupError(f"{path} exists: a backup never overwrites. Name another file.")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename this fails if somebody was faster.
        os.link(unfinished, path)
    except OSError as error:
        raise BackupError(f"{error.filename or path}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        raise BackupError(f"{path} is damaged or no backup: {error}. Use another one.") from error
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror or error}") from error


def _pieces(text: Iterator[bytes | memoryview]) -> Iterator[bytes]:
    buffer = bytearray()
    for data in text:
        buffer += data
        if len(buffer) >= _PIECE_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


def _parsed(text: bytes) -> Manifest:
    values: dict[str, Any] = json.loads(text)
    if values.get("format") != FORMAT:
        raise BackupError(f"a backup of format {values.get('format')}; this release reads format {FORMAT}")
    return Manifest(**values | {"tables": [TableFacts(**table) for table in values["tables"]]})
