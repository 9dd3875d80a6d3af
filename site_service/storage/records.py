"""The JSON kept beside the bytes: facts of an object and the state of a put transaction, the same in every store.

Each record carries a digest of itself, so that a damaged one is reported and never believed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Any

from datamodel.ids import new_id
from site_service.storage.contract import (
    ContentFacts,
    InvalidObject,
    ListedObject,
    PutTransactionStatus,
    StoredObject,
)

_STORAGE_ID = re.compile(r"[0-9a-f]{32}\Z")
_VERSION = 1
_SEAL_DIGITS = 32
# Behind the body: its seal, on a line.
_TAIL = _SEAL_DIGITS + 2
_BETWEEN = '":"'


class DamagedRecordError(ValueError):
    """A record that is not what was written; never leaves the stores."""


def new_storage_id(bucket: str = "") -> str:
    """In hex: never used twice, and evenly spread over the buckets unless one is given."""
    return bucket + new_id().hex[len(bucket) :]


def new_transaction_id() -> str:
    """128 random bits in hex, which no other caller with the right to write the uri guesses. Its object keeps it."""
    return secrets.token_hex(16)


def is_storage_id(text: str) -> bool:
    """Whether a store could have made this id; anything else is never turned into a path or key."""
    return _STORAGE_ID.match(text) is not None


def now() -> datetime:
    """UTC, truncated to milliseconds."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass(frozen=True, slots=True)
class Segment:
    """One append of a put transaction: where it ends, the checksums up to there, and its key if it has one of its own."""

    end: int
    checksums: dict[str, str]
    key: str = ""


@dataclass(frozen=True, slots=True)
class TransactionState:
    """What is recorded of a put transaction. `start` are the checksums of no bytes; `is_closed` once commit has begun."""

    facts: ContentFacts
    start: dict[str, str]
    segments: tuple[Segment, ...] = ()
    is_closed: bool = False

    @property
    def length(self) -> int:
        return self.segments[-1].end if self.segments else 0

    @property
    def checksums(self) -> dict[str, str]:
        return self.segments[-1].checksums if self.segments else self.start

    def status(self, transaction_id: str) -> PutTransactionStatus:
        return PutTransactionStatus(transaction_id, self.facts.uri, self.length, dict(self.checksums))


def encode_object(stored: StoredObject) -> bytes:
    """The record of a stored object (place excluded: that is its name)."""
    return _sealed(
        {
            "facts": _facts_to_json(stored.facts),
            "length": stored.length,
            "checksums": stored.checksums,
            "written_at": stored.written_at.isoformat(timespec="milliseconds"),
        }
    )


def decode_object(storage_id: str, bucket: str, record: bytes | None, length: int) -> StoredObject | InvalidObject:
    """Record and real length of the bytes → the object, or why it cannot be believed."""
    if record is None:
        return InvalidObject(storage_id, bucket, "its facts are missing")
    try:
        fields = _unsealed(record)
        stored = StoredObject(
            storage_id,
            bucket,
            fields["length"],
            fields["checksums"],
            _facts_from_json(fields["facts"]),
            datetime.fromisoformat(fields["written_at"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        return InvalidObject(storage_id, bucket, f"its facts cannot be read: {error}")
    if stored.length != length:
        return InvalidObject(storage_id, bucket, f"it has {length} bytes, its facts say {stored.length}")
    return stored


def judged(listed: ListedObject | InvalidObject) -> StoredObject | InvalidObject:
    """What a listing met, read: the object, or why it cannot be believed."""
    if isinstance(listed, InvalidObject):
        return listed
    return decode_object(listed.storage_id, listed.storage_bucket, listed.record, listed.length)


def says(
    record: bytes,
    checksum: str,
    length: int,
    artifact_id: str,
    uri: str,
    content_type: str | None,
    content_encoding: str | None,
) -> bool:
    """Whether the record is sound and says exactly this, byte for byte as `encode_object` writes it.

    `checksum` is `algorithm:hex`, one of the record's. What this denies may still be as good: `decode_object` reads it. For
    millions of records that are as they should be, of which nothing else is needed.
    """
    claim = (
        f',"facts":{{"artifact_id":"{artifact_id}","content_encoding":{_quoted(content_encoding)},"content_type":'
        f'{_quoted(content_type)},"uri":{encode_basestring_ascii(uri)}}},"length":{length},"version":{_VERSION},"written_at":"'
    )
    body, tail = record[:-_TAIL], record[-_TAIL:]
    checksums, _, rest = body.partition(claim.encode())
    return (
        f'"{checksum.replace(":", _BETWEEN, 1)}"'.encode() in checksums
        and tail == f"\n{hashlib.sha256(body).hexdigest()[:_SEAL_DIGITS]}\n".encode()
        and _is_moment(rest)
    )


def encode_transaction(state: TransactionState) -> bytes:
    """The record of a put transaction."""
    return _sealed(
        {
            "facts": _facts_to_json(state.facts),
            "start": state.start,
            "segments": [[segment.end, segment.checksums, segment.key] for segment in state.segments],
            "is_closed": state.is_closed,
        }
    )


def decode_transaction(record: bytes) -> TransactionState:
    """Raises `DamagedRecordError`."""
    try:
        fields = _unsealed(record)
        segments = tuple(Segment(end, checksums, key) for end, checksums, key in fields["segments"])
        return TransactionState(_facts_from_json(fields["facts"]), fields["start"], segments, fields["is_closed"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedRecordError(str(error)) from error


def _facts_to_json(facts: ContentFacts) -> dict[str, str | None]:
    return {
        "artifact_id": str(facts.artifact_id),
        "uri": facts.uri,
        "content_type": facts.content_type,
        "content_encoding": facts.content_encoding,
    }


def _facts_from_json(fields: dict[str, Any]) -> ContentFacts:
    return ContentFacts(
        uuid.UUID(fields["artifact_id"]), fields["uri"], fields["content_type"], fields["content_encoding"]
    )


def _sealed(fields: dict[str, Any]) -> bytes:
    body = json.dumps({"version": _VERSION, **fields}, sort_keys=True, separators=(",", ":"))
    return f"{body}\n{_seal(body)}\n".encode()


def _unsealed(record: bytes) -> dict[str, Any]:
    body, _, seal = record.decode("ascii").partition("\n")
    if not hmac.compare_digest(seal.rstrip("\n"), _seal(body)):
        raise DamagedRecordError("the record does not match its own digest")
    fields = json.loads(body)
    if not isinstance(fields, dict) or fields.get("version") != _VERSION:
        raise DamagedRecordError("the record has an unknown version")
    return fields


def _seal(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:_SEAL_DIGITS]


def _quoted(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def _is_moment(rest: bytes) -> bool:
    """Whether this is a time and the end of a record."""
    try:
        datetime.fromisoformat(rest[:-2].decode())
    except ValueError:
        return False
    return rest[-2:] == b'"}'
