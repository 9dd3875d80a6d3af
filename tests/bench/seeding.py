"""Many artifacts at a site without a PUT each: rows as PUT makes them, and objects as its store writes them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from datamodel.ids import new_id
from datamodel.uris import ArtifactUri
from site_service.storage.contract import ContentFacts, StoredObject
from site_service.storage.records import encode_object, new_storage_id, now


def seed_rows(database_url: str, prefix: str, count: int) -> Callable[[], None]:
    """Without bytes, which nobody needs to harvest or to list them. Nobody sees them until what is returned is called."""
    lines = (
        f"{new_id()}\t{uri.value}\t{uri.bucket}\tmd5:{number:032x}\t\\N\t4096\t{new_storage_id()}\n"
        for number, uri in _uris(prefix, count)
    )
    return _insert(database_url, lines)


def seed_objects(database_url: str, objects: Path, prefix: str, *, count: int, length: int) -> Callable[[], None]:
    """With bytes, not synced: a million syncs would take hours, and nobody pulls the plug. Then as `seed_rows`."""
    for digits in range(16**3):
        (objects / f"{digits:03x}").mkdir(mode=0o750, exist_ok=True)
    return _insert(database_url, (_object(objects, uri, number, length) for number, uri in _uris(prefix, count)))


def _uris(prefix: str, count: int) -> Iterator[tuple[int, ArtifactUri]]:
    return ((number, ArtifactUri.parse(f"{prefix}{number}")) for number in range(count))


def _object(objects: Path, uri: ArtifactUri, number: int, length: int) -> str:
    content = f"{number:016}".encode().ljust(length, b".")
    checksums = {
        "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "sha-256": hashlib.sha256(content).hexdigest(),
    }
    storage_id, identity = new_storage_id(), new_id()
    facts = ContentFacts(identity, uri.value)
    stored = StoredObject(storage_id, storage_id[:3], length, checksums, facts, now())
    place = f"{objects}/{storage_id[:3]}/{storage_id}"
    _write(f"{place}.json", encode_object(stored))
    _write(place, content)
    return f"{identity}\t{uri.value}\t{uri.bucket}\tmd5:{checksums['md5']}\t\\\\x{checksums['sha-256']}\t{length}\t{storage_id}\n"


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def _insert(database_url: str, lines: Iterator[str]) -> Callable[[], None]:
    """All in one transaction, which what is returned commits; then the bell that PUT rings."""
    connection = psycopg.connect(database_url)
    connection.execute(
        "CREATE TEMPORARY TABLE seed (id uuid, uri text, bucket text, checksum text, sha256 bytea, length bigint, "
        "storage_id text) ON COMMIT DROP"
    )
    with connection.cursor().copy("COPY seed FROM STDIN") as copy:
        for line in lines:
            copy.write(line)
    connection.execute(_ARTIFACTS)
    connection.execute(
        "INSERT INTO storage_location SELECT id, storage_id, left(storage_id, 3), inventory_now() FROM seed"
    )
    connection.execute("ANALYZE artifact, storage_location")
    # A million foreign keys are checked now, and not while somebody waits for the rows.
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def commit() -> None:
        with connection:
            connection.commit()
            connection.execute("NOTIFY inventory_news")

    return commit


_ARTIFACTS = """
    INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified,
        meta_checksum, content_sha256, meta_modified_at, txid)
    SELECT id, uri, bucket, checksum, at, length, at,
        artifact_meta_checksum(id, uri, bucket, checksum, at, length, NULL, NULL), sha256, at, 0
    FROM (SELECT seed.*, inventory_now() AS at FROM seed) made
"""
