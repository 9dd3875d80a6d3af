"""VOSpace 2.1 negotiation: the vectors of the reference, sections 4, 9.2 and 13."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from django.http import HttpResponse
from django.test import Client

from tests.global_inventory.conftest import Federation
from tests.global_inventory.test_locate_json import claims_of

URI = "cadc:TEST/a.txt"
CORE = "ivo://ivoa.net/vospace/core"
SSO = "ivo://ivoa.net/sso"
NS = "{http://www.ivoa.net/xml/VOSpace/v2.0}"


def document(
    direction: str = "pullFromVoSpace",
    protocols: tuple[str, ...] = (f"{CORE}#httpsget",),
    *,
    target: str = URI,
    extra: str = "",
) -> str:
    """A protocol may be followed by a blank and its security method."""
    lines = []
    for protocol in protocols:
        uri, _, security = protocol.partition(" ")
        inner = f'<vos:securityMethod uri="{security}"/>' if security else ""
        lines.append(f'<vos:protocol uri="{uri}">{inner}</vos:protocol>')
    return (
        '<vos:transfer xmlns:vos="http://www.ivoa.net/xml/VOSpace/v2.0" version="2.1">'
        f"<vos:target>{target}</vos:target><vos:direction>{direction}</vos:direction>{''.join(lines)}{extra}</vos:transfer>"
    )


def post(client: Client, body: str, content_type: str = "text/xml") -> HttpResponse:
    response = client.post("/locate", body.encode(), content_type=content_type)
    assert isinstance(response, HttpResponse)
    return response


def endpoints(response: HttpResponse) -> list[tuple[str | None, str, str | None]]:
    """(protocol uri, endpoint, security method) in document order."""
    assert response.status_code == 200, response.content
    found = []
    for protocol in ET.fromstring(response.content).findall(f"{NS}protocol"):
        security = protocol.find(f"{NS}securityMethod")
        found.append(
            (
                protocol.get("uri"),
                protocol.findtext(f"{NS}endpoint") or "",
                security.get("uri") if security is not None else None,
            )
        )
    return found


@pytest.mark.parametrize("content_type", ["text/xml", "application/xml", "text/xml; charset=utf-8"])
def test_the_smallest_request_gets_a_signed_url(federation: Federation, reader: Client, content_type: str) -> None:
    alpha = federation.add_site("alpha")
    federation.add_artifact(URI, alpha)
    response = post(reader, document(), content_type)
    assert response["Content-Type"].startswith("text/xml")
    root = ET.fromstring(response.content)
    assert (root.tag, root.get("version")) == (f"{NS}transfer", "2.1")
    assert root.findtext(f"{NS}target") == URI
    assert root.findtext(f"{NS}direction") == "pullFromVoSpace"
    assert root.findtext(f"{NS}keepBytes") == "true"
    # The site has no TLS, and the client can only ask for it.
    [(protocol, endpoint, security)] = endpoints(response)
    assert (protocol, security) == (f"{CORE}#httpsget", None)
    assert endpoint.startswith("http://alpha.test/site/files/1.")
    assert claims_of(reader, endpoint, URI, alpha.site_id).user == "reader"


def test_an_authenticated_method_gets_the_plain_address_and_is_echoed(federation: Federation, reader: Client) -> None:
    federation.add_artifact(URI, federation.add_site("alpha"))
    [(_, endpoint, security)] = endpoints(post(reader, document(protocols=(f"{CORE}#httpsget {SSO}#token",))))
    assert endpoint == f"http://alpha.test/site/files/{URI}"
    assert security == f"{SSO}#token"


def test_a_certificate_is_echoed_with_a_signed_url(federation: Federation, reader: Client) -> None:
    federation.add_artifact(URI, federation.add_site("alpha"))
    method = f"{SSO}#tls-with-certificate"
    [(_, endpoint, security)] = endpoints(post(reader, document(protocols=(f"{CORE}#httpsget {method}",))))
    assert "/files/1." in endpoint
    assert security == method


def test_of_six_protocols_a_site_with_tls_serves_four(federation: Federation, reader: Client) -> None:
    federation.add_artifact(URI, federation.add_site("alpha", "https://alpha.test/site"))
    asked = (
        f"{CORE}#httpsget",
        f"{CORE}#httpsget {SSO}#tls-with-certificate",
        f"{CORE}#httpsget {SSO}#cookie",
        f"{CORE}#httpsget {SSO}#token",
        f"{CORE}#httpget",
        "vos://cadc.nrc.ca~vospace/CADC/std/Protocols#SSHFS",
    )
    found = endpoints(post(reader, document(protocols=asked)))
    assert [(uri, security) for uri, _, security in found] == [
        (f"{CORE}#httpsget", None),
        (f"{CORE}#httpsget", f"{SSO}#tls-with-certificate"),
        (f"{CORE}#httpsget", f"{SSO}#cookie"),
        (f"{CORE}#httpsget", f"{SSO}#token"),
    ]


@pytest.mark.parametrize("copies", [1, 2])
def test_each_copy_gets_one_endpoint_for_each_protocol(federation: Federation, reader: Client, copies: int) -> None:
    federation.add_artifact(URI, *(federation.add_site(f"site{n}") for n in range(copies)))
    asked = (f"{CORE}#httpsget", f"{CORE}#httpsget {SSO}#token")
    assert len(endpoints(post(reader, document(protocols=asked)))) == 2 * copies


@pytest.mark.parametrize("writable", [0, 1, 2])
def test_a_push_lists_every_writable_site_and_may_be_empty(
    federation: Federation, operator: Client, writable: int
) -> None:
    for n in range(writable):
        federation.add_site(f"site{n}")
    federation.add_site("closed", allow_write=False)
    found = endpoints(post(operator, document("pushToVoSpace", (f"{CORE}#httpsput",))))
    assert len(found) == writable
    assert all("/files/1." in endpoint for _, endpoint, _ in found)


def test_a_push_ignores_protocols_that_pull(federation: Federation, operator: Client) -> None:
    federation.add_site("alpha")
    found = endpoints(post(operator, document("pushToVoSpace", (f"{CORE}#httpsget", f"{CORE}#httpput"))))
    assert [uri for uri, _, _ in found] == [f"{CORE}#httpput"]


def test_nothing_to_pull_from_is_404_in_plain_text(federation: Federation, reader: Client) -> None:
    federation.add_artifact("cadc:TEST/none", federation.add_site("closed", allow_read=False))
    federation.add_artifact("cadc:TEST/zero")
    federation.add_artifact("cadc:TEST/one", federation.add_site("alpha"))
    sshfs = ("vos://cadc.nrc.ca~vospace/CADC/std/Protocols#SSHFS",)
    cases = [document(), *(document(target=f"cadc:TEST/{name}") for name in ("none", "zero"))]
    cases += [document(target="cadc:TEST/one", protocols=sshfs), document(target="cadc:TEST/one", protocols=())]
    for body in cases:
        response = post(reader, body)
        assert response.status_code == 404, body
        assert response["Content-Type"].startswith("text/plain")


BAD = [
    ("", "empty"),
    ("<x/>", "root"),
    ("<vos:transfer", "XML"),
    (document(direction="pushFromVoSpace"), "direction"),
    (document(target="cadc:/x"), "must not start"),
    (document(extra="<vos:target>cadc:B</vos:target>"), "exactly one target"),
    (document().replace("<vos:target>cadc:TEST/a.txt</vos:target>", ""), "exactly one target"),
    ('<!DOCTYPE x [<!ENTITY a "b">]>' + document(), "XML"),
    ('<?xml version="1.0" encoding="no-such"?>' + document(), "XML"),
    ("<a>" * 5000, "XML"),
]


@pytest.mark.parametrize(("body", "word"), BAD)
def test_a_bad_document_is_refused_in_plain_text(operator: Client, body: str, word: str) -> None:
    response = post(operator, body or " ")
    assert response.status_code == 400
    assert response["Content-Type"].startswith("text/plain")
    assert word in response.content.decode()


def test_a_document_over_the_limit_is_refused(operator: Client) -> None:
    assert post(operator, document(extra=f"<!--{'x' * 70_000}-->")).status_code == 413


def test_who_may_negotiate(federation: Federation, reader: Client) -> None:
    push = document("pushToVoSpace", (f"{CORE}#httpsput",))
    assert post(Client(), document()).status_code == 401
    assert post(Client(), push).status_code == 401
    assert post(reader, push).status_code == 403
