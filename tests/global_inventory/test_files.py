"""`/files/{uri}` at a global: where it redirects to, and what HEAD says."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from urllib.parse import quote, unquote

import pytest
from django.http import HttpResponse
from django.test import Client

from datamodel.checksums import parse_digest_header, parse_structured_digests
from datamodel.preauth import Methods
from tests.global_inventory.conftest import Federation
from tests.global_inventory.test_locate_json import claims_of

URI = "cadc:TEST/file.fits"
_META = "{urn:ietf:params:xml:ns:metalink}"


def send(client: Client, method: str, uri: str, **headers: str) -> HttpResponse:
    response = client.generic(method, f"/files/{quote(uri, safe='/:+')}", headers=headers)
    assert isinstance(response, HttpResponse)
    return response


def test_get_redirects_to_a_signed_url_and_passes_the_query_on(federation: Federation, reader: Client) -> None:
    alpha = federation.add_site("alpha")
    federation.add_artifact(URI, alpha)
    response = reader.get(f"/files/{URI}?SUB=%5B1%5D&META=true")
    assert response.status_code == 303
    url, _, query = response["Location"].partition("?")
    assert url.startswith(f"{alpha.url}/files/")
    assert query == "SUB=%5B1%5D&META=true"
    assert claims_of(reader, url, URI, alpha.site_id).methods is Methods.READ


@pytest.mark.parametrize("uri", ["cadc:A//b", "cadc:A/b+c", "cadc:é", "cadc:A/x,y=z@q!~'()*"])
def test_any_legal_name_survives_the_redirect(federation: Federation, reader: Client, uri: str) -> None:
    alpha = federation.add_site("alpha")
    row = federation.add_artifact(uri, alpha)
    for path in (quote(uri, safe="/:+"), quote(uri, safe=""), quote(row.uri, safe="/:")):
        response = reader.get(f"/files/{path}")
        assert response.status_code == 303, path
        name = unquote(response["Location"].partition("/files/")[2].partition("/")[2])
        assert name == row.uri
        claims_of(reader, response["Location"], uri, alpha.site_id)


def test_get_links_the_other_copies_and_their_description(federation: Federation, reader: Client) -> None:
    sites = [federation.add_site(name) for name in ("alpha", "beta", "gamma")]
    row = federation.add_artifact(URI, *sites)
    response = reader.get(f"/files/{URI}")
    links = response["Link"].split(", ")
    assert len(links) == 3
    assert links[0].endswith("; rel=duplicate; pri=2")
    assert links[1].endswith("; rel=duplicate; pri=3")
    assert links[2] == (
        f'<http://global.test/files/{URI}?format=metalink>; rel=describedby; type="application/metalink4+xml"'
    )
    hosts = {link[1:].split("/")[2] for link in links[:2]} | {response["Location"].split("/")[2]}
    assert hosts == {"alpha.test", "beta.test", "gamma.test"}
    assert str(parse_digest_header(response["Digest"])) == row.content_checksum
    digests = parse_structured_digests(response["Repr-Digest"])
    assert {digest.algorithm: digest.raw for digest in digests}["sha-256"] == row.content_sha256


@pytest.mark.parametrize(
    ("query", "accept"), [("?format=metalink", "*/*"), ("", "*/*,application/metalink4+xml,application/metalink+xml")]
)
def test_a_metalink_names_size_digests_and_every_copy(
    federation: Federation, reader: Client, query: str, accept: str
) -> None:
    row = federation.add_artifact(URI, federation.add_site("alpha"), federation.add_site("beta"))
    response = reader.get(f"/files/{URI}{query}", headers={"accept": accept})
    assert (response.status_code, response["Content-Type"]) == (200, "application/metalink4+xml")
    entry = ET.fromstring(response.content).find(f"{_META}file")
    assert entry is not None
    assert entry.get("name") == "file.fits"
    assert entry.findtext(f"{_META}size") == str(row.content_length)
    hashes = {e.get("type"): e.text for e in entry.findall(f"{_META}hash")}
    assert row.content_sha256 is not None
    assert hashes == {"md5": row.content_checksum.removeprefix("md5:"), "sha-256": row.content_sha256.hex()}
    urls = entry.findall(f"{_META}url")
    assert [e.get("priority") for e in urls] == ["1", "2"]
    assert {(e.text or "").split("/")[2] for e in urls} == {"alpha.test", "beta.test"}


def test_a_name_that_xml_or_a_receiver_cannot_take_is_made_safe(federation: Federation, reader: Client) -> None:
    federation.add_artifact("cadc:A/\uffff'x", federation.add_site("alpha"))
    response = reader.get(f"/files/{quote('cadc:A/' + chr(0xFFFF))}'x?format=metalink")
    entry = ET.fromstring(response.content).find(f"{_META}file")
    assert entry is not None
    assert entry.get("name") == "_'x"


def test_head_answers_from_the_rows(federation: Federation, reader: Client) -> None:
    row = federation.add_artifact(
        URI, federation.add_site("alpha"), content_type="application/fits", content_encoding="us-ascii"
    )
    response = send(reader, "HEAD", URI)
    assert response.status_code == 200
    assert response["x-artifact-id"] == str(row.id)
    assert response["Digest"] == "md5=" + base64.b64encode(bytes.fromhex(row.content_checksum[4:])).decode()
    assert response["Content-Length"] == str(row.content_length)
    assert response["Last-Modified"] == "Fri, 02 Jan 2026 03:04:05 GMT"
    assert (response["Content-Type"], response["Content-Encoding"]) == ("application/fits", "us-ascii")
    assert response["Accept-Ranges"] == "bytes"
    assert response["ETag"] == f'"{row.content_checksum}"'
    assert response["Content-Disposition"] == 'inline; filename="file.fits"'


def test_head_names_no_type_that_was_not_given_and_writes_any_name(federation: Federation, reader: Client) -> None:
    federation.add_artifact("cadc:A/é.txt", federation.add_site("alpha"))
    response = send(reader, "HEAD", "cadc:A/é.txt")
    assert "Content-Type" not in response
    assert response["Content-Disposition"] == "inline; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST", "DELETE"])
def test_an_artifact_without_copies_is_not_found_whatever_the_method(
    federation: Federation, operator: Client, method: str
) -> None:
    federation.add_site("alpha")
    federation.add_artifact(URI)
    assert send(operator, method, URI).status_code == 404


def test_put_redirects_with_307_to_a_writable_site(federation: Federation, operator: Client) -> None:
    federation.add_site("alpha", allow_write=False)
    beta = federation.add_site("beta")
    response = send(operator, "PUT", URI)
    assert response.status_code == 307
    claims = claims_of(operator, response["Location"], URI, beta.site_id)
    assert claims.methods is Methods.WRITE_AND_DELETE
    assert claims.user == "operator"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_change_goes_to_a_site_that_holds_the_artifact(federation: Federation, operator: Client, method: str) -> None:
    federation.add_site("alpha")
    beta = federation.add_site("beta")
    federation.add_artifact(URI, beta)
    for _ in range(4):
        response = send(operator, method, URI)
        assert response.status_code == 307
        assert response["Location"].startswith(beta.url)


GRANTS = [("GET", 303, 303), ("HEAD", 200, 200), ("PUT", 403, 307), ("POST", 403, 307), ("DELETE", 403, 403)]


def test_each_method_needs_its_grant(federation: Federation, reader: Client, writer: Client) -> None:
    federation.add_artifact(URI, federation.add_site("alpha"))
    for method, as_reader, as_writer in GRANTS:
        statuses = [send(client, method, URI).status_code for client in (Client(), reader, writer)]
        assert statuses == [401, as_reader, as_writer], method


def test_no_writable_site_is_an_error_that_names_each_obstacle(federation: Federation, operator: Client) -> None:
    federation.add_site("alpha", allow_write=False)
    response = send(operator, "PUT", URI)
    assert response.status_code == 502
    assert b"alpha: the site allows no writes" in response.content


def test_a_put_transaction_is_continued_where_it_was_begun(federation: Federation, operator: Client) -> None:
    federation.add_site("alpha")
    response = send(operator, "PUT", URI, **{"x-put-txn-id": "abc"})
    assert response.status_code == 400
    assert b"at the site that began it" in response.content


def test_a_malformed_uri_is_refused_with_the_reason(reader: Client, federation: Federation) -> None:
    response = send(reader, "GET", "cadc:a b")
    assert response.status_code == 400
    assert b"~20" in response.content


def test_a_redirect_goes_to_a_site_whatever_the_request_calls_us(federation: Federation, reader: Client) -> None:
    alpha = federation.add_site("alpha")
    federation.add_artifact(URI, alpha)
    for method in ("GET", "PUT", "DELETE"):
        response = send(reader, method, URI, host="evil.example", x_forwarded_host="evil.example")
        assert "evil" not in str(response.headers)
        assert response.status_code == 403 or response["Location"].startswith(f"{alpha.url}/files/")
    assert send(reader, "GET", URI, host="evil.example").status_code == 303
