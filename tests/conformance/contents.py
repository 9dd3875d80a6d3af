"""What the conformance tests write, refuse and look for."""

from __future__ import annotations

import hashlib
import io
import uuid
from datetime import timedelta

from datamodel.errors import (
    ContentTooLargeError,
    InvalidChecksumError,
    LengthMismatchError,
    ShortBodyError,
)
from site_service.storage.contract import (
    ArtifactStore,
    ByteRange,
    ContentFacts,
    ContentSource,
    ExpectedContent,
    InvalidObject,
    StoredObject,
)
from tests.faults import GeneratedSource

MIB = 1024 * 1024
NOBODY = "0" * 32
FUTURE = timedelta(days=1)
CONTENT = b"the quick brown fox jumps over the lazy dog"
NAMES = {"md5": "md5", "sha-1": "sha1", "sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}


def facts(name: str = "a.fits") -> ContentFacts:
    return ContentFacts(uuid.uuid4(), f"cadc:TEST/{name}", "application/fits", "gzip")


def source(content: bytes) -> ContentSource:
    return io.BytesIO(content)


def digests(content: bytes, *algorithms: str) -> dict[str, str]:
    return {name: hashlib.new(NAMES[name], content).hexdigest() for name in algorithms or ("md5", "sha-256")}


def read(store: ArtifactStore, stored: StoredObject, byte_range: ByteRange | None = None) -> bytes:
    reader = store.open(stored.storage_id, expected_length=stored.length, byte_range=byte_range)
    try:
        return b"".join(iter(lambda: reader.read(1000), b""))
    finally:
        reader.close()


def listed(store: ArtifactStore, prefix: str = "") -> list[StoredObject | InvalidObject]:
    return list(store.iterate(prefix))


REFUSED = {
    "fewer bytes than declared": (CONTENT, ExpectedContent(length=len(CONTENT) + 1), ShortBodyError),
    "no bytes though declared": (b"", ExpectedContent(length=1), ShortBodyError),
    "more bytes than declared": (CONTENT, ExpectedContent(length=len(CONTENT) - 1), LengthMismatchError),
    "bytes though none declared": (CONTENT, ExpectedContent(length=0), LengthMismatchError),
    "over the limit": (CONTENT, ExpectedContent(max_length=len(CONTENT) - 1), ContentTooLargeError),
    "declared over the limit": (CONTENT, ExpectedContent(length=9, max_length=8), ContentTooLargeError),
    "unknown algorithm": (CONTENT, ExpectedContent(checksums={"crc32": "00"}), InvalidChecksumError),
}


def blocks(length: int) -> list[bytes]:
    generated = GeneratedSource(length)
    return list(iter(lambda: generated.read(MIB), b""))


UNKNOWN = [NOBODY, "../store", "", "x" * 400, "zz\x00"]
