"""Checksum values and the headers that carry them."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, strategies as st

from datamodel.checksums import (
    DIGEST_BYTES,
    Checksum,
    parse_content_md5,
    parse_digest_header,
    parse_structured_digests,
    structured_digest,
)
from datamodel.errors import InvalidChecksumError

MD5 = hashlib.md5(b"x")
SHA = hashlib.sha256(b"x")
MD5_BASE64 = base64.b64encode(MD5.digest()).decode()
SHA_BASE64 = base64.b64encode(SHA.digest()).decode()
CHECKSUMS = st.sampled_from(sorted(DIGEST_BYTES)).flatmap(
    lambda name: st.binary(min_size=DIGEST_BYTES[name], max_size=DIGEST_BYTES[name]).map(
        lambda raw: Checksum.from_bytes(name, raw)
    )
)


@given(CHECKSUMS)
def test_every_checksum_survives_text_bytes_and_both_headers(checksum: Checksum) -> None:
    assert Checksum.parse(str(checksum)) == checksum
    assert Checksum.from_bytes(checksum.algorithm, checksum.raw) == checksum
    assert parse_digest_header(f"{checksum.algorithm}={checksum.base64}") == checksum
    assert parse_structured_digests(structured_digest([checksum])) == [checksum]
    assert checksum.matches(Checksum.parse(str(checksum)))


BAD = ["", "md5", "md5:", f"md5:{MD5.hexdigest()[:-2]}", f"md5:{MD5.hexdigest().upper()}", f"md5: {MD5.hexdigest()}"]
BAD += [f"sha256:{SHA.hexdigest()}", f"sha-256:{MD5.hexdigest()}", "md5:" + "zz" * 16, f"crc32:{MD5.hexdigest()}"]


@pytest.mark.parametrize("text", BAD)
def test_a_malformed_checksum_is_refused(text: str) -> None:
    with pytest.raises(InvalidChecksumError, match="invalid checksum"):
        Checksum.parse(text)


DIGESTS = [
    (f"md5={MD5_BASE64}", f"md5:{MD5.hexdigest()}"),
    (f"MD5={MD5_BASE64}", f"md5:{MD5.hexdigest()}"),
    (f" md5={MD5_BASE64} ", f"md5:{MD5.hexdigest()}"),
    (f"SHA-256={SHA_BASE64}", f"sha-256:{SHA.hexdigest()}"),
    (f"sha256={SHA_BASE64}", f"sha-256:{SHA.hexdigest()}"),
    # The legacy form: base64 of the hex text.
    ("md5=" + base64.b64encode(MD5.hexdigest().encode()).decode(), f"md5:{MD5.hexdigest()}"),
]


@pytest.mark.parametrize(("header", "expected"), DIGESTS)
def test_the_digest_header_is_understood(header: str, expected: str) -> None:
    assert str(parse_digest_header(header)) == expected


BAD_DIGESTS = [
    "",
    "md5",
    "md5=",
    "md5=!!",
    f"md5={SHA_BASE64}",
    f"md5={MD5_BASE64},sha-256={SHA_BASE64}",
    "unixsum=AA==",
]


@pytest.mark.parametrize("header", BAD_DIGESTS)
def test_a_malformed_digest_header_is_refused(header: str) -> None:
    with pytest.raises(InvalidChecksumError):
        parse_digest_header(header)


def test_content_md5_is_base64_of_the_digest() -> None:
    assert parse_content_md5(f" {MD5_BASE64} ").hex == MD5.hexdigest()
    for header in ("", "!!", SHA_BASE64, MD5.hexdigest()):
        with pytest.raises(InvalidChecksumError):
            parse_content_md5(header)


def test_a_structured_header_may_hold_several_and_unknown_ones_are_left_out() -> None:
    header = f"sha-256=:{SHA_BASE64}:, blake3=:AAAA:,md5=:{MD5_BASE64}:;q=1, sha=:{'A' * 27}=:"
    assert [c.algorithm for c in parse_structured_digests(header)] == ["sha-256", "md5", "sha-1"]


@pytest.mark.parametrize(
    "header", ["", "sha-256", "sha-256=AAAA", f"sha-256=:{MD5_BASE64}:", "sha-256=:!:", "sha-256=:AA:,"]
)
def test_a_malformed_structured_header_is_refused(header: str) -> None:
    with pytest.raises(InvalidChecksumError):
        parse_structured_digests(header)


def test_different_algorithms_never_match() -> None:
    assert not Checksum("md5", "00" * 16).matches(Checksum("sha-1", "00" * 16))
    assert not Checksum("md5", "00" * 16).matches(Checksum("md5", "01" * 16))


def test_sha1_is_written_under_its_registered_name() -> None:
    assert structured_digest([Checksum.from_bytes("sha-1", bytes(20))]).startswith("sha=:")
