"""The catalogue of a global: listings with copies, look-ups, explanations, gauges, system checks."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import Client
from prometheus_client.core import Metric
from pytest_django import Settings

from datamodel.models import HarvestConflict, HarvestState
from datamodel.rows import insert_tombstone
from global_inventory.artifacts import metrics as artifact_metrics
from global_inventory.sites import metrics as site_metrics, queries as site_queries
from global_inventory.sites.models import SiteProbe, SiteRule
from tests.factories import WHEN
from tests.global_inventory.conftest import Federation


def fill(federation: Federation) -> list[str]:
    """Five artifacts in two namespaces; their uris in order."""
    alpha, beta = federation.add_site("alpha"), federation.add_site("beta")
    federation.add_artifact("cadc:A/1", alpha)
    federation.add_artifact("cadc:A/2", alpha, beta)
    federation.add_artifact("cadc:A/3")
    federation.add_artifact("cadc:A0/4", beta)
    federation.add_artifact("x:5", beta)
    return ["cadc:A/1", "cadc:A/2", "cadc:A/3", "cadc:A0/4", "x:5"]


def test_a_listing_names_the_copies_of_each_artifact(federation: Federation, reader: Client) -> None:
    fill(federation)
    answer = reader.get("/artifacts?namespace=cadc:A/").json()
    assert [(item["uri"], item["copies"]) for item in answer["items"]] == [
        ("cadc:A/1", ["alpha"]),
        ("cadc:A/2", ["alpha", "beta"]),
        ("cadc:A/3", []),
    ]
    assert answer["next"] is None
    assert set(answer["items"][0]) == {
        "id", "uri", "contentChecksum", "contentSha256", "contentLength", "contentType", "contentEncoding",
        "contentLastModified", "lastModified", "metaChecksum", "copies", "releasing",
    }  # fmt: skip
    assert answer["items"][0]["contentLastModified"] == "2026-01-02T03:04:05.678+00:00"


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_pages_follow_each_other_without_gap_or_repeat(federation: Federation, reader: Client, limit: int) -> None:
    uris = fill(federation)
    found: list[str] = []
    query: str | None = f"?limit={limit}"
    while query is not None:
        page = reader.get(f"/artifacts{query}").json()
        assert len(page["items"]) <= limit
        found += [item["uri"] for item in page["items"]]
        query = page["next"]
    assert found == uris


@pytest.mark.parametrize(("query", "accept"), [("&format=ndjson", "*/*"), ("", "application/x-ndjson")])
def test_a_stream_has_one_artifact_per_line(federation: Federation, reader: Client, query: str, accept: str) -> None:
    fill(federation)
    response = reader.get(f"/artifacts?namespace=cadc:{query}", headers={"accept": accept})
    assert response["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in b"".join(response).splitlines()]
    assert [line["uri"] for line in lines] == ["cadc:A/1", "cadc:A/2", "cadc:A/3", "cadc:A0/4"]
    assert lines == reader.get("/artifacts?namespace=cadc:").json()["items"]


def test_a_long_stream_has_each_artifact_once(federation: Federation, reader: Client) -> None:
    alpha = federation.add_site("alpha")
    expected = [f"cadc:A/{n:04}" for n in range(2001)]
    for uri in expected:
        federation.add_artifact(uri, alpha)
    lines = [json.loads(line) for line in b"".join(reader.get("/artifacts?format=ndjson")).splitlines()]
    assert [line["uri"] for line in lines] == expected


def test_one_artifact_is_found_by_uri_and_by_id(federation: Federation, reader: Client) -> None:
    row = federation.add_artifact("cadc:é", federation.add_site("alpha"))
    by_uri = reader.get("/artifacts", {"uri": "cadc:é"}).json()
    assert (by_uri["uri"], by_uri["copies"]) == ("cadc:%C3%A9", ["alpha"])
    assert reader.get(f"/artifacts/{row.id}").json() == by_uri
    assert reader.get("/artifacts?uri=cadc:none").status_code == 404
    assert reader.get(f"/artifacts/{uuid.uuid4()}").status_code == 404


BAD = ["namespace=cadc", "limit=0", "limit=10001", "limit=x", "format=xml", "uri=cadc", "after=%00", "limit=²"]


@pytest.mark.parametrize("query", BAD)
def test_a_bad_question_is_refused(reader: Client, query: str) -> None:
    assert reader.get(f"/artifacts?{query}").status_code == 400


@pytest.mark.parametrize("path", ["/artifacts", f"/artifacts/{uuid.UUID(int=7)}", "/explain?uri=cadc:A/1"])
def test_the_catalogue_needs_the_read_grant(federation: Federation, path: str) -> None:
    assert Client().get(path).status_code == 401


def test_explain_says_what_is_known_and_what_would_be_answered(federation: Federation, reader: Client) -> None:
    alpha, beta, gamma = (federation.add_site(name) for name in ("alpha", "beta", "gamma"))
    row = federation.add_artifact("cadc:A/1", alpha, beta)
    old = uuid.uuid4()
    insert_tombstone(old, row.uri, deleted_at=WHEN)
    HarvestConflict.objects.create(
        uri=row.uri, winner_id=row.id, loser_id=old, loser_checksum="md5:x", loser_length=1, loser_last_modified=WHEN,
        same_content=False, decided_at=WHEN,
    )  # fmt: skip
    HarvestState.objects.create(remote=alpha, name="artifacts", selector="", epoch="e", cur_txid=7, updated_at=WHEN)
    down = {"read_ok": False, "write_ok": False, "checked_at": datetime.now(UTC), "last_error": "it answered 503"}
    SiteProbe.objects.create(remote=beta, **down)
    SiteRule.objects.create(namespace="cadc:A/", remote=gamma, direction="put", kind="avoid")
    site_queries.site_table_cache.clear()
    answer = reader.get("/explain?uri=cadc:A/1").json()
    assert answer["artifact"]["copies"] == ["alpha", "beta"]
    assert [entry["artifact_id"] for entry in answer["tombstones"]] == [str(old)]
    assert [entry["loser_id"] for entry in answer["conflicts"]] == [str(old)]
    assert {copy["site"]: copy["get"] for copy in answer["copies"]} == {
        "alpha": "offered", "beta": "unreachable: it answered 503",
    }  # fmt: skip
    assert [(place["site"], place.get("obstacle")) for place in answer["ranking"]["get"]] == [
        ("alpha", None), ("beta", "unreachable: it answered 503"),
    ]  # fmt: skip
    put = answer["ranking"]["put"]
    assert (put[0]["site"], put[0]["reason"]) == ("alpha", "holds the artifact, latency not measured yet")
    assert {place["site"]: place["obstacle"] for place in put[1:]} == {
        "beta": "unreachable: it answered 503", "gamma": "avoided by a rule",
    }  # fmt: skip
    streams = {(harvest["site"], harvest["stream"]): harvest["txid"] for harvest in answer["harvests"]}
    assert streams == {("alpha", "artifacts"): 7, ("beta", None): None, ("gamma", None): None}


def test_explain_answers_for_an_unknown_uri_too(federation: Federation, reader: Client) -> None:
    federation.add_site("alpha")
    answer = reader.get("/explain?uri=cadc:none").json()
    assert (answer["artifact"], answer["copies"], answer["ranking"]["get"]) == (None, [], [])
    assert [place["site"] for place in answer["ranking"]["put"]] == ["alpha"]
    assert reader.get("/explain").status_code == 400


def samples(metrics: list[Metric]) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for metric in metrics for s in metric.samples}


def test_gauges_of_sites_and_of_artifacts_without_copies(federation: Federation) -> None:
    fill(federation)
    beta = site_queries.probe_targets()[1]
    SiteProbe.objects.create(
        remote_id=beta.remote_id, read_ok=True, write_ok=False, latency_ms=250, checked_at=datetime.now(UTC), failures=0
    )
    found = samples(list(site_metrics.collect()))
    assert found["inventory_site_offered", "alpha", "put"] == 1
    assert found["inventory_site_offered", "beta", "get"] == 1
    assert found["inventory_site_offered", "beta", "put"] == 0
    assert found["inventory_site_latency_seconds", "beta"] == 0.25
    assert 0 <= found["inventory_site_probe_age_seconds", "beta"] < 60
    artifact_metrics.zero_copies.clear()
    assert samples(list(artifact_metrics.collect()))["inventory_zero_copy_artifacts",] == 1
    federation.add_artifact("x:6")
    # Counted at most once in five minutes.
    assert samples(list(artifact_metrics.collect()))["inventory_zero_copy_artifacts",] == 1


def test_keys_must_outlive_the_urls_that_they_sign(settings: Settings) -> None:
    def ids() -> set[str | None]:
        return {message.id for message in run_checks() if message.id in {"inventory.E042", "inventory.E040"}}

    assert ids() == set()
    settings.INVENTORY_KEY_OVERLAP = timedelta(seconds=settings.INVENTORY_URL_SECONDS - 1)
    assert ids() == {"inventory.E042"}
    settings.INVENTORY_KEY_PERIOD = timedelta(seconds=1)
    assert ids() == {"inventory.E042", "inventory.E040"}


def test_the_api_document_describes_every_route(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings.INVENTORY_SCHEMA_MODULES = ["global_inventory.locate.schema", "global_inventory.artifacts.schema"]
    call_command("spectacular", "--validate", "--format", "openapi-json", "--fail-on-warn")
    document = json.loads(capsys.readouterr().out)
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert {
        ("/locate", "post"), ("/artifacts", "get"), ("/artifacts/{id}", "get"), ("/explain", "get"),
        *(("/files/{uri}", method) for method in ("head", "get", "put", "post", "delete")),
    } <= described  # fmt: skip
