"""Client certificates: one form of a name, believed from a proxy of ours only, and never instead of something better."""

from __future__ import annotations

import base64
import re
import ssl
import subprocess
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import urllib3
from cryptography import x509
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from pytest_django import Settings

from datamodel import access, auth
from datamodel.admin_fields import LinesField
from datamodel.certificates import CertificateHeaderMiddleware
from datamodel.distinguished_names import canonical_dn
from datamodel.errors import InvalidRequestError, InventoryError, NotAuthenticatedError, NotPermittedError
from datamodel.grants import Grant, Role
from datamodel.models import InventoryIdentity, NamespaceGrant, RoleAssignment
from datamodel.processes import wait_until
from datamodel.proxies import client_address
from harvest.demo.supervisor import port_is_free
from tests.architecture.source import PROJECT
from tests.fakes.authority import certificate
from tests.ports import free_port
from tests.programs import NGINX

ALICE = "CN=alice,O=x\\, y,C=CA"
SENT = {"X-Client-DN": ALICE, "X-Client-Verify": "SUCCESS"}


@pytest.fixture
def proxied(settings: Settings) -> None:
    settings.INVENTORY_TRUSTED_PROXIES = ["10.0.0.0/8", "::1"]
    settings.INVENTORY_CLIENT_CERTIFICATE_HEADER = "X-Client-DN"


def request(method: str = "GET", *, address: str = "10.1.2.3", **headers: str) -> HttpRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RequestFactory().generic(method, "/", headers=named, REMOTE_ADDR=address)


def certified(method: str = "GET", *, dn: str = ALICE, verify: str = "SUCCESS", **headers: str) -> HttpRequest:
    return request(method, X_Client_DN=dn, X_Client_Verify=verify, **headers)


# --- names


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("CN=alice,O=b,C=CA", "CN=alice,O=b,C=CA"),
        ("cn=alice, o = b,C=CA", "CN=alice,O=b,C=CA"),
        ("/C=CA/O=b/CN=alice", "CN=alice,O=b,C=CA"),
        ("/DC=org/CN=host/a.org/CN=x, y+z", "CN=x\\, y\\+z,CN=host/a.org,DC=org"),
        ("emailAddress=a@b,CN=x", "emailAddress=a@b,CN=x"),
        ("E=a@b,CN=x", "emailAddress=a@b,CN=x"),
        ("1.2.840.113549.1.9.1=a@b,2.5.4.3=x", "emailAddress=a@b,CN=x"),
        (r"CN=\C3\A9t\C3\A9,O=a\2Cb", "CN=été,O=a\\,b"),
        (r"CN=a\,O=b,C=CA", r"CN=a\,O=b,C=CA"),
        ("CN=a+UID=b,DC=x", "CN=a+UID=b,DC=x"),
    ],
)
def test_a_name_has_one_form_however_it_is_written(written: str, canonical: str) -> None:
    assert canonical_dn(written) == canonical
    assert canonical_dn(canonical) == canonical


@pytest.mark.parametrize(
    "wrong",
    ["", "alice", "CN=", "C=Canada", "CN=#0C0161", "CN=a\nb", f"O={'x' * 60},OU={'y' * 60},O={'z' * 99}", "/alice"],
)
def test_what_is_no_name(wrong: str) -> None:
    with pytest.raises(InvalidRequestError):
        canonical_dn(wrong)


def test_grants_and_roles_know_one_form(inventory: InventoryIdentity) -> None:
    access.save_grant(prefix="cadc:", allowed={Grant.READ: ["dn:/C=CA/CN=alice", "dn:cn=alice,C=CA", "user:a"]})
    assert NamespaceGrant.objects.get().readers == ["dn:CN=alice,C=CA", "user:a"]
    access.assign_role(principal="dn:/C=CA/CN=alice", role=Role.AUDITOR)
    assert RoleAssignment.objects.get().principal == "dn:CN=alice,C=CA"
    assert access.withdraw_role(principal="dn:c=CA,cn=alice", role=Role.AUDITOR) is False
    assert access.withdraw_role(principal="dn:cn=alice, c=CA", role=Role.AUDITOR) is True
    with pytest.raises(InvalidRequestError, match="no distinguished name"):
        access.save_grant(prefix="cadc:", allowed={Grant.READ: ["dn:alice"]})


def test_a_form_takes_a_name_with_commas_on_a_line_of_its_own() -> None:
    assert LinesField().clean("user:a, user:b\r\ndn:CN=alice,C=CA\n") == ["user:a", "user:b", "dn:CN=alice,C=CA"]


# --- callers


def test_a_verified_name_is_the_caller(proxied: None) -> None:
    caller = auth.authenticate(certified())
    assert (caller.name, caller.method, caller.grants) == (ALICE, "x509", frozenset())
    assert caller.principals == {"*", f"dn:{ALICE}"}


@pytest.mark.parametrize("verify", ["FAILED:certificate has expired", "NONE", "", "success"])
def test_a_name_that_is_not_verified_never_falls_through(proxied: None, verify: str) -> None:
    with pytest.raises(NotAuthenticatedError, match="not verified"):
        auth.authenticate(certified(verify=verify))


@pytest.mark.parametrize("dn", ["", "alice", "/C=CA/CN=alice"])
def test_a_verified_certificate_without_a_name_that_is_sure_is_refused(proxied: None, dn: str) -> None:
    with pytest.raises(NotAuthenticatedError, match="no distinguished name"):
        auth.authenticate(certified(dn=dn))


@pytest.mark.parametrize("verify", ["NONE", None])
def test_without_a_certificate_others_decide(proxied: None, verify: str | None) -> None:
    headers = {} if verify is None else {"X_Client_Verify": verify}
    assert auth.authenticate(request(**headers)).is_anonymous


def test_a_token_comes_before_a_certificate_and_a_bad_one_does_not_fall_through_to_it(
    proxied: None, inventory: InventoryIdentity
) -> None:
    secret = auth.create_api_token(name="t", grants=frozenset(), now=datetime.now(UTC))
    assert auth.authenticate(certified(Authorization=f"Bearer {secret}")).name == "t"
    with pytest.raises(NotAuthenticatedError):
        auth.authenticate(certified(Authorization="Bearer wrong"))


def test_a_certificate_comes_before_a_session(proxied: None, inventory: InventoryIdentity) -> None:
    found = certified()
    found.user = get_user_model().objects.create_superuser("root")
    assert auth.authenticate(found).name == ALICE


def test_a_page_of_another_site_uses_nobodys_certificate(proxied: None, settings: Settings) -> None:
    own = settings.CSRF_TRUSTED_ORIGINS[0]
    assert auth.authenticate(certified("POST")).name == ALICE
    assert auth.authenticate(certified("POST", Origin=own, Sec_Fetch_Site="same-origin")).name == ALICE
    assert auth.authenticate(certified("GET", Sec_Fetch_Site="cross-site")).name == ALICE
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        with pytest.raises(NotPermittedError, match="another site"):
            auth.authenticate(certified("DELETE", **headers))


@pytest.mark.parametrize("headers", [SENT, {"X-Client-DN": ""}, {"X-Client-Verify": "NONE"}])
def test_such_a_header_from_anyone_else_is_refused_whatever_else_is_shown(
    proxied: None, inventory: InventoryIdentity, headers: dict[str, str]
) -> None:
    secret = auth.create_api_token(name="t", grants=frozenset(Grant), now=datetime.now(UTC))
    client = Client(headers={**headers, "Authorization": f"Bearer {secret}"})
    for address in ("127.0.0.1", "11.0.0.1", ""):
        response = client.get("/livez", REMOTE_ADDR=address)
        assert (response.status_code, response.json()["code"]) == (403, "not_permitted")
    assert client.get("/livez", REMOTE_ADDR="10.0.0.1").status_code == 200


def test_when_off_no_header_says_anything(settings: Settings) -> None:
    settings.INVENTORY_TRUSTED_PROXIES = ["10.0.0.0/8"]
    assert auth.authenticate(certified()).is_anonymous
    assert Client(headers=SENT).get("/livez").status_code == 200


# --- addresses


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.1", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_address_of_a_client_is_what_our_own_proxies_say(
    proxied: None, peer: str, forwarded: str, address: str
) -> None:
    headers = {"X_Forwarded_For": forwarded} if forwarded else {}
    assert client_address(request(address=peer, **headers)) == address


def test_a_proxy_by_a_unix_socket_is_trusted_when_that_is_said(settings: Settings) -> None:
    settings.INVENTORY_TRUSTED_PROXIES = ["unix"]
    assert client_address(request(address="", X_Forwarded_For="198.51.100.1")) == "198.51.100.1"
    assert client_address(request(address="10.0.0.1", X_Forwarded_For="198.51.100.1")) == "10.0.0.1"


# --- with a real nginx


def who(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """As the service's own stack answers, but for the name of the caller."""

    def view(request: HttpRequest) -> HttpResponse:
        try:
            return HttpResponse(auth.authenticate(request).name)
        except InventoryError as error:
            return HttpResponse(error.detail, status=401)

    response: Any = CertificateHeaderMiddleware(view)(WSGIRequest(environ))
    start_response(f"{response.status_code} x", [("Content-Length", str(len(response.content)))])
    return [response.content]


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the base class
        del format, args


@pytest.fixture
def nginx(settings: Settings, tmp_path: Path) -> Iterator[int]:
    """nginx with the documented lines, before a service that tells who calls."""
    if NGINX is None:
        pytest.skip("there is no nginx: install it, or let .ci/get-debian fetch it")
    settings.INVENTORY_TRUSTED_PROXIES = ["127.0.0.1"]
    settings.INVENTORY_CLIENT_CERTIFICATE_HEADER = "X-Client-DN"
    server = make_server("127.0.0.1", 0, who, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    (lines,) = re.findall(r"```conf\n(ssl_client.*?)```", (PROJECT / "datamodel/README.md").read_text(), re.DOTALL)
    port = free_port()
    text = lines.replace("/etc/nginx/clients-ca.pem", f"{tmp_path}/ca.pem")
    kinds = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; events {{}} http {{ {kinds} access_log off; server {{ listen 127.0.0.1:{port} ssl;"
        f"ssl_certificate {tmp_path}/server.pem; ssl_certificate_key {tmp_path}/server.key; {text}"
        f"location / {{ proxy_pass http://127.0.0.1:{server.server_port}; }} }} }}"
    )
    authority = certificate(tmp_path, "ca", [x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
    kind = x509.NameOID
    subject = [(kind.COUNTRY_NAME, "CA"), (kind.ORGANIZATION_NAME, "x, y"), (kind.COMMON_NAME, "Zoé")]
    certificate(tmp_path, "server", [x509.NameAttribute(kind.COMMON_NAME, "127.0.0.1")], authority)
    certificate(tmp_path, "client", [x509.NameAttribute(oid, value) for oid, value in subject], authority)
    certificate(tmp_path, "stranger", [x509.NameAttribute(kind.COMMON_NAME, "mallory")])
    argv = [NGINX, "-e", str(tmp_path / "error.log"), "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    with subprocess.Popen(argv, start_new_session=True) as process:
        try:
            wait_until(lambda: not port_is_free(port), 10, "nginx does not listen")
            assert process.poll() is None, (tmp_path / "error.log").read_text()
            yield port
        finally:
            process.terminate()
            server.shutdown()
            server.server_close()
            thread.join()


def test_nginx_passes_on_the_certificate_that_it_has_verified_and_nothing_that_a_client_says(
    nginx: int, tmp_path: Path
) -> None:
    def ask(client: str | None = None, **headers: str) -> tuple[int, str]:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        if client is not None:
            context.load_cert_chain(tmp_path / f"{client}.pem", tmp_path / f"{client}.key")
        with urllib3.PoolManager(ssl_context=context) as pool:
            answer = pool.request("GET", f"https://127.0.0.1:{nginx}/", headers=headers, retries=False)
            return answer.status, answer.data.decode()

    assert ask("client") == (200, "CN=Zoé,O=x\\, y,C=CA")
    assert ask() == (200, "anonymous")
    assert ask("client", **{"X-Client-DN": "CN=root", "X-Client-Verify": "SUCCESS"}) == (200, "CN=Zoé,O=x\\, y,C=CA")
    assert ask(**{"X-Client-DN": "CN=root", "X-Client-Verify": "SUCCESS"}) == (200, "anonymous")
    assert ask("stranger")[0] == 400
    basic = base64.b64encode(b"x:wrong").decode()
    assert ask("client", Authorization=f"Digest {basic}")[0] == 401
