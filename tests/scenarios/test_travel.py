"""A file's way through the federation: put, seen, pulled, fetched, replaced, deleted; over HTTP, real processes."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pytest
import urllib3

from datamodel.uris import Namespace
from harvest.demo.peer import Digests, PeerError
from tests.scenarios.federation import Demo, File, eventually, eventually_at, listing, put, read, shows

pytestmark = pytest.mark.xdist_group("federation")


@pytest.fixture
def file(demo: Demo) -> File:
    """A file that alpha has taken, and that has arrived everywhere."""
    file = put(demo.alpha, f"{demo.namespace()}file", b"first content")
    eventually_at((demo.all_sites, demo.beta), lambda peer: shows(peer, file), f"{file.uri} is not shown")
    return file


def test_what_alpha_takes_the_global_knows_at_once_and_beta_pulls(
    demo: Demo, record_property: Callable[[str, object], None]
) -> None:
    content = bytes(range(256)) * 4096
    file = put(demo.alpha, f"{demo.namespace()}file.fits", content)
    record_property("known to the global after (s)", eventually(lambda: shows(demo.all_sites, file), "the global"))
    record_property("pulled by beta after (s)", eventually(lambda: shows(demo.beta, file), "beta"))
    assert read(demo.beta, file.uri) == content


def test_a_file_is_read_through_the_global_by_a_signed_url(demo: Demo, file: File) -> None:
    assert read(demo.all_sites, file.uri) == file.content


def test_the_inventories_know_each_other_by_their_keys_and_share_no_secret(demo: Demo) -> None:
    peers = {
        name: demo.sql(name, "SELECT name FROM remote_inventory WHERE paired_at IS NOT NULL ORDER BY 1")
        for name in ("global", "alpha", "beta")
    }
    assert peers == {"global": [("alpha",), ("beta",)], "alpha": [("global",)], "beta": [("global",)]}
    secrets = [demo.sql(name, "SELECT count(*) FROM remote_inventory WHERE token <> ''") for name in peers]
    assert secrets == [[(0,)]] * 3
    readers = demo.sql("alpha", "SELECT DISTINCT caller FROM feed_reader")
    assert readers == [("inventory:global",)]


def test_what_beta_does_not_want_stays_at_alpha(demo: Demo) -> None:
    unwanted = put(demo.alpha, f"other:{demo.namespace().replace(':', '/')}file", b"content")
    wanted = put(demo.alpha, f"{demo.namespace()}file", b"content")
    eventually(lambda: shows(demo.all_sites, unwanted), "the global does not know it")
    eventually(lambda: shows(demo.beta, wanted), "beta does not pull what it wants")
    assert demo.beta.look_up(unwanted.uri) is None


def test_a_replacement_arrives_everywhere_and_the_old_content_is_gone(demo: Demo, file: File) -> None:
    new = put(demo.alpha, file.uri, b"second content")
    assert new.stored.artifact_id != file.stored.artifact_id
    eventually_at(demo.everybody, lambda peer: shows(peer, new), "the replacement is not shown")
    assert [read(peer, file.uri) for peer in demo.everybody] == [b"second content"] * 3


def test_a_deletion_arrives_everywhere(demo: Demo, file: File) -> None:
    demo.alpha.delete(file.uri)
    eventually_at(demo.everybody, lambda peer: peer.status_of(file.uri) == 404, "it is still there")
    eventually_at(demo.everybody, lambda peer: peer.look_up(file.uri) is None, "it is still listed")


def test_what_is_undeleted_at_one_site_lives_again_everywhere_without_travelling(demo: Demo, file: File) -> None:
    stored = "SELECT l.storage_id FROM storage_location l JOIN artifact a ON a.id = l.artifact_id WHERE a.uri = %s"
    eventually(lambda: bool(demo.sql("beta", stored, file.uri)), "beta does not pull it")
    before = demo.sql("beta", stored, file.uri)
    demo.alpha.delete(file.uri)
    eventually_at(demo.everybody, lambda peer: peer.look_up(file.uri) is None, "it is still listed")
    ours = {"Authorization": f"Bearer {demo.token}"}
    answer = urllib3.request("POST", f"{demo.alpha.url}/undelete", json={"uri": file.uri}, headers=ours)
    assert answer.status == 200, answer.data
    assert answer.json()["items"][0]["id"] != file.stored.artifact_id
    eventually_at(demo.everybody, lambda peer: shows(peer, file), "it does not live again")
    assert [read(peer, file.uri) for peer in (demo.beta, demo.all_sites)] == [file.content] * 2
    assert demo.sql("beta", stored, file.uri) == before, "the bytes travelled instead of being found again"


def test_beta_deletes_what_alpha_has_taken(demo: Demo, file: File) -> None:
    demo.beta.delete(file.uri)
    eventually_at(demo.everybody, lambda peer: peer.status_of(file.uri) == 404, "it is still there")


def test_whoever_shows_the_position_of_a_write_is_never_answered_from_the_past(demo: Demo) -> None:
    uri = f"{demo.namespace()}file"
    for number in range(10):
        file = put(demo.alpha, uri, b"content %d" % number)
        assert read(demo.all_sites, uri, file.stored.position) == file.content
    gone = demo.alpha.delete(uri)
    assert demo.all_sites.status_of(uri, gone.position) == 404


def test_a_file_just_put_is_found_through_the_global_without_a_position(demo: Demo) -> None:
    file = put(demo.alpha, f"{demo.namespace()}file", b"content")
    assert read(demo.all_sites, file.uri) == b"content"


def test_difficult_names_and_empty_files_travel_unharmed(demo: Demo) -> None:
    namespace = Namespace.parse(demo.namespace())
    names = [
        b"with a blank",
        b"x" * 220,
        b"\xff\xfe not utf-8",
        "ü~%2F+:ß".encode(),
        b"a//b".replace(b"//", b"/"),
        b"empty",
    ]
    files = [put(demo.alpha, namespace.uri_for(name).value, b"" if name == b"empty" else name) for name in names]
    eventually(lambda: all(shows(demo.beta, file) for file in files), "beta does not have them all")
    for file in files:
        assert read(demo.beta, file.uri) == file.content
        assert read(demo.all_sites, file.uri) == file.content
    assert listing(demo.all_sites, namespace.value).keys() == {file.uri for file in files}


def test_a_body_that_does_not_match_its_digest_is_stored_nowhere(demo: Demo) -> None:
    uri = f"{demo.namespace()}file"
    with pytest.raises(PeerError, match="412"):
        demo.alpha.put(uri, BytesIO(b"flipped"), Digests.of(BytesIO(b"correct")))
    assert demo.alpha.status_of(uri) == 404
