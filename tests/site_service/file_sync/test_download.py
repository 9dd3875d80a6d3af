"""What a download does with sources that are cut, wrong, slow, silent or gone: real HTTP on loopback."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace

import pytest

from datamodel.errors import RemoteError, RemoteProtocolError, RemoteRefusedError, RemoteUnavailableError
from site_service.file_sync.download import Download, Limits
from site_service.file_sync.rules import Source, Wanted
from tests.fakes import files
from tests.fakes.files import FakeSite, Fault, running
from tests.site_service.file_sync.conftest import CONTENT, wanted

LIMITS = Limits(connect_seconds=5, read_seconds=5, min_bytes_per_second=0)
HALF = len(CONTENT) // 2


def sources(what: Wanted, *sites: FakeSite) -> list[Source]:
    """Each site holds the artifact, and is asked in this order."""
    for site in sites:
        site.hold(what.uri, CONTENT, what.artifact_id)
    return [Source(site.address_of(what.uri), site.name) for site in sites]


def content_of(download: Download, size: int = 50_000) -> bytes:
    with download:
        return b"".join(iter(lambda: download.read(size), b""))


def test_a_sound_source_gives_all_bytes_in_one_request(alpha: FakeSite) -> None:
    what = wanted()
    download = Download(what, sources(what, alpha), LIMITS)
    assert content_of(download) == CONTENT
    assert [(asked.range, asked.cache_control) for asked in alpha.asked] == [(None, "no-store")]
    assert download.tried == []
    assert [source.site for source in download.contributors] == ["alpha"]


def test_the_uri_reaches_the_source_as_it_is(alpha: FakeSite) -> None:
    what = wanted(uri="cadc:A//b/../c+d,e=f@g!h~20'(i)%C3%A9")
    assert content_of(Download(what, sources(what, alpha), LIMITS)) == CONTENT


def test_an_empty_artifact_needs_no_request(alpha: FakeSite) -> None:
    what = wanted(b"")
    assert content_of(Download(what, [Source(alpha.address_of(what.uri), "alpha")], LIMITS)) == b""
    assert not alpha.asked


RESUMED = [
    ("cut by closing", files.cut(HALF)),
    ("cut inside a chunked body", files.both(files.chunked, files.cut(HALF))),
    ("cut at once", files.cut(0)),
]


@pytest.mark.parametrize("fault", [case[1] for case in RESUMED], ids=[case[0] for case in RESUMED])
def test_a_cut_source_is_resumed_elsewhere_at_the_same_offset(alpha: FakeSite, gamma: FakeSite, fault: Fault) -> None:
    what = wanted()
    alpha.faults.append(fault)
    download = Download(what, sources(what, alpha, gamma), LIMITS)
    assert content_of(download) == CONTENT
    asked = gamma.asked[0].range
    assert asked == (f"bytes={HALF}-" if download.contributors[0].site == "alpha" else None)
    assert [failure.source.site for failure in download.failures] == ["alpha"]
    assert download.failures[0].error.retryable


def test_a_source_that_ignores_the_range_is_read_from_its_start_and_never_appended(
    alpha: FakeSite, gamma: FakeSite
) -> None:
    what = wanted()
    alpha.faults.append(files.cut(HALF + 17))
    gamma.usually = files.ignore_range
    assert content_of(Download(what, sources(what, alpha, gamma), LIMITS)) == CONTENT
    assert gamma.asked[0].range == f"bytes={HALF + 17}-"


REFUSED: list[tuple[str, Fault, type[RemoteError]]] = [
    ("not found", files.status(404), RemoteRefusedError),
    ("forbidden", files.status(403), RemoteRefusedError),
    ("unauthorized", files.status(401), RemoteRefusedError),
    ("range refused", files.status(416), RemoteRefusedError),
    ("redirect", files.status(303, Location="http://127.0.0.1:9/x"), RemoteProtocolError),
    ("no content", files.status(204), RemoteProtocolError),
    ("a part that was not asked for", files.status(206), RemoteProtocolError),
    ("server error", files.status(500), RemoteUnavailableError),
    ("busy", files.status(429), RemoteUnavailableError),
    ("other length", files.shorter(1), RemoteProtocolError),
    ("other Digest", files.header("Digest", "md5=1B2M2Y8AsgTpgAmY7PhCfg=="), RemoteProtocolError),
    ("other Digest of another kind", files.header("Digest", f"sha-256={'A' * 43}="), RemoteProtocolError),
    ("other Repr-Digest", files.header("Repr-Digest", f"sha-256=:{'A' * 43}=:"), RemoteProtocolError),
    ("other artifact", files.header("x-artifact-id", "00000000-0000-0000-0000-000000000000"), RemoteProtocolError),
]


@pytest.mark.parametrize(("fault", "kind"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_source_that_does_not_fit_is_refused_before_its_first_byte(
    alpha: FakeSite, gamma: FakeSite, fault: Fault, kind: type[RemoteError]
) -> None:
    what = wanted()
    alpha.usually = fault
    download = Download(what, sources(what, alpha, gamma), LIMITS)
    assert content_of(download) == CONTENT
    assert [type(failure.error) for failure in download.failures] == [kind]
    assert [source.site for source in download.contributors] == ["gamma"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib3 forgets the socket then
def test_an_answer_with_two_lengths_is_nonsense(alpha: FakeSite) -> None:
    what = wanted()
    alpha.usually = files.header("Content-Length", "5, 6")
    with pytest.raises(RemoteProtocolError, match="alpha"):
        content_of(Download(what, sources(what, alpha), LIMITS))
    gc.collect()


RANGES = ["bytes 0-{last}/{all}", "bytes {half}-{last}/{more}", "bytes {half}-{less}/{all}", "garbage", None]


@pytest.mark.parametrize("template", RANGES)
def test_a_part_that_does_not_fit_is_not_appended(alpha: FakeSite, gamma: FakeSite, template: str | None) -> None:
    what = wanted()
    alpha.faults.append(files.cut(HALF))
    size = len(CONTENT)
    text = template and template.format(half=HALF, last=size - 1, less=size - 2, all=size, more=size + 1)
    gamma.faults.append(files.header("Content-Range", text))
    delta = FakeSite("delta")
    with running(delta):
        download = Download(what, sources(what, alpha, gamma, delta), LIMITS)
        assert content_of(download) == CONTENT
    assert [source.site for source in download.contributors] == ["alpha", "delta"]


@pytest.mark.parametrize("name", ["Digest", "Repr-Digest"])
def test_a_malformed_digest_header_says_nothing(alpha: FakeSite, name: str) -> None:
    what = wanted()
    alpha.usually = files.both(files.header("x-artifact-id", None), files.header(name, "md5=?!"))
    assert content_of(Download(what, sources(what, alpha), LIMITS)) == CONTENT


def test_a_silent_source_is_left_after_the_timeout(alpha: FakeSite, gamma: FakeSite) -> None:
    what = wanted()
    released = threading.Event()
    alpha.usually = files.silent(released)
    download = Download(what, sources(what, alpha, gamma), replace(LIMITS, read_seconds=0.2))
    assert content_of(download) == CONTENT
    assert download.failures[0].error.retryable
    released.set()


def test_a_source_that_trickles_is_left_for_the_next_one(alpha: FakeSite, gamma: FakeSite) -> None:
    what = wanted()
    alpha.usually = files.slow(0.005)
    limits = replace(LIMITS, min_bytes_per_second=100_000, window_seconds=0.1)
    download = Download(what, sources(what, alpha, gamma), limits)
    assert content_of(download) == CONTENT
    assert "too slow" in download.failures[0].error.detail
    assert gamma.asked[0].range is not None


def test_when_all_sources_fail_for_good_the_last_word_is_theirs(alpha: FakeSite, gamma: FakeSite) -> None:
    what = wanted()
    alpha.usually, gamma.usually = files.status(404), files.status(403)
    download = Download(what, sources(what, alpha, gamma), LIMITS)
    with pytest.raises(RemoteRefusedError, match="gamma answered 403"):
        content_of(download)
    assert download.tried == ["alpha", "gamma"]


def test_when_some_source_may_work_later_the_failure_is_retryable(alpha: FakeSite, gamma: FakeSite) -> None:
    what = wanted()
    alpha.usually, gamma.usually = files.status(503), files.status(404)
    with pytest.raises(RemoteUnavailableError, match="alpha: answered 503"):
        content_of(Download(what, sources(what, alpha, gamma), LIMITS))


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "http:///x", "/x", "http://127.0.0.1:1/x", "http://a:99999/x", "http://[a/x"]
)
def test_a_url_that_leads_nowhere_is_a_failure_of_its_source(url: str) -> None:
    with pytest.raises(RemoteError, match="alpha"):
        content_of(Download(wanted(), [Source(url, "alpha")], LIMITS))


def test_without_any_source_there_is_nothing_to_read() -> None:
    with pytest.raises(RemoteUnavailableError, match=r"no source for cadc:TEST/file\.fits"):
        content_of(Download(wanted(), [], LIMITS))


def test_a_download_under_way_waits_for_its_only_source_to_come_back(alpha: FakeSite) -> None:
    what = wanted()
    alpha.faults.extend([files.cut(HALF), files.status(503), files.status(503)])
    pauses: list[float] = []
    assert content_of(Download(what, sources(what, alpha), LIMITS, sleep=pauses.append)) == CONTENT
    assert pauses == [1.0, 4.0, 10.0]
    assert alpha.asked[-1].range == f"bytes={HALF}-"


def test_its_patience_ends(alpha: FakeSite) -> None:
    what = wanted()
    alpha.faults.append(files.cut(HALF))
    alpha.usually = files.status(503)
    pauses: list[float] = []
    with pytest.raises(RemoteUnavailableError):
        content_of(Download(what, sources(what, alpha), LIMITS, sleep=pauses.append))
    assert len(pauses) == 3


def test_a_download_that_brought_nothing_does_not_wait(alpha: FakeSite) -> None:
    what = wanted()
    alpha.usually = files.status(503)
    pauses: list[float] = []
    with pytest.raises(RemoteUnavailableError):
        content_of(Download(what, sources(what, alpha), LIMITS, sleep=pauses.append))
    assert not pauses


def test_small_files_share_a_connection(alpha: FakeSite) -> None:
    what = wanted()
    for _ in range(5):
        assert content_of(Download(what, sources(what, alpha), LIMITS)) == CONTENT
    assert alpha.connections <= 1
