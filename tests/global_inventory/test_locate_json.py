"""Negotiation in JSON: one uri, ten thousand, and what a token from it allows."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from datamodel import preauth
from datamodel.errors import NotPermittedError
from datamodel.preauth import Methods, TransferClaims
from datamodel.processes import wait_until
from datamodel.uris import ArtifactUri
from tests.factories import WHEN, settle_rights
from tests.global_inventory.conftest import Federation

URI = "cadc:TEST/file.fits"


def locate(client: Client, **body: object) -> dict[str, object]:
    response = client.post("/locate", json.dumps(body), content_type="application/json")
    assert response.status_code == 200, response.content
    answer: dict[str, object] = response.json()
    return answer


def claims_of(client: Client, url: str, uri: str, site_id: uuid.UUID | None) -> TransferClaims:
    """As a site would: with the published keys."""
    published = client.get("/pubkey").json()["keys"]
    keys = {key["kid"]: base64.urlsafe_b64decode(key["x"] + "==") for key in published}
    token = url.partition("/files/")[2].partition("/")[0]
    return preauth.verify(token, ArtifactUri.parse(uri), keys=keys, now=datetime.now(UTC), site_id=site_id)


def test_a_reader_gets_a_signed_url_at_each_site_that_holds_the_artifact(
    federation: Federation, reader: Client
) -> None:
    alpha, beta, _ = (federation.add_site(name) for name in ("alpha", "beta", "gamma"))
    row = federation.add_artifact(URI, alpha, beta)
    answer = locate(reader, uri=URI)
    urls = answer["urls"]
    assert isinstance(urls, list)
    assert {entry["site"] for entry in urls} == {"alpha", "beta"}
    assert answer["contentChecksum"] == row.content_checksum
    assert row.content_sha256 is not None
    assert answer["contentSha256"] == row.content_sha256.hex()
    assert (answer["id"], answer["contentLength"]) == (str(row.id), row.content_length)
    by_site = {"alpha": alpha, "beta": beta}
    for entry in urls:
        site = by_site[entry["site"]]
        assert entry["url"].startswith(f"{site.url}/files/")
        assert unquote(entry["url"].rpartition("/files/")[2].partition("/")[2]) == URI
        claims = claims_of(reader, entry["url"], URI, site.site_id)
        assert (claims.methods, claims.user, claims.known_id) == (Methods.READ, "reader", None)


def test_a_revoked_site_is_located_no_more_from_that_moment_on(federation: Federation, reader: Client) -> None:
    alpha, beta = federation.add_site("alpha"), federation.add_site("beta")
    federation.add_artifact(URI, alpha, beta)
    settle_rights()
    assert {url["site"] for url in urls_of(reader)} == {"alpha", "beta"}
    # As another process would do it: what this one remembers of the sites is good for two seconds otherwise.
    with connection.cursor() as cursor:
        cursor.execute("UPDATE remote_inventory SET enabled = false, revoked_at = now() WHERE name = 'beta'")
    wait_until(lambda: {url["site"] for url in urls_of(reader)} == {"alpha"}, 1, "it is still located")


def urls_of(reader: Client) -> list[dict[str, str]]:
    urls = locate(reader, uri=URI)["urls"]
    assert isinstance(urls, list)
    return urls


def test_a_token_is_good_at_its_site_only(federation: Federation, reader: Client) -> None:
    alpha = federation.add_site("alpha")
    federation.add_artifact(URI, alpha)
    urls = locate(reader, uri=URI)["urls"]
    assert isinstance(urls, list)
    with pytest.raises(NotPermittedError):
        claims_of(reader, urls[0]["url"], URI, uuid.uuid4())
    with pytest.raises(NotPermittedError):
        claims_of(reader, urls[0]["url"], "cadc:TEST/other.fits", alpha.site_id)


def test_a_put_lists_holders_first_and_names_the_artifact_it_may_replace(
    federation: Federation, operator: Client
) -> None:
    sites = [federation.add_site(name) for name in ("alpha", "beta", "gamma", "delta")]
    row = federation.add_artifact(URI, sites[2])
    for _ in range(8):
        urls = locate(operator, uri=URI, direction="put")["urls"]
        assert isinstance(urls, list)
        assert len(urls) == 4
        assert urls[0]["site"] == "gamma"
        assert "holds the artifact" in urls[0]["reason"]
        assert "holds" not in urls[1]["reason"]
        claims = claims_of(operator, urls[0]["url"], URI, sites[2].site_id)
        assert (claims.methods, claims.known_id, claims.known_at) == (Methods.WRITE_AND_DELETE, row.id, WHEN)


def test_a_put_token_of_a_caller_without_the_delete_grant_cannot_delete(federation: Federation, writer: Client) -> None:
    alpha = federation.add_site("alpha")
    answer = locate(writer, uri=URI, direction="put")
    assert "id" not in answer
    assert isinstance(answer["urls"], list)
    claims = claims_of(writer, answer["urls"][0]["url"], URI, alpha.site_id)
    assert (claims.methods, claims.known_id) == (Methods.WRITE, None)


def test_an_unknown_artifact_and_one_without_copies_are_not_found(federation: Federation, reader: Client) -> None:
    federation.add_artifact("cadc:TEST/nowhere.fits")
    for uri in (URI, "cadc:TEST/nowhere.fits"):
        response = reader.post("/locate", json.dumps({"uri": uri}), content_type="application/json")
        assert response.status_code == 404
        assert response.json()["code"] == "artifact_not_found"


def test_an_artifact_whose_sites_cannot_be_read_is_not_called_missing(federation: Federation, reader: Client) -> None:
    federation.add_artifact(URI, federation.add_site("alpha", allow_read=False))
    response = reader.post("/locate", json.dumps({"uri": URI}), content_type="application/json")
    assert response.status_code == 502
    assert "alpha: the site allows no reads" in response.json()["detail"]
    assert response.json()["retryable"] is True


def test_bulk_answers_in_the_order_asked_and_an_unknown_uri_fails_alone(federation: Federation, reader: Client) -> None:
    alpha, beta = federation.add_site("alpha"), federation.add_site("beta")
    federation.add_artifact("cadc:TEST/1", alpha)
    row = federation.add_artifact("cadc:TEST/2", alpha, beta, data=b"two")
    federation.add_artifact("cadc:TEST/é", beta)
    federation.add_artifact("cadc:TEST/nowhere")
    uris = [
        "cadc:TEST/2",
        "cadc:TEST/none",
        "not a uri",
        "cadc:TEST/é",
        "cadc:TEST/1",
        "cadc:TEST/nowhere",
        "cadc:TEST/2",
    ]
    results = locate(reader, uris=uris, direction="get")["results"]
    assert isinstance(results, list)
    assert [r.get("requested", r["uri"]) for r in results] == uris
    assert [r.get("error", {}).get("code") for r in results] == [
        None, "artifact_not_found", "invalid_uri", None, None, "artifact_not_found", None,
    ]  # fmt: skip
    assert results[0]["contentChecksum"] == row.content_checksum
    assert results[0]["contentLength"] == 3
    assert {entry["site"] for entry in results[0]["urls"]} == {"alpha", "beta"}
    assert results[3]["uri"] == "cadc:TEST/%C3%A9"
    url = results[3]["urls"][0]["url"]
    assert url.endswith("/cadc:TEST/%25C3%25A9")
    assert claims_of(reader, url, "cadc:TEST/é", beta.site_id).methods is Methods.READ


def test_ten_thousand_uris_go_in_one_call_and_one_more_is_refused(federation: Federation, reader: Client) -> None:
    federation.add_artifact("cadc:TEST/9999", federation.add_site("alpha"))
    uris = [f"cadc:TEST/{n}" for n in range(10_000)]
    results = locate(reader, uris=uris)["results"]
    assert isinstance(results, list)
    assert len(results) == 10_000
    assert len(results[-1]["urls"]) == 1
    response = reader.post("/locate", json.dumps({"uris": [*uris, "a:b"]}), content_type="application/json")
    assert response.status_code == 400
    assert "10000" in response.json()["detail"]


BAD_BODIES = [
    (" ", "empty"),
    ("[1]", "object"),
    ("{", "JSON"),
    ('{"direction": "get"}', "uri"),
    ('{"uri": "cadc:a", "uris": []}', "uri"),
    ('{"uri": 7}', "text"),
    ('{"uris": ["cadc:a", 7]}', "list of texts"),
    ('{"uri": "cadc:a", "direction": "up"}', "direction"),
    ('{"uris": ["cadc:a"], "direction": "put"}', "put"),
    ('{"uri": "cadc:/a"}', "must not start"),
]


@pytest.mark.parametrize(("body", "word"), BAD_BODIES)
def test_a_bad_body_is_refused_by_name(operator: Client, body: str, word: str) -> None:
    response = operator.post("/locate", body, content_type="application/json")
    assert response.status_code == 400
    assert word in response.json()["detail"]


def test_a_content_type_that_is_neither_json_nor_xml_is_refused(reader: Client) -> None:
    assert reader.post("/locate", "x", content_type="text/plain").status_code == 400


def test_who_may_negotiate(federation: Federation, reader: Client, writer: Client) -> None:
    federation.add_artifact(URI, federation.add_site("alpha"))
    cases = [
        (Client(), "get", 401),
        (Client(), "put", 401),
        (reader, "get", 200),
        (reader, "put", 403),
        (writer, "put", 200),
        (Client(headers={"authorization": "Bearer nonsense"}), "get", 401),
    ]
    for client, direction, status in cases:
        body = json.dumps({"uri": URI, "direction": direction})
        assert client.post("/locate", body, content_type="application/json").status_code == status, (direction, status)


def test_anonymous_readers_get_signed_urls_without_a_name_when_the_setting_allows(
    federation: Federation, settings: Settings
) -> None:
    settings.INVENTORY_ANONYMOUS_READ = True
    alpha = federation.add_site("alpha")
    federation.add_artifact(URI, alpha)
    urls = locate(Client(), uri=URI)["urls"]
    assert isinstance(urls, list)
    assert claims_of(Client(), urls[0]["url"], URI, alpha.site_id).user is None


def test_only_post_negotiates(reader: Client) -> None:
    assert reader.get("/locate").status_code == 405
