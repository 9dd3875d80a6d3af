"""A PUT that asks for it is answered with a receipt that anybody can verify by the keys which the site publishes."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.test import Client

from datamodel import key_statements, keys
from datamodel.models import Artifact, InventoryIdentity, PreauthKeyPair, StorageLocation
from tests.site_service.files.requests import DATA, PATH, put

WANTED = {"Want-Receipt": "?1"}


@pytest.fixture(autouse=True)
def _key(client: Client) -> None:
    """As `manage.py provision` makes it."""
    assert client
    now = datetime.now(UTC)
    keys.create_key_pair(now=now, active_from=now)


def unpacked(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def verified(receipt: str, key_set: Any) -> dict[str, Any]:
    """The claims. Raises `InvalidSignature`."""
    head, payload, signature = receipt.split(".")
    header = json.loads(unpacked(head))
    assert (header["alg"], header["typ"]) == ("EdDSA", "storage-inventory-receipt+jwt")
    (key,) = [key for key in key_set["keys"] if key["kid"] == header["kid"]]
    Ed25519PublicKey.from_public_bytes(unpacked(key["x"])).verify(unpacked(signature), f"{head}.{payload}".encode())
    claims: dict[str, Any] = json.loads(unpacked(payload))
    return claims


def test_a_receipt_says_what_is_stored_and_its_signature_holds(client: Client) -> None:
    answer = put(client, headers=WANTED)
    assert (answer.status_code, answer["Content-Type"]) == (201, "application/jose")
    assert int(answer["Content-Length"]) == len(answer.content)
    claims = verified(answer.content.decode(), client.get("/pubkey").json())
    artifact = Artifact.objects.get()
    assert claims["uri"] == artifact.uri
    assert claims["id"] == str(artifact.id) == answer["x-artifact-id"]
    assert claims["contentLength"] == len(DATA)
    assert claims["digests"] == {"md5": hashlib.md5(DATA).hexdigest(), "sha-256": hashlib.sha256(DATA).hexdigest()}
    assert claims["siteId"] == str(InventoryIdentity.objects.get().inventory_id)
    assert datetime.fromisoformat(claims["storedAt"]) == StorageLocation.objects.get().stored_at


def test_a_receipt_that_was_changed_is_not_verified(client: Client) -> None:
    head, payload, signature = put(client, headers=WANTED).content.decode().split(".")
    forged = base64.urlsafe_b64encode(unpacked(payload).replace(b"file.txt", b"fake.txt")).decode().rstrip("=")
    with pytest.raises(InvalidSignature):
        verified(f"{head}.{forged}.{signature}", client.get("/pubkey").json())


def test_a_repeated_put_gets_a_receipt_of_the_same_artifact_and_of_the_bytes_just_stored(client: Client) -> None:
    key_set = client.get("/pubkey").json()
    first, second = (verified(put(client, headers=WANTED).content.decode(), key_set) for _ in range(2))
    assert first["id"] == second["id"]
    assert first["storedAt"] < second["storedAt"]


def test_a_receipt_is_verified_also_when_its_key_was_replaced_long_ago(client: Client) -> None:
    receipt = put(client, headers=WANTED).content.decode()
    kid = json.loads(unpacked(receipt.split(".")[0]))["kid"]
    overlap = timedelta(days=1)
    for days in (90, 60, 30):
        keys.rotate_key_pairs(now=datetime.now(UTC) - timedelta(days=days), overlap=overlap)
    assert kid not in {key["kid"] for key in client.get("/pubkey").json()["keys"]}
    every = client.get("/pubkey?keys=all")
    assert verified(receipt, every.json())["uri"] == Artifact.objects.get().uri
    assert key_statements.HEADER not in every, "nobody shall trust what has expired"
    assert client.get("/pubkey?keys=old").status_code == 400


@pytest.mark.parametrize("headers", [{}, {"Want-Receipt": "?0"}])
def test_nobody_else_gets_one(client: Client, headers: dict[str, str]) -> None:
    assert put(client, headers=headers).content == b""


def test_a_wrong_wish_is_refused_before_anything_is_stored(client: Client) -> None:
    answer = put(client, headers={"Want-Receipt": "please"})
    assert answer.status_code == 400
    assert "Want-Receipt must be ?1" in answer.json()["detail"]
    assert not Artifact.objects.exists()


def test_a_site_without_key_promises_no_receipt_in_vain(client: Client) -> None:
    PreauthKeyPair.objects.all().delete()
    keys.signing_key_cache.clear()
    assert put(client, headers=WANTED).status_code == 503
    assert not Artifact.objects.exists()
    assert put(client).status_code == 201


def test_the_commit_of_a_put_transaction_is_receipted_too(client: Client) -> None:
    begun = put(client, headers={"x-put-txn-op": "start"})
    transaction = begun["x-put-txn-id"]
    answer = put(client, b"", headers={"x-put-txn-id": transaction, "x-put-txn-op": "commit", **WANTED})
    claims = verified(answer.content.decode(), client.get("/pubkey").json())
    assert (claims["uri"], claims["contentLength"]) == (PATH.removeprefix("/files/"), len(DATA))
