"""Signed URLs: what is bound cannot be changed, keys rotate with overlap, the legacy grammar cannot be fooled."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, strategies as st
from pytest_django import Settings

from datamodel import keys, preauth, remotes, sealing
from datamodel.errors import NotConfiguredError, NotPermittedError
from datamodel.models import InventoryIdentity, PreauthKeyPair, RemoteInventory, TrustedKey
from datamodel.preauth import Methods, SigningKey, TransferClaims
from datamodel.uris import ArtifactUri

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SITE = uuid.UUID(int=7)
URI = ArtifactUri.parse("cadc:A/b.fits")
KEY = SigningKey.generate("k1")
CLAIMS = TransferClaims(Methods.READ, NOW + timedelta(hours=1), SITE, "alice", uuid.UUID(int=3), NOW)


def verify(
    token: str, uri: ArtifactUri = URI, *, now: datetime = NOW, site_id: uuid.UUID | None = SITE
) -> TransferClaims:
    return preauth.verify(token, uri, keys={"k1": KEY.public_bytes}, now=now, site_id=site_id)


def packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@given(st.sampled_from(Methods), st.none() | st.just(SITE), st.none() | st.text(max_size=30), st.booleans())
def test_what_was_signed_comes_back(methods: Methods, site: uuid.UUID | None, user: str | None, knows: bool) -> None:
    known = (uuid.UUID(int=9), NOW - timedelta(days=1)) if knows else (None, None)
    claims = TransferClaims(methods, NOW + timedelta(seconds=1), site, user, *known)
    token = KEY.sign(URI, claims)
    assert verify(token) == claims
    assert "/" not in token
    assert preauth.key_id_of(token) == "k1"


def test_no_character_of_a_token_can_be_changed() -> None:
    token = KEY.sign(URI, CLAIMS)
    refused = 0
    for index, character in enumerate(token):
        changed = token[:index] + ("A" if character != "A" else "B") + token[index + 1 :]
        # The last character of unpadded base64 has bits that mean nothing; decoding them away is not tampering.
        if index == len(token) - 1:
            continue
        with pytest.raises(NotPermittedError):
            verify(changed)
        refused += 1
    assert refused == len(token) - 1


WIDER: list[dict[str, object]] = [
    {"m": "d"},
    {"e": 99999999999},
    {"s": None},
    {"u": "root"},
    {"i": str(uuid.UUID(int=4))},
]


@pytest.mark.parametrize("change", WIDER, ids=[next(iter(change)) for change in WIDER])
def test_claims_cannot_be_exchanged(change: dict[str, object]) -> None:
    version, key_id, claims, signature = KEY.sign(URI, CLAIMS).split(".")
    payload = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert payload != payload | change
    forged = packed(json.dumps(payload | change).encode())
    with pytest.raises(NotPermittedError):
        verify(f"{version}.{key_id}.{forged}.{signature}")


OTHERS = [("cadc:A/b.fitsx", "another uri"), ("cadc:A/b", "a shorter uri"), ("cadc:a/b.fits", "another case")]


@pytest.mark.parametrize(("uri", "why"), OTHERS)
def test_a_token_is_of_one_uri(uri: str, why: str) -> None:
    with pytest.raises(NotPermittedError, match="does not fit"):
        verify(KEY.sign(URI, CLAIMS), ArtifactUri.parse(uri))


def test_a_token_is_of_one_site_unless_it_names_none() -> None:
    for site_id in (uuid.UUID(int=8), None):
        with pytest.raises(NotPermittedError, match="another site"):
            verify(KEY.sign(URI, CLAIMS), site_id=site_id)
    anywhere = replace(CLAIMS, site_id=None)
    assert verify(KEY.sign(URI, anywhere), site_id=uuid.UUID(int=8)) == anywhere


def test_a_token_ends_at_its_expiry() -> None:
    token = KEY.sign(URI, CLAIMS)
    assert verify(token, now=CLAIMS.expires_at - timedelta(seconds=1)) == CLAIMS
    with pytest.raises(NotPermittedError, match="expired"):
        verify(token, now=CLAIMS.expires_at)


def test_a_key_that_is_not_trusted_signs_nothing() -> None:
    for key in (SigningKey.generate("k2"), SigningKey.generate("k1")):
        with pytest.raises(NotPermittedError):
            verify(key.sign(URI, CLAIMS))


@given(st.text(max_size=60) | st.builds(".".join, st.lists(st.text("1k.Aa-_=", max_size=8), min_size=3, max_size=5)))
def test_nonsense_is_refused_and_never_breaks(token: str) -> None:
    with pytest.raises(NotPermittedError):
        verify(token)


@pytest.mark.parametrize(
    "payload", [b"[]", b"null", b"{}", b'{"e":"x","m":"r","s":null,"u":null}', b"\xff", b'{"e":1e400}']
)
def test_a_signed_payload_of_another_form_is_refused_all_the_same(payload: bytes) -> None:
    head = f"1.k1.{packed(payload)}"
    signature = packed(KEY.private.sign(f"storage-inventory transfer\n{head}\n{URI.value}".encode()))
    with pytest.raises(NotPermittedError):
        verify(f"{head}.{signature}")


METHODS = [
    (Methods.READ, {"GET", "HEAD"}, {"PUT", "POST", "DELETE"}),
    (Methods.WRITE, {"GET", "HEAD", "PUT", "POST"}, {"DELETE"}),
    (Methods.WRITE_AND_DELETE, {"GET", "HEAD", "PUT", "POST", "DELETE"}, {"PATCH"}),
]


@pytest.mark.parametrize(("methods", "allowed", "refused"), METHODS)
def test_methods_allow_what_they_say(methods: Methods, allowed: set[str], refused: set[str]) -> None:
    assert allowed <= methods.http
    assert not refused & methods.http


# --- rotation


@pytest.fixture
def remote(inventory: InventoryIdentity) -> RemoteInventory:
    return remotes.save_remote(name="g", role="global", url="https://g.example", token="")


def test_rotation_overlaps_the_new_key_is_known_before_it_signs_and_the_old_verifies_after(
    remote: RemoteInventory,
) -> None:
    overlap = timedelta(hours=1)
    first = keys.create_key_pair(now=NOW, active_from=NOW)
    assert keys.signing_key(now=NOW).key_id == first
    second = keys.rotate_key_pairs(now=NOW, overlap=overlap)
    assert keys.signing_key(now=NOW + overlap - timedelta(seconds=1)).key_id == first
    assert set(keys.published_keys(now=NOW)) == {first, second}
    assert keys.signing_key(now=NOW + overlap).key_id == second
    assert first in keys.published_keys(now=NOW + 2 * overlap - timedelta(seconds=1))
    assert set(keys.published_keys(now=NOW + 2 * overlap)) == {second}
    third = keys.rotate_key_pairs(now=NOW + timedelta(days=1), overlap=overlap)
    assert set(keys.published_keys(now=NOW + timedelta(days=1))) == {second, third}
    assert PreauthKeyPair.objects.get(name=first).private_key == b"", "what is expired signs nothing any more"


def test_the_published_key_verifies_what_the_stored_one_signs(remote: RemoteInventory) -> None:
    key_id = keys.create_key_pair(now=NOW, active_from=NOW)
    token = keys.signing_key(now=NOW).sign(URI, CLAIMS)
    published = keys.published_keys(now=NOW)
    assert preauth.verify(token, URI, keys=published, now=NOW, site_id=SITE) == CLAIMS
    assert bytes(PreauthKeyPair.objects.get().private_key).find(keys.signing_key(now=NOW).private_bytes) == -1
    assert list(published) == [key_id]


def test_before_provisioning_there_is_no_key(inventory: InventoryIdentity) -> None:
    with pytest.raises(NotConfiguredError, match="provision"):
        keys.signing_key(now=NOW)


def test_a_remote_is_trusted_for_what_it_publishes_now_and_while_it_is_enabled(remote: RemoteInventory) -> None:
    keys.replace_trusted_keys(remote=remote, keys={"a": b"1" * 32, "b": b"2" * 32}, now=NOW)
    keys.replace_trusted_keys(remote=remote, keys={"b": b"3" * 32, "c": b"4" * 32}, now=NOW)
    assert keys.load_trust().url_keys == {"b": b"3" * 32, "c": b"4" * 32}
    assert TrustedKey.objects.count() == 2
    remotes.save_remote(name="g", role="global", url="https://g.example", token=None, enabled=False)
    assert keys.load_trust().url_keys == {}


def test_a_secret_sealed_under_another_key_says_what_to_do(settings: Settings) -> None:
    sealed = sealing.seal(b"secret")
    settings.SECRET_KEY, old = "another", settings.SECRET_KEY
    with pytest.raises(NotConfiguredError, match="INVENTORY_SECRET_KEY_FALLBACKS"):
        sealing.unseal(sealed)
    settings.SECRET_KEY_FALLBACKS = [old]
    assert sealing.unseal(sealed) == b"secret"


# --- the legacy grammar (reference, section 3)


@cache
def legacy_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def der(key: rsa.RSAPrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def legacy_pack(raw: bytes) -> str:
    return base64.b64encode(raw).decode().replace("/", "-").replace("+", "_")


def legacy_token(meta: str, key: rsa.RSAPrivateKey | None = None) -> str:
    signature = (key or legacy_key()).sign(meta.encode(), padding.PKCS1v15(), hashes.SHA1())
    return f"{legacy_pack(meta.encode())}~{legacy_pack(signature)}"


def verify_legacy(token: str, uri: ArtifactUri = URI) -> TransferClaims:
    return preauth.verify_legacy(token, uri, public_keys=[der(legacy_key())], now=NOW)


@pytest.mark.parametrize(("grant", "methods"), [("ReadGrant", Methods.READ), ("WriteGrant", Methods.WRITE_AND_DELETE)])
def test_a_legacy_token_is_understood(grant: str, methods: Methods) -> None:
    token = legacy_token(f"uri={URI}&gnt={grant}&sub=alice")
    assert preauth.is_legacy(token)
    assert verify_legacy(token) == TransferClaims(methods, NOW, None, "alice")
    assert not preauth.is_legacy(KEY.sign(URI, CLAIMS))


def legacy_attacks() -> Iterator[tuple[str, str]]:
    good = f"uri={URI}&gnt=ReadGrant"
    yield "another uri", legacy_token("uri=cadc:OTHER&gnt=ReadGrant")
    yield "a user that names another uri", legacy_token(f"uri=cadc:OTHER&gnt=ReadGrant&sub=x&uri={URI}")
    yield "a grant given twice", legacy_token(f"{good}&gnt=WriteGrant")
    yield "an unknown grant", legacy_token(f"uri={URI}&gnt=RootGrant")
    yield "no grant", legacy_token(f"uri={URI}")
    yield "a foreign key", legacy_token(good, rsa.generate_private_key(65537, 2048))
    meta, signature = legacy_token(good).split("~")
    yield "a changed grant", f"{legacy_pack(good.replace('Read', 'Write').encode())}~{signature}"
    yield "a cut signature", f"{meta}~{signature[:-8]}"
    yield "no signature", f"{meta}~"
    yield "not base64", f"{meta}~***"
    yield "three parts", f"{meta}~{signature}~{signature}"
    yield "not text", f"{legacy_pack(b'uri=' + bytes([0xFF]))}~{signature}"


def test_a_legacy_token_cannot_be_fooled() -> None:
    refused = 0
    for name, token in legacy_attacks():
        with pytest.raises(NotPermittedError):
            verify_legacy(token)
            pytest.fail(name)
        refused += 1
    assert refused == 12


def test_a_key_of_another_kind_does_not_break_the_verification() -> None:
    ed25519 = KEY.private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    token = legacy_token(f"uri={URI}&gnt=ReadGrant")
    claims = preauth.verify_legacy(token, URI, public_keys=[ed25519, der(legacy_key())], now=NOW)
    assert claims.methods is Methods.READ
