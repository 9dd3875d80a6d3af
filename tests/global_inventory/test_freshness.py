"""Read your writes: positions, and artifacts that only a site knows yet."""

from __future__ import annotations

import json
import threading
import time
import uuid

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from datamodel import notify
from datamodel.models import HarvestState, RemoteInventory
from datamodel.positions import Position
from datamodel.rows import insert_tombstone
from tests.factories import WHEN
from tests.fakes.site import FakeSite
from tests.global_inventory.conftest import Federation
from tests.global_inventory.test_locate_json import claims_of

URI = "cadc:TEST/new.fits"
EPOCH = "0123456789abcdef"
STREAMS = ("locations", "deleted-artifacts", "artifacts")


def harvested(remote: RemoteInventory, txid: int, *, epoch: str = EPOCH, streams: tuple[str, ...] = STREAMS) -> None:
    for name in streams:
        HarvestState.objects.update_or_create(
            remote=remote, name=name, selector="", defaults={"epoch": epoch, "cur_txid": txid}
        )


def position(remote: RemoteInventory, txid: int) -> str:
    assert remote.inventory_id is not None
    return str(Position(remote.inventory_id, EPOCH, txid))


def get(client: Client, uri: str = URI, *, after: str | None = None, method: str = "GET") -> HttpResponse:
    headers = {"x-inventory-position": after} if after else {}
    response = client.generic(method, f"/files/{uri}", headers=headers)
    assert isinstance(response, HttpResponse)
    return response


def test_what_only_a_site_knows_is_found_by_asking(
    federation: Federation, reader: Client, alpha: FakeSite, beta: FakeSite
) -> None:
    federation.add_site("alpha", alpha.url)
    remote = federation.add_site("beta", beta.url)
    identity = beta.store(URI, b"just put")
    head = get(reader, method="HEAD")
    assert (head.status_code, head["x-artifact-id"], head["Content-Length"]) == (200, str(identity), "8")
    response = get(reader)
    assert response.status_code == 303
    assert response["Location"].startswith(beta.url)
    claims_of(reader, response["Location"], URI, remote.site_id)
    answer = reader.post("/locate", json.dumps({"uri": URI}), content_type="application/json").json()
    assert (answer["id"], [entry["site"] for entry in answer["urls"]]) == (str(identity), ["beta"])
    assert set(alpha.asked) <= {URI}


def test_a_site_is_asked_with_a_url_signed_for_it(federation: Federation, reader: Client, alpha: FakeSite) -> None:
    remote = federation.add_site("alpha", alpha.url)
    get(reader)
    url = f"{alpha.url}/files/{alpha.tokens[0]}/{URI}"
    assert claims_of(reader, url, URI, remote.site_id).user == "reader"


def test_an_id_that_was_deleted_here_is_not_taken_back(federation: Federation, reader: Client, alpha: FakeSite) -> None:
    federation.add_site("alpha", alpha.url)
    insert_tombstone(alpha.store(URI, b"late news"), URI, deleted_at=WHEN)
    assert get(reader).status_code == 404
    assert alpha.asked == [URI]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_only_200_counts(federation: Federation, reader: Client, alpha: FakeSite, status: int) -> None:
    federation.add_site("alpha", alpha.url)
    alpha.files_status = status
    assert get(reader).status_code == 404


def test_a_miss_is_remembered_for_a_moment_unless_a_write_was_negotiated(
    federation: Federation, operator: Client, alpha: FakeSite
) -> None:
    federation.add_site("alpha", alpha.url)
    assert get(operator).status_code == 404
    assert get(operator).status_code == 404
    assert len(alpha.asked) == 1
    assert get(operator, method="PUT").status_code == 307
    assert get(operator).status_code == 404
    alpha.store(URI, b"there it is")
    assert get(operator).status_code == 303


def test_callers_who_miss_at_once_share_one_question(federation: Federation, reader: Client, alpha: FakeSite) -> None:
    federation.add_site("alpha", alpha.url)
    alpha.answers.clear()
    statuses: list[int] = []

    def ask() -> None:
        try:
            statuses.append(get(Client(headers={"authorization": reader.defaults["HTTP_AUTHORIZATION"]})).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert alpha.has_been_asked.wait(5)
    alpha.answers.set()
    for thread in threads:
        thread.join()
    assert statuses == [404] * 5
    assert len(alpha.asked) == 1


def test_a_site_that_hangs_delays_an_answer_by_a_bounded_time_only(
    federation: Federation, reader: Client, alpha: FakeSite, beta: FakeSite, settings: Settings
) -> None:
    settings.INVENTORY_ASK_SECONDS = 1
    federation.add_site("hangs", alpha.url)
    federation.add_site("gone", "http://127.0.0.1:1")
    alpha.answers.clear()
    started = time.monotonic()
    assert get(reader).status_code == 404
    assert 0.9 < time.monotonic() - started < 3
    federation.add_site("beta", beta.url)
    beta.store("cadc:TEST/other", b"x")
    started = time.monotonic()
    assert get(reader, "cadc:TEST/other").status_code == 303
    assert time.monotonic() - started < 0.9


def test_a_position_that_was_passed_is_answered_from_the_rows(
    federation: Federation, reader: Client, alpha: FakeSite
) -> None:
    remote = federation.add_site("alpha", alpha.url)
    federation.add_artifact(URI, remote)
    harvested(remote, 100)
    assert get(reader, after=position(remote, 100)).status_code == 303
    assert alpha.asked == []


def test_a_reader_waits_for_the_news_and_is_woken_by_them(federation: Federation, reader: Client) -> None:
    remote = federation.add_site("alpha", "http://127.0.0.1:1")
    federation.add_artifact(URI, remote, data=b"old")
    harvested(remote, 99)
    found = threading.Event()

    def apply() -> None:
        try:
            found.wait(5)
            harvested(remote, 100)
            notify.announce()
        finally:
            connection.close()

    thread = threading.Thread(target=apply)
    thread.start()
    threading.Timer(0.3, found.set).start()
    started = time.monotonic()
    assert get(reader, after=position(remote, 100)).status_code == 303
    assert 0.25 < time.monotonic() - started < 1.9
    thread.join()


BEHIND: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "one stream is behind": (100, EPOCH, STREAMS[:2]),
    "all are behind": (99, EPOCH, STREAMS),
    "another epoch": (1000, "f" * 16, STREAMS),
}


@pytest.mark.parametrize("name", BEHIND)
def test_a_position_that_is_not_passed_in_time_is_asked_of_its_site(
    federation: Federation, reader: Client, alpha: FakeSite, settings: Settings, name: str
) -> None:
    txid, epoch, streams = BEHIND[name]
    settings.INVENTORY_POSITION_WAIT_SECONDS = 0
    remote = federation.add_site("alpha", alpha.url)
    other = federation.add_site("beta", "http://127.0.0.1:1")
    federation.add_artifact(URI, remote, other, data=b"old")
    harvested(remote, txid, epoch=epoch, streams=streams)
    identity = alpha.store(URI, b"replaced")
    head = get(reader, after=position(remote, 100), method="HEAD")
    assert head["x-artifact-id"] == str(identity)
    response = get(reader, after=position(remote, 100))
    assert response["Location"].startswith(alpha.url)
    assert "duplicate" not in response["Link"]
    body = json.dumps({"uri": URI})
    headers = {"x-inventory-position": position(remote, 100)}
    answer = reader.post("/locate", body, content_type="application/json", headers=headers).json()
    assert [entry["site"] for entry in answer["urls"]] == ["alpha"]


def test_what_its_site_has_deleted_is_not_found_though_the_rows_still_name_it(
    federation: Federation, reader: Client, alpha: FakeSite, settings: Settings
) -> None:
    settings.INVENTORY_POSITION_WAIT_SECONDS = 0
    remote = federation.add_site("alpha", alpha.url)
    federation.add_artifact(URI, remote)
    assert get(reader, after=position(remote, 100)).status_code == 404
    assert get(reader).status_code == 303


def test_neither_the_news_nor_the_site_is_503_and_retryable(
    federation: Federation, reader: Client, settings: Settings
) -> None:
    settings.INVENTORY_POSITION_WAIT_SECONDS = 0
    remote = federation.add_site("alpha", "http://127.0.0.1:1")
    federation.add_artifact(URI, remote)
    for after in (position(remote, 100), f"{uuid.uuid4()}.{EPOCH}.100"):
        response = get(reader, after=after)
        assert response.status_code == 503
        assert response["Retry-After"]
        assert json.loads(response.content)["code"] == "position_not_reached"
        body = json.dumps({"uris": [URI]})
        headers = {"x-inventory-position": after}
        bulk = reader.post("/locate", body, content_type="application/json", headers=headers)
        assert bulk.status_code == 503


def test_a_put_after_a_write_that_has_not_arrived_offers_its_site_first(
    federation: Federation, operator: Client, settings: Settings
) -> None:
    settings.INVENTORY_POSITION_WAIT_SECONDS = 0
    sites = [federation.add_site(name) for name in ("alpha", "beta", "gamma")]
    federation.add_artifact(URI, sites[0])
    for _ in range(4):
        response = get(operator, after=position(sites[2], 100), method="PUT")
        assert response["Location"].startswith(sites[2].url)


def test_a_malformed_position_is_refused(federation: Federation, reader: Client) -> None:
    assert get(reader, after="7").status_code == 400
