"""The shipped nginx configuration, run: names, uploads and permissions pass through it unharmed, what a client forges does not."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from datamodel.processes import wait_until
from harvest.demo.peer import Digests, Peer
from harvest.demo.supervisor import port_is_free
from tests.ports import free_ports
from tests.programs import NGINX
from tests.scenarios.federation import PROJECT, Demo, eventually, put, read, shows

pytestmark = pytest.mark.xdist_group("federation")

SHIPPED = PROJECT / "datamodel" / "nginx.conf"


@dataclass(frozen=True)
class Proxy:
    """A running nginx; `trust` knows its certificate."""

    port: int
    plain_port: int
    directory: Path
    trust: ssl.SSLContext
    alpha: Peer

    def through(self, url: str) -> str:
        """The same URL, asked of the proxy."""
        return urlsplit(url)._replace(scheme="https", netloc=f"localhost:{self.port}").geturl()

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """A request line exactly as given: every client library has its own opinion about `//` and `%2F`."""
        authorization = {"Authorization": f"Bearer {self.alpha.token}"}
        answer, content = self.ask(method, path, body, authorization | headers)
        return answer.status, content

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=self.trust)
        try:
            connection.request(method, path, body=body or None, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def connect(self) -> ssl.SSLSocket:
        return self.trust.wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), timeout=30), server_hostname="localhost"
        )

    def log(self) -> str:
        return (self.directory / "inventory.log").read_text()


def certify(
    directory: Path, name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    """NAME.pem and NAME.key in the directory: a certificate for a name, signed by itself or by an issuer."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_name, issuer_key = issuer or (subject, key)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return subject, key


@contextmanager
def running_nginx(
    directory: Path, *, alpha: int, all_sites: int, second_alpha: int | None = None, clients: bool = False
) -> Iterator[tuple[int, int]]:
    """The shipped configuration with other places: (its port for TLS, its port for plain HTTP)."""
    if NGINX is None:
        pytest.skip("there is no nginx: install it, or let .ci/get-debian fetch it")
    tls = free_ports(2)
    plain = tls + 1
    text = SHIPPED.read_text(encoding="utf-8")
    services = [port for port in (alpha, second_alpha) if port is not None]
    places = {
        "server 127.0.0.1:8001;": " ".join(f"server 127.0.0.1:{port};" for port in services),
        "127.0.0.1:8000": f"127.0.0.1:{all_sites}",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "listen 443": f"listen 127.0.0.1:{tls}",
        "inventory.example.org": "localhost",
        "/etc/ssl/inventory/fullchain.pem": f"{directory}/localhost.pem",
        "/etc/ssl/inventory/privkey.pem": f"{directory}/localhost.key",
        "/etc/ssl/inventory/clients-ca.pem": f"{directory}/localhost.pem",
        "/var/log/nginx/": f"{directory}/",
        "#client ": "" if clients else "#client ",
    }
    for shipped_place, place in places.items():
        assert shipped_place in text
        text = text.replace(shipped_place, place)
    kinds = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off;\npid {directory}/pid;\nevents {{}}\nhttp {{\n{kinds}{text}}}\n"
    (directory / "nginx.conf").write_text(whole)
    argv = [NGINX, "-e", str(directory / "start.log"), "-c", str(directory / "nginx.conf"), "-p", str(directory)]
    with subprocess.Popen(argv, start_new_session=True) as process:
        try:
            wait_until(lambda: process.poll() is not None or not port_is_free(tls), 10, "nginx does not listen")
            assert process.poll() is None, (directory / "start.log").read_text()
            yield tls, plain
        finally:
            process.terminate()


@pytest.fixture
def proxy(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    certify(tmp_path, "localhost")
    # For the clients of the demo, which know no other place for it.
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "localhost.pem"))
    with running_nginx(tmp_path, alpha=demo.port + 1, all_sites=demo.port) as (port, plain):
        trust = ssl.create_default_context(cafile=str(tmp_path / "localhost.pem"))
        yield Proxy(port, plain, tmp_path, trust, Peer("alpha", f"https://localhost:{port}/alpha", demo.token))


class _Echo(BaseHTTPRequestHandler):
    """Answers with the headers that reached it."""

    def do_GET(self) -> None:
        body = json.dumps(dict(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Strict-Transport-Security", "max-age=1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Proxy]:
    """An nginx that asks for client certificates, before a server that tells what reached it."""
    ours = certify(tmp_path, "localhost")
    certify(tmp_path, "astronomer", ours)
    with HTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            there = server.server_port
            with running_nginx(tmp_path, alpha=there, all_sites=there, clients=True) as (port, plain):
                trust = ssl.create_default_context(cafile=str(tmp_path / "localhost.pem"))
                yield Proxy(port, plain, tmp_path, trust, Peer("alpha", f"https://localhost:{port}/alpha", "token"))
        finally:
            server.shutdown()
            thread.join()


FORGED = {
    "X-Client-DN": "CN=operator",
    "X-Client-Verify": "SUCCESS",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "Forwarded": "for=10.0.0.1",
    "X_Client_DN": "CN=operator",
}


def test_what_a_client_says_of_itself_does_not_pass(echo: Proxy) -> None:
    answer, body = echo.ask("GET", "/alpha/x", headers=FORGED)
    assert answer.status == 200
    reached = {name.lower(): value for name, value in json.loads(body).items()}
    assert reached["x-client-verify"] == "NONE"
    assert reached["x-forwarded-for"] == "127.0.0.1"
    assert reached["x-forwarded-proto"] == "https"
    assert not {"x-client-dn", "x-forwarded-host", "forwarded", "x_client_dn"} & reached.keys()


def test_a_client_certificate_is_told_and_one_of_another_issuer_is_refused(echo: Proxy, tmp_path: Path) -> None:
    echo.trust.load_cert_chain(tmp_path / "astronomer.pem", tmp_path / "astronomer.key")
    reached = json.loads(echo.ask("GET", "/alpha/x", headers=FORGED)[1])
    assert (reached["X-Client-DN"], reached["X-Client-Verify"]) == ("CN=astronomer", "SUCCESS")
    certify(tmp_path, "stranger")
    stranger = ssl.create_default_context(cafile=str(tmp_path / "localhost.pem"))
    stranger.load_cert_chain(tmp_path / "stranger.pem", tmp_path / "stranger.key")
    assert replace(echo, trust=stranger).ask("GET", "/alpha/x")[0].status == 400


def test_browsers_are_told_once_to_use_tls_only(echo: Proxy) -> None:
    for path, status in (("/alpha/x", 200), ("/nowhere", 404)):
        answer, _ = echo.ask("GET", path)
        assert answer.status == status
        assert answer.headers.get_all("Strict-Transport-Security") == ["max-age=31536000"]


def test_plain_http_leads_to_the_name_and_other_names_lead_nowhere(echo: Proxy) -> None:
    def plain(host: str) -> tuple[int, str | None]:
        connection = http.client.HTTPConnection("127.0.0.1", echo.plain_port, timeout=30)
        try:
            connection.request("GET", "/alpha/a//b%2F?c", headers={"Host": host, "X-Forwarded-Host": "evil.example"})
            answer = connection.getresponse()
            return answer.status, answer.headers["Location"]
        finally:
            connection.close()

    assert plain("localhost") == (308, "https://localhost/alpha/a//b%2F?c")
    with pytest.raises(http.client.RemoteDisconnected):
        plain("evil.example")
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", echo.port)) as connected:
        echo.trust.check_hostname = False
        echo.trust.wrap_socket(connected, server_hostname="evil.example")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_is_a_present_one(echo: Proxy, version: ssl.TLSVersion) -> None:
    echo.trust.minimum_version = echo.trust.maximum_version = version
    assert echo.ask("GET", "/alpha/x")[0].status == 200
    assert "TLSv1 " not in SHIPPED.read_text()


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param(lambda uri: uri, id="raw"),
        pytest.param(lambda uri: uri.replace(":", "%3A").replace("/", "%2F"), id="percent-encoded"),
        pytest.param(lambda uri: uri.replace(":", "%3a").replace("+", "%2B"), id="lower case"),
    ],
)
@pytest.mark.parametrize("name", ["plain", "a+b", "a//b", "a:b,c=d@e!f~20(g)*'"])
def test_every_spelling_of_a_uri_reaches_the_same_file(
    demo: Demo, proxy: Proxy, name: str, spelling: Callable[[str], str]
) -> None:
    uri = demo.namespace() + name
    assert proxy.raw("PUT", f"/alpha/files/{spelling(uri)}", b"content")[0] == 201
    assert proxy.raw("GET", f"/alpha/files/{uri}") == (200, b"content")
    assert proxy.raw("GET", f"/alpha/files/{spelling(uri)}") == (200, b"content")
    listed = demo.alpha.look_up(uri)
    assert listed is not None
    assert listed.uri == uri


def test_slashes_are_not_merged(demo: Demo, proxy: Proxy) -> None:
    namespace = demo.namespace()
    assert proxy.raw("PUT", f"/alpha/files/{namespace}a//b", b"two")[0] == 201
    assert proxy.raw("GET", f"/alpha/files/{namespace}a/b")[0] == 404


def test_a_signed_url_works_and_its_token_is_masked_in_the_log(demo: Demo, proxy: Proxy) -> None:
    # Beta does not want it, so the only place that the global can name is alpha.
    file = put(proxy.alpha, f"{demo.namespace().replace('demo:', 'unwanted:')}a+b//c", b"content")
    eventually(lambda: shows(demo.all_sites, file), "the global does not know it")
    ours = {"Authorization": f"Bearer {demo.token}"}
    url = proxy.through(demo.all_sites.file_url(file.uri))
    redirect = urllib3.request("GET", url, headers=ours, redirect=False)
    assert redirect.status == 303
    signed = redirect.headers["Location"]
    token = signed.partition("/files/")[2].partition("/")[0]
    assert len(token) > 100
    answer = urllib3.request("GET", proxy.through(signed))
    assert (answer.status, answer.data) == (200, b"content")
    wait_until(lambda: f"/files/***/{file.uri}" in proxy.log(), 10, proxy.log())
    assert token not in proxy.log()
    assert token.rpartition(".")[2] not in "".join(path.read_text() for path in proxy.directory.glob("*.log"))


def test_a_chunked_upload_streams_through(demo: Demo, proxy: Proxy) -> None:
    uri = f"{demo.namespace()}file"
    content = bytes(range(256)) * 8192
    pieces = (content[at : at + 100_000] for at in range(0, len(content), 100_000))
    answer = urllib3.request(
        "PUT", proxy.alpha.file_url(uri), body=pieces, headers={"Authorization": f"Bearer {demo.token}"}
    )
    assert answer.status == 201
    assert read(proxy.alpha, uri) == content


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked\r\n\r\n100000\r\n", "Content-Length: 1048576\r\n\r\n"])
def test_an_upload_that_is_cut_stores_nothing(demo: Demo, proxy: Proxy, framing: str) -> None:
    uri = f"{demo.namespace()}file"
    temporary = demo.directory / "alpha" / "storage" / "temporary"
    # Whatever a killed upload of another test has left there is swept later.
    before = set(temporary.iterdir())
    with proxy.connect() as connection:
        head = f"PUT /alpha/files/{uri} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {demo.token}\r\n{framing}"
        connection.sendall(head.encode() + b"x" * 500_000)
        # It is not buffered by nginx: the site writes what it has been sent so far.
        eventually(
            lambda: not set(temporary.iterdir()) <= before, "the upload does not reach the site before it is complete"
        )
    eventually(lambda: set(temporary.iterdir()) <= before, "the site does not notice the cut")
    assert demo.alpha.status_of(uri) == 404


def test_digests_are_judged_behind_the_proxy(demo: Demo, proxy: Proxy) -> None:
    wrong = Digests.of(BytesIO(b"other!!")).headers()["Repr-Digest"]
    status, _ = proxy.raw("PUT", f"/alpha/files/{demo.namespace()}file", b"content", **{"Repr-Digest": wrong})
    assert status == 412


def test_pages_below_the_base_path_link_to_themselves(demo: Demo, proxy: Proxy) -> None:
    status, page = proxy.raw("GET", "/alpha/admin/login/")
    assert status == 200
    assets = re.findall(rb'(?:href|src)="(/[^"]+\.(?:css|js))"', page)
    assert assets
    assert all(asset.startswith(b"/alpha/static/") for asset in assets)
    assert proxy.raw("GET", assets[0].decode())[0] == 200
