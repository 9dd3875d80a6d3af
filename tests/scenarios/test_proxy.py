"""The documented nginx configuration, run: names, uploads and permissions pass through a reverse proxy unharmed."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from datamodel.processes import wait_until
from harvest.demo.peer import Digests, Peer
from harvest.demo.supervisor import port_is_free
from tests.scenarios.federation import PROJECT, Demo, eventually, free_ports, put, read, shows

pytestmark = pytest.mark.xdist_group("federation")

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{PROJECT / 'build/nginx/usr/sbin'}")


@dataclass(frozen=True)
class Proxy:
    """A running nginx in front of a demo."""

    port: int
    directory: Path
    alpha: Peer

    def through(self, url: str) -> str:
        """The same URL, asked of the proxy."""
        return urlsplit(url)._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """A request line exactly as given: every client library has its own opinion about `//` and `%2F`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            authorization = {"Authorization": f"Bearer {self.alpha.token}"}
            connection.request(method, path, body=body or None, headers=authorization | headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def log(self) -> str:
        return (self.directory / "inventory.log").read_text()


def documented() -> str:
    """The configuration of the README."""
    (found,) = re.findall(r"```nginx\n(.*?)```", (PROJECT / "datamodel" / "README.md").read_text(), re.DOTALL)
    return str(found)


@pytest.fixture
def proxy(demo: Demo, tmp_path: Path) -> Iterator[Proxy]:
    if NGINX is None:
        pytest.skip("there is no nginx: install it, or let .ci/get-nginx fetch it")
    port = free_ports()
    text = documented()
    places = {
        "127.0.0.1:8001": f"127.0.0.1:{demo.port + 1}",
        "127.0.0.1:8000": f"127.0.0.1:{demo.port}",
        "listen 80;": f"listen 127.0.0.1:{port};",
        "/var/log/nginx/": f"{tmp_path}/",
    }
    for documented_place, place in places.items():
        assert documented_place in text
        text = text.replace(documented_place, place)
    kinds = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off;\npid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{kinds}{text}}}\n"
    (tmp_path / "nginx.conf").write_text(whole)
    argv = [NGINX, "-e", str(tmp_path / "start.log"), "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    with subprocess.Popen(argv, start_new_session=True) as process:
        try:
            wait_until(lambda: not port_is_free(port), 10, "nginx does not listen")
            assert process.poll() is None, (tmp_path / "start.log").read_text()
            yield Proxy(port, tmp_path, Peer("alpha", f"http://127.0.0.1:{port}/alpha", demo.token))
        finally:
            process.terminate()


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
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        head = f"PUT /alpha/files/{uri} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {demo.token}\r\n{framing}"
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
