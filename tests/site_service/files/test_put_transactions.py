"""Put transactions: the codes and headers of the reference (2.7), its defects mended."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from datamodel.models import Artifact, DeletedArtifactEvent, ObsoleteStorageLocation
from site_service.files.models import PutTransaction
from site_service.files.tasks import sweep_transactions
from site_service.storage.contract import ArtifactStore
from tests.site_service.files.requests import DATA, PATH, body_of, md5_header, put, sha256_header

ONE, TWO = DATA[:10], DATA[10:]


def start(client: Client, data: bytes = b"", **headers: str) -> Any:
    return put(client, data, headers={"x_put_txn_op": "start", **headers})


def append(client: Client, identity: str, data: bytes, **headers: str) -> Any:
    return put(client, data, headers={"x_put_txn_id": identity, **headers})


def commit(client: Client, identity: str, **headers: str) -> Any:
    return put(client, b"", headers={"x_put_txn_id": identity, "x_put_txn_op": "commit", **headers})


def post(client: Client, identity: str, op: str | None = None) -> Any:
    return client.post(PATH, headers={"x-put-txn-id": identity} | ({"x-put-txn-op": op} if op else {}))


def head(client: Client, identity: str) -> Any:
    return client.head(PATH, headers={"x-put-txn-id": identity})


def test_start_with_body_then_commit(client: Client) -> None:
    begun = start(client, DATA)
    identity = begun["x-put-txn-id"]
    assert (begun.status_code, begun["Content-Length"], begun.content) == (202, "0", b"")
    assert (begun["Digest"], begun["Repr-Digest"]) == (md5_header(DATA), sha256_header(DATA))
    assert begun["x-put-segment-minbytes"] == "1"
    assert client.head(PATH).status_code == 404
    status = head(client, identity)
    assert (status.status_code, status["Digest"], status["Content-Length"]) == (200, md5_header(DATA), str(len(DATA)))
    done = commit(client, identity)
    assert (done.status_code, done["Digest"]) == (201, md5_header(DATA))
    assert head(client, identity).status_code == 404
    assert client.head(PATH).status_code == 200
    assert client.delete(PATH).status_code == 204


def test_only_committed_content_has_an_id_of_its_time_the_transaction_one_that_nobody_guesses(client: Client) -> None:
    begun = [start(client, DATA)["x-put-txn-id"] for _ in range(8)]
    commit(client, begun[0])
    assert Artifact.objects.get().id.hex[12] == "8"
    assert len({identity[3:9] for identity in begun}) == len(begun)
    assert {identity[12] for identity in begun} != {"8"}


def test_abort_drops_everything(client: Client, store: ArtifactStore) -> None:
    identity = start(client, DATA)["x-put-txn-id"]
    assert head(client, identity).status_code == 200
    assert post(client, identity, "abort").status_code == 204
    assert head(client, identity).status_code == 404
    assert client.head(PATH).status_code == 404
    assert list(store.iterate()) == []
    assert not PutTransaction.objects.exists()


def test_several_segments_with_revert_and_resend(client: Client) -> None:
    begun = start(client, ONE, x_total_length=str(len(DATA)))
    identity = begun["x-put-txn-id"]
    assert begun["Digest"] == md5_header(ONE)
    assert head(client, identity)["Content-Length"] == str(len(ONE))
    reverted = post(client, identity, "revert")
    assert (reverted.status_code, reverted["x-put-txn-id"]) == (202, identity)
    assert "Digest" not in reverted
    assert post(client, identity, "revert").status_code == 400
    assert append(client, identity, ONE)["Digest"] == md5_header(ONE)
    assert append(client, identity, TWO)["Digest"] == md5_header(DATA)
    assert post(client, identity, "revert")["Digest"] == md5_header(ONE)
    assert append(client, identity, TWO).status_code == 202
    assert post(client, identity).status_code == 204
    assert commit(client, identity).status_code == 201
    assert body_of(client.get(PATH)) == DATA


def test_explicit_start_without_body(client: Client) -> None:
    begun = start(client)
    assert begun.status_code == 202
    assert "Digest" not in begun
    assert head(client, begun["x-put-txn-id"])["Content-Length"] == "0"
    assert append(client, begun["x-put-txn-id"], DATA).status_code == 202
    assert commit(client, begun["x-put-txn-id"]).status_code == 201


def test_type_and_encoding_are_those_of_the_commit_else_of_the_start(client: Client) -> None:
    identity = start(client, DATA, content_encoding="gzip")["x-put-txn-id"]
    extra = {"CONTENT_LENGTH": "0", "HTTP_X_PUT_TXN_ID": identity, "HTTP_X_PUT_TXN_OP": "commit"}
    assert client.generic("PUT", PATH, **extra).status_code == 201
    got = client.head(PATH)
    assert (got["Content-Type"], got["Content-Encoding"]) == ("text/plain", "gzip")


@pytest.mark.parametrize(
    "headers",
    [
        {"x_put_txn_op": "commit"},
        {"x_put_txn_op": "abort", "x_put_txn_id": "x"},
        {"x_put_txn_op": "start", "x_put_txn_id": "x"},
        {"x_put_txn_op": "revert"},
    ],
)
def test_operations_that_do_not_fit_are_refused(client: Client, headers: dict[str, str]) -> None:
    assert put(client, b"", headers=headers).status_code == 400


def test_post_refuses_start_and_commit_and_needs_the_id(client: Client) -> None:
    identity = start(client, DATA)["x-put-txn-id"]
    assert post(client, identity, "start").status_code == post(client, identity, "commit").status_code == 400
    assert client.post(PATH, headers={"x-put-txn-op": "abort"}).status_code == 400


def test_commit_takes_no_body(client: Client) -> None:
    identity = start(client, DATA)["x-put-txn-id"]
    answer = put(client, b"x", headers={"x_put_txn_id": identity, "x_put_txn_op": "commit"})
    assert answer.status_code == 400
    assert commit(client, identity).status_code == 201


def test_unknown_transactions_are_404(client: Client) -> None:
    unknown = "0" * 32
    assert head(client, unknown).status_code == 404
    assert append(client, unknown, DATA).status_code == commit(client, unknown).status_code == 404
    assert post(client, unknown, "abort").status_code == post(client, unknown, "revert").status_code == 404


def test_another_uri_is_refused_everywhere(client: Client) -> None:
    identity = start(client, ONE)["x-put-txn-id"]
    other = "/files/cadc:TEST/other.txt"
    headers = {"x-put-txn-id": identity}
    assert client.head(other, headers=headers).status_code == 400
    assert put(client, TWO, path=other, headers=headers).status_code == 400
    assert put(client, b"", path=other, headers=headers | {"x-put-txn-op": "commit"}).status_code == 400
    assert client.post(other, headers=headers | {"x-put-txn-op": "abort"}).status_code == 400
    assert head(client, identity)["Digest"] == md5_header(ONE)


def test_commit_before_the_declared_total_is_refused_and_can_be_completed(client: Client) -> None:
    identity = start(client, ONE, x_total_length=str(len(DATA)))["x-put-txn-id"]
    assert commit(client, identity).status_code == 412
    assert append(client, identity, TWO + b"x").status_code == 412
    assert append(client, identity, TWO).status_code == 202
    assert commit(client, identity, x_total_length="5").status_code == 412
    assert commit(client, identity).status_code == 201


def test_wrong_digest_of_the_whole_leaves_the_transaction_as_it_was(client: Client) -> None:
    identity = start(client, ONE, x_total_length=str(len(DATA)), digest=md5_header(DATA))["x-put-txn-id"]
    assert append(client, identity, TWO, digest=md5_header(b"other")).status_code == 412
    assert head(client, identity)["Digest"] == md5_header(ONE)
    assert append(client, identity, TWO, digest=md5_header(DATA)).status_code == 202
    assert commit(client, identity, digest=md5_header(b"other")).status_code == 412
    assert commit(client, identity, repr_digest=sha256_header(b"other")).status_code == 412
    assert commit(client, identity, digest=md5_header(DATA)).status_code == 201


def test_wrong_digest_of_a_segment_adds_nothing(client: Client) -> None:
    identity = start(client, ONE)["x-put-txn-id"]
    assert append(client, identity, TWO, content_digest=sha256_header(DATA)).status_code == 412
    assert append(client, identity, b"x").status_code == 412


def test_wrong_digest_at_start_begins_nothing(client: Client) -> None:
    assert start(client, DATA, digest=md5_header(b"other")).status_code == 412
    assert not PutTransaction.objects.exists()


def chunked(client: Client, data: bytes, **headers: str) -> Any:
    extra = {
        "wsgi.input": io.BytesIO(data),
        "wsgi.input_terminated": True,
        "HTTP_TRANSFER_ENCODING": "chunked",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    return client.generic("PUT", PATH, **extra)  # type: ignore[arg-type]  # the environment takes objects


def test_chunked_segments_are_checked_against_total_and_digest(client: Client) -> None:
    begun = chunked(client, ONE, x_put_txn_op="start", x_total_length=str(len(DATA)))
    assert (begun.status_code, begun["Digest"]) == (202, md5_header(ONE))
    identity = begun["x-put-txn-id"]
    assert chunked(client, TWO + b"x", x_put_txn_id=identity).status_code == 412
    assert chunked(client, TWO, x_put_txn_id=identity, digest=md5_header(b"other")).status_code == 412
    assert head(client, identity)["Digest"] == md5_header(ONE)
    assert chunked(client, b"", x_put_txn_id=identity).status_code == 400
    assert chunked(client, TWO, x_put_txn_id=identity, digest=md5_header(DATA)).status_code == 202
    assert commit(client, identity).status_code == 201


def test_chunked_empty_start_begins_without_bytes(client: Client) -> None:
    begun = chunked(client, b"", x_put_txn_op="start")
    assert begun.status_code == 202
    assert "Digest" not in begun


def test_commit_of_nothing_is_an_empty_file_only_where_these_are_welcome(client: Client, settings: Settings) -> None:
    identity = start(client)["x-put-txn-id"]
    settings.INVENTORY_REFUSE_EMPTY = True
    assert commit(client, identity).status_code == 400
    settings.INVENTORY_REFUSE_EMPTY = False
    assert commit(client, identity).status_code == 201
    assert client.head(PATH)["Content-Length"] == "0"


def test_limit_counts_all_segments(client: Client, settings: Settings) -> None:
    settings.INVENTORY_MAX_CONTENT_BYTES = 15
    identity = start(client)["x-put-txn-id"]
    assert append(client, identity, ONE).status_code == 202
    assert append(client, identity, b"x" * 6).status_code == 413
    assert start(client, DATA).status_code == 413


def test_commit_replaces_like_a_put_and_heeds_preconditions(client: Client) -> None:
    put(client, b"old")
    identity = start(client, DATA)["x-put-txn-id"]
    assert commit(client, identity, if_none_match="*").status_code == 412
    assert not ObsoleteStorageLocation.objects.exists()
    assert commit(client, identity, if_match="*").status_code == 201
    assert DeletedArtifactEvent.objects.count() == Artifact.objects.count() == 1


def test_stale_transactions_are_swept_and_fresh_ones_stay(
    client: Client, settings: Settings, store: ArtifactStore
) -> None:
    identity = start(client, DATA)["x-put-txn-id"]
    sweep_transactions()
    assert head(client, identity).status_code == 200
    settings.INVENTORY_TRANSACTION_SECONDS = -1
    sweep_transactions()
    assert head(client, identity).status_code == 404
    assert not PutTransaction.objects.exists()
    assert store.stale_transactions(datetime.now(UTC) + timedelta(days=1)) == []


def test_rows_whose_bytes_are_gone_are_forgotten(client: Client, settings: Settings, store: ArtifactStore) -> None:
    store.abort(start(client, DATA)["x-put-txn-id"])
    settings.INVENTORY_TRANSACTION_SECONDS = -1
    sweep_transactions()
    assert not PutTransaction.objects.exists()
