"""The record beside the bytes: what is compared without being read is what would be read."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from site_service.storage.contract import ContentFacts, InvalidObject, StoredObject
from site_service.storage.records import decode_object, encode_object, says

DIGITS = {"md5": "1" * 32, "sha-256": "2" * 64}
STORED = StoredObject(
    "a" * 32, "aaa", 7, DIGITS, ContentFacts(uuid.UUID(int=7), "cadc:TEST/f"), datetime(2026, 11, 1, tzinfo=UTC)
)
TEXT = st.text(max_size=20)
OPTIONAL = st.none() | TEXT


def agrees(record: bytes, other: StoredObject, algorithm: str = "md5") -> bool:
    facts = other.facts
    return says(
        record,
        f"{algorithm}:{other.checksums[algorithm]}",
        other.length,
        str(facts.artifact_id),
        facts.uri,
        facts.content_type,
        facts.content_encoding,
    )


def made(uri: str, content_type: str | None, content_encoding: str | None, length: int = 7) -> StoredObject:
    facts = ContentFacts(STORED.facts.artifact_id, uri, content_type, content_encoding)
    return replace(STORED, facts=facts, length=length)


@given(TEXT, OPTIONAL, OPTIONAL, st.integers(0, 1 << 60))
def test_a_record_says_what_was_written(
    uri: str, content_type: str | None, content_encoding: str | None, length: int
) -> None:
    stored = made(uri, content_type, content_encoding, length)
    assert agrees(encode_object(stored), stored)
    assert agrees(encode_object(stored), stored, "sha-256")


@given(TEXT, OPTIONAL, OPTIONAL, TEXT, OPTIONAL, OPTIONAL)
def test_a_record_says_nothing_else(
    uri: str, kind: str | None, encoding: str | None, uri_2: str, kind_2: str | None, encoding_2: str | None
) -> None:
    one, other = made(uri, kind, encoding), made(uri_2, kind_2, encoding_2)
    assert agrees(encode_object(one), other) == (one == other)


def sealed_again(record: bytes, old: bytes, new: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A record of a store that writes something else, sealed by it."""
    monkeypatch.setattr(
        "site_service.storage.records.json.dumps",
        lambda *_, **__: record.partition(b"\n")[0].replace(old, new).decode(),
    )
    changed = encode_object(STORED)
    monkeypatch.undo()
    return changed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"2026-11-01T", b"yesterday"),
        (b'00:00"}', b'00:00","more":1}'),
        (b'"version":1', b'"version":2'),
        (b'"md5"', b'"md4"'),
    ],
)
def test_a_sound_seal_of_something_else_is_not_enough(old: bytes, new: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    record = encode_object(STORED)
    assert sealed_again(record, b"", b"", monkeypatch) == record
    changed = sealed_again(record, old, new, monkeypatch)
    assert changed != record
    assert not agrees(changed, STORED)


def test_any_flipped_bit_is_noticed_by_both_ways_of_reading() -> None:
    record = encode_object(STORED)
    for offset in range(len(record) - 1):
        damaged = bytearray(record)
        damaged[offset] ^= 1
        assert not agrees(bytes(damaged), STORED), offset
        assert isinstance(decode_object("a" * 32, "aaa", bytes(damaged), 7), InvalidObject), offset
