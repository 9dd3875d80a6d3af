"""Put, get, update, head, delete: what scientists and OpenCADC's own black-box tests expect (reference 9.1)."""

from __future__ import annotations

import base64
import hashlib
import io
from contextlib import closing
from pathlib import Path
from uuid import RFC_4122, UUID

import pytest
from django.test import Client
from pytest_django import Settings

from datamodel import queries
from datamodel.models import (
    Artifact,
    DeletedArtifactEvent,
    InventoryIdentity,
    ObsoleteStorageLocation,
    RetiredArtifact,
    StorageLocation,
)
from site_service.storage.contract import ArtifactStore, StoredObject
from tests.factories import artifact_row, insert_artifact_row
from tests.faults import flip_bit
from tests.site_service.files.requests import DATA, PATH, body_of, md5_header, put, sha256_header


def test_put_get_update_head_delete(client: Client) -> None:
    created = put(client, headers={"content_encoding": "us-ascii"})
    assert created.status_code == 201
    assert created.content == b""
    assert created["Content-Length"] == "0"
    assert created["Digest"] == md5_header(DATA)
    assert created["Repr-Digest"] == sha256_header(DATA)
    assert created["x-inventory-position"].startswith(str(InventoryIdentity.objects.get().inventory_id))

    got = client.get(PATH)
    assert got.status_code == 200
    assert body_of(got) == DATA
    assert got["Digest"] == md5_header(DATA)
    assert got["Content-Length"] == str(len(DATA))
    assert got["Content-Type"] == "text/plain"
    assert got["Content-Encoding"] == "us-ascii"
    assert "file.txt" in got["Content-Disposition"]
    assert got["x-artifact-id"] == created["x-artifact-id"]
    assert got["ETag"] == created["ETag"] == f'"md5:{hashlib.md5(DATA).hexdigest()}"'
    assert got["Last-Modified"].endswith("GMT")

    updated = client.post(PATH, {"contentType": "text/csv", "contentEncoding": "gzip"})
    assert updated.status_code == 202
    assert (updated["Content-Type"], updated["Content-Encoding"]) == ("text/csv", "gzip")
    assert client.post(PATH, {"contentType": "nonsense"}).status_code == 400
    assert client.post(PATH, {"contentType": ""}).status_code == 400

    head = client.head(PATH)
    assert head.status_code == 200
    assert (head["Content-Type"], head["Content-Encoding"]) == ("text/csv", "gzip")
    assert (head["Digest"], head["Content-Length"]) == (md5_header(DATA), str(len(DATA)))

    deleted = client.delete(PATH)
    assert deleted.status_code == 204
    assert deleted["x-inventory-position"]
    assert client.get(PATH).status_code == client.head(PATH).status_code == 404
    assert client.delete(PATH).status_code == 404


def test_updated_metadata_reaches_the_facts_kept_with_the_bytes(client: Client, store: ArtifactStore) -> None:
    put(client)
    client.post(f"{PATH}?contentType=text/csv")
    (stored,) = store.iterate()
    assert stored.facts.content_type == "text/csv"  # type: ignore[union-attr]  # it is whole


@pytest.mark.parametrize(
    "content_type", ["None", "text", "text/", "/plain", "text/plain;x", "a/" + "b" * 130, "text/pl ain"]
)
def test_malformed_content_type_is_refused_and_nothing_stored(client: Client, content_type: str) -> None:
    assert put(client, content_type=content_type).status_code == 400
    assert client.head(PATH).status_code == 404


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", 'a/b;x="y;z"', "application/vnd.x+json"])
def test_wellformed_content_type_is_kept_word_for_word(client: Client, content_type: str) -> None:
    assert put(client, content_type=content_type).status_code == 201
    assert client.head(PATH)["Content-Type"] == content_type


@pytest.mark.parametrize(
    "header",
    [
        {"digest": md5_header(b"other")},
        {"content_md5": md5_header(b"other")[4:]},
        {"repr_digest": sha256_header(b"other")},
        {"content_digest": sha256_header(b"other")},
        {"digest": "sha-512=" + base64.b64encode(hashlib.sha512(b"other").digest()).decode()},
        {"digest": md5_header(DATA), "repr_digest": sha256_header(b"other")},
    ],
)
def test_wrong_digest_of_any_kind_stores_nothing(client: Client, store: ArtifactStore, header: dict[str, str]) -> None:
    assert put(client, headers=header).status_code == 412
    assert client.head(PATH).status_code == 404
    assert list(store.iterate()) == []


@pytest.mark.parametrize(
    "header",
    [
        {"digest": md5_header(DATA)},
        {"digest": "md5=" + base64.b64encode(hashlib.md5(DATA).hexdigest().encode()).decode()},
        {"digest": "sha=" + base64.b64encode(hashlib.sha1(DATA).digest()).decode()},
        {"content_md5": md5_header(DATA)[4:]},
        {"repr_digest": f"{sha256_header(DATA)}, unixsum=:AAAA:"},
        {"content_digest": sha256_header(DATA)},
    ],
)
def test_right_digest_of_any_kind_is_accepted(client: Client, header: dict[str, str]) -> None:
    assert put(client, headers=header).status_code == 201


@pytest.mark.parametrize(
    "header",
    [
        {"digest": "md5"},
        {"digest": "md5=AAAA"},
        {"digest": "crc=AAAA"},
        {"digest": f"{md5_header(DATA)},{md5_header(DATA)}"},
        {"digest": md5_header(DATA), "content_md5": md5_header(b"other")[4:]},
        {"repr_digest": "sha-256=AAAA"},
        {"content_encoding": "x" * 129},
        {"content_range": "bytes 0-26/100"},
        {"if_match": "unquoted"},
        {"x_put_txn_op": "finish"},
        {"x_total_length": "many", "x_put_txn_op": "start"},
    ],
)
def test_malformed_or_contradicting_headers_are_refused(client: Client, header: dict[str, str]) -> None:
    assert put(client, headers=header).status_code == 400
    assert client.head(PATH).status_code == 404


def test_put_without_length_is_refused_with_the_reason(client: Client) -> None:
    answer = client.generic("PUT", PATH)
    assert answer.status_code == 400
    assert "Content-Length" in answer.json()["detail"]


def test_body_shorter_than_declared_stores_nothing(client: Client, store: ArtifactStore) -> None:
    extra = {"wsgi.input": io.BytesIO(DATA), "CONTENT_LENGTH": str(len(DATA) + 5)}
    answer = client.generic("PUT", PATH, **extra)  # type: ignore[arg-type]  # the environment takes objects
    assert answer.status_code == 400
    assert answer.json()["code"] == "short_body"
    assert list(store.iterate()) == []


def test_empty_file_is_stored_when_the_request_says_so(client: Client) -> None:
    assert put(client, b"").status_code == 201
    got = client.get(PATH)
    assert (got.status_code, body_of(got), got["Content-Length"]) == (200, b"", "0")


def test_empty_file_is_refused_where_the_site_takes_none(
    client: Client, settings: Settings, store: ArtifactStore
) -> None:
    settings.INVENTORY_REFUSE_EMPTY = True
    assert put(client, b"").status_code == 400
    assert put(client).status_code == 201
    assert len(list(store.iterate())) == 1


def test_identical_content_put_again_keeps_the_artifact(client: Client) -> None:
    first = put(client)
    second = put(client, headers={"digest": md5_header(DATA)})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first["x-artifact-id"] == second["x-artifact-id"]
    assert not DeletedArtifactEvent.objects.exists()
    assert ObsoleteStorageLocation.objects.count() == 1


def test_identical_content_put_again_takes_the_place_of_bytes_that_have_rotted(
    client: Client, store: ArtifactStore, tmp_path: Path
) -> None:
    first = put(client)
    rotten = StorageLocation.objects.get()
    flip_bit(tmp_path / "storage" / "objects" / rotten.storage_bucket / rotten.storage_id, 3)
    assert body_of(client.get(PATH)) != DATA
    assert put(client)["x-artifact-id"] == first["x-artifact-id"]
    assert body_of(client.get(PATH)) == DATA
    assert ObsoleteStorageLocation.objects.get().storage_id == rotten.storage_id
    assert {one.storage_id for one in store.iterate()} == {rotten.storage_id, StorageLocation.objects.get().storage_id}


def test_the_store_knows_the_kept_id_of_identical_content_put_again(client: Client, store: ArtifactStore) -> None:
    put(client)
    kept = put(client)["x-artifact-id"]
    stored = store.stat(StorageLocation.objects.get().storage_id)
    assert isinstance(stored, StoredObject)
    assert str(stored.facts.artifact_id) == kept


def test_the_store_knows_the_kept_id_of_identical_content_put_where_it_was_missing(
    client: Client, store: ArtifactStore
) -> None:
    row = artifact_row(uri="cadc:TEST/file.txt", data=DATA)
    insert_artifact_row(row)
    assert put(client)["x-artifact-id"] == str(row.id)
    stored = store.stat(StorageLocation.objects.get().storage_id)
    assert isinstance(stored, StoredObject)
    assert stored.facts.artifact_id == row.id


def test_new_content_and_its_object_have_ids_that_keep_indexes_together(client: Client, store: ArtifactStore) -> None:
    put(client)
    (stored,) = store.iterate()
    assert isinstance(stored, StoredObject)
    assert stored.facts.artifact_id == Artifact.objects.get().id
    for identity in (stored.facts.artifact_id, UUID(stored.storage_id)):
        assert (identity.hex[12], identity.variant) == ("8", RFC_4122)
    assert stored.storage_bucket == stored.storage_id[:3]


def test_other_content_replaces_with_a_new_id_and_keeps_the_old_bytes(client: Client, store: ArtifactStore) -> None:
    first = put(client)
    second = put(client, b"replaced")
    assert second.status_code == 201
    assert first["x-artifact-id"] != second["x-artifact-id"]
    got = client.get(PATH)
    assert (body_of(got), got["Digest"]) == (b"replaced", md5_header(b"replaced"))
    assert str(DeletedArtifactEvent.objects.get().id) == first["x-artifact-id"]
    retired = RetiredArtifact.objects.get()
    with closing(store.open(retired.storage_id, expected_length=len(DATA))) as kept:
        assert kept.read() == DATA


def test_put_over_a_known_but_unstored_artifact_stores_it_with_a_later_time(client: Client) -> None:
    row = artifact_row(uri="cadc:TEST/file.txt", data=b"elsewhere")
    insert_artifact_row(row)
    assert client.get(PATH).status_code == 404
    assert put(client).status_code == 201
    known = queries.artifact_by_uri("cadc:TEST/file.txt")
    assert known is not None
    assert known.location is not None
    assert known.artifact.content_last_modified > row.content_last_modified


def test_unstored_artifact_can_be_deleted(client: Client) -> None:
    insert_artifact_row(artifact_row(uri="cadc:TEST/file.txt"))
    assert client.delete(PATH).status_code == 204
    assert not Artifact.objects.exists()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({"if_none_match": "*"}, 412),
        ({"if_match": "*"}, 201),
        ({"if_match": f'"md5:{hashlib.md5(DATA).hexdigest()}"'}, 201),
        ({"if_match": f'"other", "md5:{hashlib.md5(DATA).hexdigest()}"'}, 201),
        ({"if_match": f'W/"md5:{hashlib.md5(DATA).hexdigest()}"'}, 412),
        ({"if_match": '"other"'}, 412),
        ({"if_none_match": f'W/"md5:{hashlib.md5(DATA).hexdigest()}"'}, 412),
        ({"if_none_match": '"other"'}, 201),
    ],
)
def test_preconditions_of_a_replacement(
    client: Client, store: ArtifactStore, header: dict[str, str], status: int
) -> None:
    put(client)
    assert put(client, b"second", headers=header).status_code == status
    assert len(list(store.iterate())) == (2 if status == 201 else 1)


def test_if_match_protects_deletion_and_update(client: Client) -> None:
    put(client)
    assert client.delete(PATH, headers={"if-match": '"other"'}).status_code == 412
    assert client.post(f"{PATH}?contentType=a/b", headers={"if-match": '"other"'}).status_code == 412
    assert client.head(PATH)["Content-Type"] == "text/plain"


def test_content_over_the_limit_is_refused_with_the_limit_first(client: Client, settings: Settings) -> None:
    settings.INVENTORY_MAX_CONTENT_BYTES = 10
    answer = put(client, headers={"user_agent": "cadcutils/1.5"})
    assert answer.status_code == 413
    assert answer.content.startswith(b"10 ")


def test_full_disk_is_told_before_the_body_is_read(client: Client, settings: Settings) -> None:
    settings.INVENTORY_PUT_FREE_BYTES = 2**62
    answer = put(client)
    assert answer.status_code == 507
    assert not Artifact.objects.exists()
