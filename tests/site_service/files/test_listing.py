"""Listings: pages, streams, checksum lines, and HTML that walkers can walk."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from django.test import Client

from datamodel.reach import EVERYWHERE
from site_service.files import queries
from site_service.files.listing import checksum_line
from tests.factories import artifact_row, insert_artifact_row, new_content
from tests.site_service.conftest import TOKEN
from tests.site_service.files.requests import body_of, put
from tests.site_service.server import SiteProcess

NAMES = ["TEST/a.txt", "TEST/b/1.txt", "TEST/b/2.txt", "TEST/b/c/3.txt", "TEST/d", "TEST/d/e", "OTHER/x", "top"]
HOSTILE = ["h/caf%C3%A9", "h/a'(b)!~,=@*+.txt", "h/x:y", "h/--help", "h/.hidden"]


@pytest.fixture
def files(client: Client) -> Client:
    for name in NAMES:
        assert put(client, name.encode(), path=f"/files/cadc:{name}").status_code == 201
    insert_artifact_row(artifact_row(uri="cadc:TEST/elsewhere"))
    return client


def uris(client: Client, path: str) -> list[str]:
    return [item["uri"] for item in client.get(path).json()["items"]]


def test_artifacts_of_a_namespace_in_pages(files: Client) -> None:
    expected = sorted(f"cadc:{name}" for name in [*NAMES, "TEST/elsewhere"])
    assert uris(files, "/artifacts") == expected
    assert uris(files, "/artifacts?namespace=cadc:TEST/b/") == [
        uri for uri in expected if uri.startswith("cadc:TEST/b/")
    ]
    seen, query = [], "?namespace=cadc:TEST/&limit=2"
    while query:
        page = files.get(f"/artifacts{query}").json()
        assert len(page["items"]) <= 2
        seen += [item["uri"] for item in page["items"]]
        query = page["next"]
    assert seen == [uri for uri in expected if uri.startswith("cadc:TEST/")]


def test_stored_tells_and_filters_what_is_here(files: Client) -> None:
    page = files.get("/artifacts?namespace=cadc:TEST/").json()["items"]
    assert [item["uri"] for item in page if not item["stored"]] == ["cadc:TEST/elsewhere"]
    assert "cadc:TEST/elsewhere" not in uris(files, "/artifacts?stored=true")


@pytest.mark.parametrize(
    "query", ["namespace=cadc", "namespace=cadc:A", "limit=0", "limit=x", "limit=99999", "format=xml", "stored=1"]
)
def test_bad_listing_parameters_are_refused(client: Client, query: str) -> None:
    assert client.get(f"/artifacts?{query}").status_code == 400


def test_everything_as_ndjson_page_by_page(files: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGE_ROWS", 2)
    for answer in (
        files.get("/artifacts?format=ndjson"),
        files.get("/artifacts", headers={"accept": "application/x-ndjson"}),
    ):
        assert answer["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in body_of(answer).splitlines()]
        assert lines == files.get("/artifacts").json()["items"]


def test_listings_need_the_right_to_read(files: Client) -> None:
    for path in ("/artifacts", "/files/", "/files/cadc:"):
        assert Client().get(path).status_code == 401


@pytest.mark.parametrize(
    ("namespace", "names"),
    [
        ("", ["cadc:OTHER/", "cadc:TEST/", "cadc:top"]),
        ("cadc:", ["OTHER/", "TEST/", "top"]),
        ("cadc:TEST/", ["a.txt", "b/", "d", "d/"]),
        ("cadc:TEST/b/", ["1.txt", "2.txt", "c/"]),
        ("cadc:NOTHING/", []),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_names_directly_below_a_namespace(files: Client, namespace: str, names: list[str], limit: int) -> None:
    seen, query = [], f"?format=json&limit={limit}"
    while query:
        page = files.get(f"/files/{namespace}{query}").json()
        seen += [item["name"] for item in page["items"]]
        query = page["next"]
    assert seen == names


def test_deep_namespaces_are_passed_over_whatever_the_page(files: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "PAGE_ROWS", 1)
    assert [entry.name for entry in queries.entries(None, EVERYWHERE)] == ["cadc:OTHER/", "cadc:TEST/", "cadc:top"]


def test_text_is_what_sha256sum_checks(files: Client, tmp_path: Path) -> None:
    insert_artifact_row(artifact_row(uri="cadc:TEST/old", content_sha256=None), new_content().located)
    text = body_of(files.get("/files/cadc:TEST/", headers={"accept": "text/plain"})).decode()
    assert "# no sha-256 is known, only md5:" in text
    for name in NAMES:
        relative = Path(name.removeprefix("TEST/"))
        if name.startswith("TEST/") and name != "TEST/d":
            (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / relative).write_bytes(name.encode())
    listed = "".join(line for line in text.splitlines(keepends=True) if not line.endswith("  d\n"))
    done = subprocess.run(
        ["sha256sum", "-c", "--strict"], input=listed, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    assert done.stdout.count(": OK") == 5


def test_checksum_lines_are_escaped_as_coreutils_do() -> None:
    assert checksum_line("ab", "plain") == "ab  plain\n"
    assert checksum_line("ab", "a\\b\nc") == "\\ab  a\\\\b\\nc\n"


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs)["href"] or "")


def links(site: SiteProcess, path: str) -> list[str]:
    parser = Links()
    parser.feed(site.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"}).body.decode())
    return [urlsplit(urljoin(site.url + path, link)).path for link in parser.found]


@pytest.fixture
def hostile(live: SiteProcess) -> SiteProcess:
    for name in [*NAMES, *HOSTILE]:
        answer = live.request("PUT", f"/files/cadc:{name}", name.encode(), {"Authorization": f"Bearer {TOKEN}"})
        assert answer.status == 201, name
    return live


@pytest.mark.parametrize("root", ["/files/", "/files/cadc:"])
def test_every_file_is_reached_by_relative_links(hostile: SiteProcess, root: str) -> None:
    reached, waiting = set(), [root]
    while waiting:
        path = waiting.pop()
        if path.endswith("/") or path == root:
            waiting += links(hostile, path)
        else:
            got = hostile.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            reached.add(got.body.decode())
    assert reached == {*NAMES, *HOSTILE}


def test_wget_walks_a_namespace(hostile: SiteProcess, tmp_path: Path) -> None:
    if shutil.which("wget") is None:
        pytest.skip("wget is not installed here")
    argv = [
        "wget",
        "-q",
        "-r",
        "-np",
        "-nH",
        "--cut-dirs=2",
        "-e",
        "robots=off",
        f"--header=Authorization: Bearer {TOKEN}",
    ]
    subprocess.run([*argv, f"{hostile.url}/files/cadc:h/"], cwd=tmp_path, check=True, timeout=60)
    got = {hashlib.md5(path.read_bytes()).hexdigest() for path in tmp_path.rglob("*") if path.is_file()}
    assert {hashlib.md5(f"h/{name}".encode()).hexdigest() for name in ("x:y", "--help", ".hidden")} <= got


def test_html_escapes_what_could_act(client: Client) -> None:
    put(client, path="/files/cadc:T/'onload=alert(1)'")
    page = body_of(client.get("/files/cadc:T/"))
    assert b"%27onload%3Dalert%281%29%27" in page
    assert b"'onload" not in page
    assert "sandbox" in client.get("/files/cadc:T/")["Content-Security-Policy"]


def test_head_of_a_listing_says_its_type(client: Client) -> None:
    assert client.head("/files/cadc:T/")["Content-Type"].startswith("text/html")
    assert client.head("/artifacts")["Content-Type"] == "application/json"


def test_files_without_slash_leads_to_the_listing(client: Client) -> None:
    assert client.get("/files").status_code == 301
